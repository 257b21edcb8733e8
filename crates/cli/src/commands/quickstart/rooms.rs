//! The quickstart in simulated rooms, from captions or from frames.

use std::path::{Path, PathBuf};

use super::row::{Replies, Row, SAMPLES};
use super::steps::words;
use super::world::World;
use super::{MAX_NEW_TOKENS, Outcome, Quickstart, claims, controls, file_name, judge, table};

/// Categories of both benchmarks that captions can answer in few steps.
const CATEGORIES: &str =
    "obj_appearance_order,Landmark Position,Action Generation,Progress Evaluation";

/// Questions of each category about a room.
const PER_CATEGORY: &str = "4";

/// Judge examples of the cold start, besides its worked examples.
const JUDGE_EXAMPLES: usize = 20;

/// Worked examples that the loss of the cold start is validated on.
const VALIDATION: usize = 40;

impl Quickstart<'_> {
    /// Data, base, cold start, GRPO, and the rows of all models.
    pub(super) fn rooms(&self) -> anyhow::Result<Outcome> {
        match self.world {
            World::Frames => self.make_views()?,
            _ => self.make_questions()?,
        }
        self.make_base()?;
        self.cold_start()?;
        self.train("train", &self.split("train"), &self.split("val"))?;
        let mut rows = match self.world {
            World::Frames => self.vision_rows()?,
            _ => self.main_rows()?,
        };
        if self.args.full {
            rows.extend(self.baseline_rows()?);
        }
        judge::measure(&self.steps, "sft/final", &self.test())?;
        self.report("Quickstart", rows.iter().map(|row| row.name))?;
        let blind_guess = controls::blind_guess(&self.test())?;
        let claims = match self.world {
            World::Frames => claims::vision_claims(&rows, blind_guess),
            _ => claims::claims(&rows, blind_guess),
        };
        let cells = rows.iter().map(Row::cells);
        let table = table::markdown(&Row::HEADS, 1, cells);
        Outcome::new(&rows, table, claims)
    }

    /// The questions about rooms never seen.
    pub(super) fn test(&self) -> PathBuf {
        self.split("test")
    }

    /// Supervised examples of the cold start.
    pub(super) fn supervised(&self) -> usize {
        self.args.examples + JUDGE_EXAMPLES
    }

    /// Simulates rooms, splits their questions by room, and captions the videos.
    fn make_questions(&self) -> anyhow::Result<()> {
        self.steps.command(
            &["sim", "rooms"],
            [
                ("--output", self.path("rooms").into()),
                ("--rooms", self.args.rooms.to_string().into()),
                ("--seed", self.seed()),
                ("--per-category", PER_CATEGORY.into()),
                ("--categories", CATEGORIES.into()),
            ],
        )?;
        let dataset = self.path("dataset");
        self.steps.command(
            &["preprocess"],
            [
                ("--data", self.path("rooms").into()),
                ("--output", dataset.clone().into()),
                ("--seed", self.seed()),
            ],
        )?;
        let mut perceive = words(["perceive", "--backend", "scene", "--scenes"]);
        perceive.extend([self.path("rooms/scenes").into(), "--data".into()]);
        for split in ["train", "val", "test"] {
            perceive.push(dataset.join(format!("complete/{split}_data.json")).into());
        }
        perceive.extend(["--output".into(), self.path("perceived").into()]);
        self.steps.run(perceive)
    }

    /// Supervised fine-tuning on a few worked examples, and on the judge's task.
    fn cold_start(&self) -> anyhow::Result<()> {
        for (split, questions, judged, file) in [
            ("train", self.args.examples, JUDGE_EXAMPLES, "conversations.jsonl"),
            ("val", VALIDATION, 0, "conversations-val.jsonl"),
        ] {
            self.steps.command(
                &["sim", "conversations"],
                [
                    ("--data", self.split(split).into()),
                    ("--questions", questions.to_string().into()),
                    ("--judge-examples", judged.to_string().into()),
                    ("--seed", self.seed()),
                    ("--output", self.conversations(file).into()),
                ],
            )?;
        }
        self.sft_on_worked_examples()
    }

    /// The rows of every run: before training, after, and with the captions of other rooms.
    fn main_rows(&self) -> anyhow::Result<Vec<Row>> {
        let (test, shuffled) = (self.test(), self.path("perceived/test_shuffled.json"));
        controls::with_other_captions(&test, &shuffled, self.args.seed)?;
        let supervised = self.supervised();
        Ok(vec![
            self.row("cold start", "sft/final", &test, supervised)?,
            self.row("trained", "train/final", &test, supervised)?,
            self.row("captions shuffled", "train/final", &shuffled, supervised)?,
        ])
    }

    /// `samples` replies of `model` to each of `questions` at temperature 1.
    pub(super) fn sample(
        &self,
        model: &str,
        questions: &Path,
        samples: usize,
        output: &Path,
    ) -> anyhow::Result<()> {
        let mut eval = words(["eval", "--pass-at", "1", "--temperature", "1", "--num-samples"]);
        eval.extend([samples.to_string().into(), "--max-new-tokens".into(), MAX_NEW_TOKENS.into()]);
        eval.extend(["--seed".into(), self.seed(), "--model".into(), self.path(model).into()]);
        eval.extend(["--data".into(), questions.into(), "--output".into(), output.into()]);
        eval.extend(self.args.vision.then(|| "--direct".into()));
        let (option, prompt) = self.world.system_prompt();
        eval.extend([option.into(), prompt.into()]);
        self.steps.run_model(eval)
    }

    /// Evaluates `model`.
    pub(super) fn row(
        &self,
        name: &'static str,
        model: &str,
        questions: &Path,
        supervised: usize,
    ) -> anyhow::Result<Row> {
        let greedy = self.greedy(name, model, questions)?;
        let samples = self.path(&format!("samples/{}", file_name(name)));
        self.sample(model, questions, SAMPLES, &samples)?;
        let replies = Replies {
            greedy: &greedy,
            sampled: &samples.join("samples.jsonl"),
            model: &self.path(model),
        };
        Row::read(name, supervised, &replies)
    }
}
