//! Completions of a run, from `completions/*.parquet`.

use std::path::{Path, PathBuf};

use embodied_r_data::parquet::Table;
use embodied_r_grpo::events::{COMPLETIONS_FOLDER, DRAWN};

use crate::drawing::Drawn;
use crate::error::Result;

/// Numeric columns that are not scores.
const NO_SCORES: [&str; 2] = ["step", "question_id"];
/// Suffix of the column with a reward's reasons.
const WHY: &str = "_why";

/// One completion with its scores.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sample {
    /// The step of training that sampled it.
    pub step: u64,
    /// The question.
    pub question_id: String,
    /// The prompt, with the captions.
    pub prompt: String,
    /// The text of the completion.
    pub completion: String,
    /// The correct answer.
    pub solution: String,
    /// `stop` or `length`.
    pub finish_reason: String,
    /// The non-null numeric columns, in file order.
    pub scores: Vec<(String, f64)>,
    /// Names of all rewards, in file order, including those without a score for this completion.
    pub rewards: Vec<String>,
    /// The reason for each reward below its maximum.
    pub reasons: Vec<(String, String)>,
    /// What is needed to draw the answers on the question's image, if they point.
    pub drawn: Option<Drawn>,
}

impl Sample {
    /// The value in the numeric column `name`.
    pub fn score(&self, name: &str) -> Option<f64> {
        self.scores.iter().find(|(other, _)| other == name).map(|(_, value)| *value)
    }

    /// The reason for the reward `name`.
    pub fn reason(&self, name: &str) -> Option<&str> {
        self.reasons.iter().find(|(other, _)| other == name).map(|(_, reason)| reason.as_str())
    }
}

/// The completion files of a run in step order; empty if the run logged none.
pub fn files(run: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(run.join(COMPLETIONS_FOLDER)).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "parquet"))
        .collect();
    files.sort_by_cached_key(|path| (step_of(path), path.clone()));
    files
}

/// The step of a completion file, from the last part of its name.
pub fn step_of(file: &Path) -> Option<u64> {
    let stem = file.file_stem()?.to_str()?;
    stem.rsplit('_').next()?.parse().ok()
}

/// Reads all completions of a file.
///
/// # Errors
/// The file is no parquet file, or has no texts in a column `completion`.
pub fn read(path: &Path) -> Result<Vec<Sample>> {
    let table = Table::read(path)?;
    let completions = table.optional_strings("completion")?;
    let texts = |name: &str| {
        let column = table.optional_strings(name);
        column.unwrap_or_else(|_| vec![None; table.len()])
    };
    let (prompts, solutions) = (texts("prompt"), texts("solution"));
    let (ids, endings) = (texts("question_id"), texts("finish_reason"));
    let drawn = texts(DRAWN);
    let steps = table.optional_floats("step").unwrap_or_else(|_| vec![None; table.len()]);
    let (mut scores, mut reasons) = (Vec::new(), Vec::new());
    for name in table.column_names() {
        if let Some(reward) = name.strip_suffix(WHY) {
            reasons.push((reward.to_owned(), texts(&name)));
        } else if let (false, Ok(values)) =
            (NO_SCORES.contains(&name.as_str()), table.optional_floats(&name))
        {
            let finite = values.into_iter().map(|value| value.filter(|value| value.is_finite()));
            scores.push((name, finite.collect()));
        }
    }
    let rewards: Vec<String> = reasons.iter().map(|(name, _)| name.clone()).collect();
    let text = |column: &[Option<String>], row: usize| column[row].clone().unwrap_or_default();
    let sample = |(row, completion): (usize, Option<String>)| Sample {
        step: steps[row].unwrap_or_default() as u64,
        question_id: text(&ids, row),
        prompt: text(&prompts, row),
        completion: completion.unwrap_or_default(),
        solution: text(&solutions, row),
        finish_reason: text(&endings, row),
        scores: of_row(&scores, row),
        rewards: rewards.clone(),
        reasons: of_row(&reasons, row),
        drawn: drawn[row].as_deref().and_then(Drawn::parse),
    };
    Ok(completions.into_iter().enumerate().map(sample).collect())
}

/// The non-null cells of a row.
fn of_row<T: Clone>(columns: &[(String, Vec<Option<T>>)], row: usize) -> Vec<(String, T)> {
    let cell = |(name, values): &(String, Vec<Option<T>>)| {
        values[row].clone().map(|value| (name.clone(), value))
    };
    columns.iter().filter_map(cell).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use embodied_r_data::parquet::{Column, write_table};

    #[test]
    fn completions_are_read_with_all_their_scores() {
        let run = tempfile::tempdir().unwrap();
        let text = |text: &str| Column::Strings(vec![text.to_owned()]);
        let columns = vec![
            ("step", Column::Integers(vec![3])),
            ("question_id", text("q7")),
            ("prompt", text("Video … Question: where?")),
            ("completion", text("<answer>A</answer>")),
            ("finish_reason", text("length")),
            ("solution", text("A")),
            ("accuracy", Column::Floats(vec![1.0])),
            ("accuracy_why", text("right")),
            ("consistency", Column::OptionalFloats(vec![None])),
            ("consistency_why", Column::OptionalStrings(vec![None])),
            ("advantage", Column::Floats(vec![0.5])),
        ];
        std::fs::create_dir(run.path().join("completions")).unwrap();
        let path = run.path().join("completions/completions_00003.parquet");
        write_table(&path, columns).unwrap();
        assert_eq!(files(run.path()), std::slice::from_ref(&path));
        assert_eq!(step_of(&path), Some(3));
        let samples = read(&path).unwrap();
        assert_eq!(
            samples,
            [Sample {
                step: 3,
                question_id: "q7".to_owned(),
                prompt: "Video … Question: where?".to_owned(),
                completion: "<answer>A</answer>".to_owned(),
                solution: "A".to_owned(),
                finish_reason: "length".to_owned(),
                scores: vec![("accuracy".to_owned(), 1.0), ("advantage".to_owned(), 0.5)],
                rewards: vec!["accuracy".to_owned(), "consistency".to_owned()],
                reasons: vec![("accuracy".to_owned(), "right".to_owned())],
                drawn: None,
            }]
        );
    }
}
