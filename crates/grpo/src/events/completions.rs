//! Completions as parquet, one file per step.

use std::path::{Path, PathBuf};

use embodied_r_data::parquet::{Column, write_table_in_existing_folder};
use embodied_r_rewards::AnswerType;
use serde_json::json;

use super::{Event, Sink};
use crate::data::questions::TokenizedQuestion;
use crate::error::{Error, Result};
use crate::model::FinishReason;
use crate::rollout::{Completion, Rollout};

/// Name of the folder in a run's folder.
pub const COMPLETIONS_FOLDER: &str = "completions";

/// The fixed columns, in order.
pub(crate) const COLUMNS: [&str; 11] = [
    "step",
    "question_id",
    "prompt",
    "prompt_ids",
    "completion",
    "completion_ids",
    "length",
    "finish_reason",
    "solution",
    "reward",
    "advantage",
];

/// Suffix of a reward's column of reasons.
pub(crate) const WHY: &str = "_why";

/// The column with what is needed to draw a question's answers on its images, of runs with such questions: a JSON object of
/// `answer_type`, `coordinates`, `width`, `height` and `images`, the paths.
pub const DRAWN: &str = "drawn";

/// What [`DRAWN`] has for each question; nothing if no question has an answer that is drawn.
pub fn drawn(questions: &[TokenizedQuestion]) -> Vec<Option<String>> {
    let of = |TokenizedQuestion { question, images, .. }: &TokenizedQuestion| {
        let answer_type = AnswerType::of_columns(&question.extra).filter(|it| it.is_drawn())?;
        let mut drawn = json!({"answer_type": answer_type.name(), "images": images});
        for name in ["coordinates", "width", "height"] {
            if let Some(value) = question.extra.get(name) {
                drawn[name] = value.clone();
            }
        }
        Some(drawn.to_string())
    };
    let all: Vec<_> = questions.iter().map(of).collect();
    if all.iter().any(Option::is_some) { all } else { Vec::new() }
}

/// Writes the completions of every step to `completions_NNNNN.parquet`, one row each.
#[derive(Debug)]
pub struct Parquet {
    folder: PathBuf,
    rewards: Vec<String>,
    drawn: Vec<Option<String>>,
}

impl Parquet {
    /// A writer into the run's folder `run`; `rewards` are the reward names in the order of the scores, `drawn` is
    /// [that](drawn()) of the run's questions.
    pub fn new(run: &Path, rewards: Vec<String>, drawn: Vec<Option<String>>) -> Self {
        Self { folder: run.join(COMPLETIONS_FOLDER), rewards, drawn }
    }
}

/// The step, from 1, of a completions file; `None` for other names.
pub(crate) fn step_of_completions(name: &str) -> Option<u64> {
    name.strip_prefix("completions_")?.strip_suffix(".parquet")?.parse().ok()
}

impl Sink for Parquet {
    fn event(&mut self, _: &Event) -> Result<()> {
        Ok(())
    }

    fn completions(&mut self, step: u64, rollouts: &[Rollout]) -> Result<()> {
        let rows: Vec<(&Rollout, &Completion)> = rollouts
            .iter()
            .flat_map(|rollout| rollout.completions.iter().map(move |c| (rollout, c)))
            .collect();
        let finish = |finish| if finish == FinishReason::Stop { "stop" } else { "length" };
        let values = [
            Column::Integers(vec![step as i64; rows.len()]),
            Column::Strings(rows.iter().map(|(r, _)| r.id.clone()).collect()),
            Column::Strings(rows.iter().map(|(r, _)| r.question.clone()).collect()),
            Column::IdLists(rows.iter().map(|(r, _)| r.prompt.ids().to_vec()).collect()),
            Column::Strings(rows.iter().map(|(_, c)| c.text.clone()).collect()),
            Column::IdLists(rows.iter().map(|(_, c)| c.ids.clone()).collect()),
            Column::Integers(rows.iter().map(|(_, c)| c.ids.len() as i64).collect()),
            Column::Strings(rows.iter().map(|(_, c)| finish(c.finish).to_owned()).collect()),
            Column::Strings(rows.iter().map(|(r, _)| r.solution.clone()).collect()),
            Column::OptionalFloats(rows.iter().map(|(_, c)| c.reward).collect()),
            Column::Floats(rows.iter().map(|(_, c)| c.advantage).collect()),
        ];
        let mut columns: Vec<(&str, Column)> = COLUMNS.into_iter().zip(values).collect();
        let score = |completion: &Completion, index: usize| {
            completion.scores.get(index).and_then(|score| score.clone())
        };
        let whys: Vec<String> = self.rewards.iter().map(|name| format!("{name}{WHY}")).collect();
        for (index, (name, why)) in self.rewards.iter().zip(&whys).enumerate() {
            let scores = rows.iter().map(|(_, c)| score(c, index));
            let (values, reasons) =
                scores.map(|s| s.map_or((None, None), |s| (s.value, s.reason))).unzip();
            columns.push((name, Column::OptionalFloats(values)));
            columns.push((why, Column::OptionalStrings(reasons)));
        }
        if !self.drawn.is_empty() {
            let of =
                |(rollout, _): &(&Rollout, &Completion)| self.drawn.get(rollout.index)?.clone();
            columns.push((DRAWN, Column::OptionalStrings(rows.iter().map(of).collect())));
        }
        // Not with its parents: the run's folder exists unless it was moved.
        match std::fs::create_dir(&self.folder) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(Error::io("create", &self.folder)(error));
            }
            _ => {}
        }
        let file = self.folder.join(format!("completions_{step:05}.parquet"));
        Ok(write_table_in_existing_folder(&file, columns)?)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use embodied_r_data::parquet::Table;
    use embodied_r_rewards::Score;
    use polars::prelude::{ParquetReader, SerReader as _};

    use super::*;
    use crate::data::questions::tests::with_answers;

    fn rollout() -> Rollout {
        Rollout {
            index: 3,
            id: "q3".into(),
            question: "Question: where?".into(),
            prompt: vec![7, 8].into(),
            prompt_end: String::new(),
            solution: "B".into(),
            completions: vec![Completion {
                ids: vec![4, 5, 0],
                logps: vec![-0.5, -0.25, -1.0],
                text: "so B".into(),
                finish: FinishReason::Stop,
                scores: vec![Some(Score::zero("no answer tag")), None],
                reward: Some(0.25),
                advantage: -1.5,
            }],
        }
    }

    #[test]
    fn a_question_that_points_has_what_its_drawing_needs() {
        let mut questions = with_answers(&["A", "[1, 2]"]);
        assert_eq!(drawn(&questions), []);
        let columns =
            json!({"answer_type": "point", "coordinates": "pixels", "width": 64, "height": 48});
        questions[1].question.extra = columns.as_object().unwrap().clone();
        questions[1].images = vec!["a.png".to_owned()];
        let found = drawn(&questions);
        assert_eq!(found[0], None);
        let mut expected = columns.clone();
        expected["images"] = json!(["a.png"]);
        let text = found[1].as_deref().unwrap();
        assert_eq!(serde_json::from_str::<serde_json::Value>(text).unwrap(), expected);
        let dir = tempfile::tempdir().unwrap();
        let rollout = Rollout { index: 1, ..rollout() };
        Parquet::new(dir.path(), Vec::new(), found.clone()).completions(1, &[rollout]).unwrap();
        let table = Table::read(&dir.path().join("completions/completions_00001.parquet")).unwrap();
        assert_eq!(table.optional_strings(DRAWN).unwrap(), found[1..]);
    }

    #[test]
    fn a_row_holds_ids_text_raw_scores_and_advantage() {
        let dir = tempfile::tempdir().unwrap();
        let rewards = ["accuracy", "consistency"].map(str::to_owned).to_vec();
        Parquet::new(dir.path(), rewards, Vec::new()).completions(12, &[rollout()]).unwrap();
        let path = dir.path().join("completions/completions_00012.parquet");
        let frame = ParquetReader::new(File::open(&path).unwrap()).finish().unwrap();
        let ids = frame.column("completion_ids").unwrap().list().unwrap().get_as_series(0).unwrap();
        assert_eq!(ids.u32().unwrap().to_vec(), [4, 5, 0].map(Some));
        let table = Table::read(&path).unwrap();
        assert_eq!(table.strings("completion").unwrap(), ["so B"]);
        assert_eq!(table.floats("advantage").unwrap(), [-1.5]);
        assert_eq!(table.optional_floats("accuracy").unwrap(), [Some(0.0)]);
        assert_eq!(table.strings("accuracy_why").unwrap(), ["no answer tag"]);
        assert_eq!(table.optional_floats("consistency").unwrap(), [None]);
    }
}
