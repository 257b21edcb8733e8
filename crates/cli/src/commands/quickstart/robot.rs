//! The quickstart on a simulated robot arm: `--robot`.

mod baselines;
mod claims;
mod row;
mod selection;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use embodied_r_sim::arm::{EPSILON_M, Split, Task};

use self::row::KindRow;
use self::selection::{PerKind, select};
use super::baselines::SFT;
use super::steps::words;
use super::{MAX_NEW_TOKENS, Outcome, Quickstart, controls, table};

/// Width and height of the images.
const IMAGE_SIZE: &str = "112x112";

/// Shares of the episodes for training, validation and testing.
const SPLIT: &str = "50,15,35";

/// Decimals of coordinates.
const DECIMALS: &str = "2";

/// Worked examples that the loss of the cold start is validated on.
const VALIDATION_EXAMPLES: usize = 40;

/// Most questions of each kind for validation.
const VALIDATION_PER_KIND: usize = 120;

/// Most questions of each kind for testing.
const TEST_PER_KIND: usize = 340;

/// The names of the rows.
const COLD_START: &str = "cold start";
const TRAINED: &str = "trained";
const GREY: &str = "grey images";
const COLD_START_HELD_OUT: &str = "cold start, held-out tasks";
const TRAINED_HELD_OUT: &str = "trained, held-out tasks";

impl Quickstart<'_> {
    /// Demonstrations, questions, base, cold start, GRPO, evaluation and bench.
    pub(super) fn robot(&self) -> anyhow::Result<Outcome> {
        self.make_demonstrations()?;
        self.make_robot_questions()?;
        self.make_base()?;
        self.robot_cold_start()?;
        self.train("train", &self.split("train"), &self.split("val"))?;
        let best = self.best_checkpoint("train", "sft/final")?;
        let mut rows = self.robot_rows(&best)?;
        if self.args.full {
            rows.extend(self.robot_baseline_rows()?);
        }
        self.bench(&best)?;
        self.report("Quickstart of the robot arm", row::names(&rows))?;
        let blind_guess = controls::blind_guess(&self.split("test"))?;
        let claims = claims::claims(&rows, blind_guess);
        let table = table::markdown(&KindRow::HEADS, 2, rows.iter().map(KindRow::cells));
        Outcome::new(&rows, table, claims)
    }

    fn demos(&self) -> PathBuf {
        self.path("demos")
    }

    /// Simulates demonstrations of all tasks.
    fn make_demonstrations(&self) -> anyhow::Result<()> {
        let tasks = Task::ALL.map(Task::name).join(",");
        self.steps.command(
            &["sim", "arm"],
            [
                ("--output", self.demos().into()),
                ("--tasks", tasks.into()),
                ("--episodes", self.args.episodes.to_string().into()),
                ("--seed", self.seed()),
                ("--image-size", IMAGE_SIZE.into()),
            ],
        )
    }

    /// Makes questions from the demonstrations, and selects as many of each kind.
    fn make_robot_questions(&self) -> anyhow::Result<()> {
        let folder = self.path(self.world.folder());
        // `robot questions` writes no part of the directory before all of it.
        match folder.is_dir() {
            true => {
                self.steps.say(&format!("\n`{}` has the questions already", folder.display()))?
            }
            false => self.steps.run(self.questions_command(folder.into()))?,
        }
        for (split, per_kind) in [
            ("train", PerKind::Balanced(usize::MAX)),
            ("val", PerKind::Balanced(VALIDATION_PER_KIND)),
            ("test", PerKind::AtMost(TEST_PER_KIND)),
            ("held_out", PerKind::AtMost(TEST_PER_KIND)),
        ] {
            let from = self.in_data(&format!("{split}.json"));
            let counts = select(&from, &self.split(split), per_kind, self.args.seed)?;
            self.steps.say(&format!("{split}: {counts}"))?;
        }
        Ok(())
    }

    fn questions_command(&self, output: OsString) -> Vec<OsString> {
        let mut questions = words(["robot", "questions", "--prompt", "compact", "--decimals"]);
        questions.extend([DECIMALS.into(), "--split".into(), SPLIT.into()]);
        questions.extend(["--movement-epsilon".into(), EPSILON_M.to_string().into()]);
        questions.extend(["--seed".into(), self.seed(), "--demos".into(), self.demos().into()]);
        questions.extend(["--output".into(), output, "--held-out-tasks".into()]);
        let held_out = Task::ALL.into_iter().filter(|task| task.split() == Split::HeldOut);
        questions.extend(held_out.map(|task| OsString::from(task.instruction())));
        questions
    }

    /// Supervised fine-tuning on a few worked examples.
    fn robot_cold_start(&self) -> anyhow::Result<()> {
        for (split, questions, file) in [
            ("train", self.args.examples, "conversations.jsonl"),
            ("val", VALIDATION_EXAMPLES, "conversations-val.jsonl"),
        ] {
            let (option, system_prompt) = self.world.system_prompt();
            self.steps.command(
                &["sim", "conversations"],
                [
                    ("--demos", self.demos().into()),
                    ("--data", self.in_data(&format!("{split}.json")).into()),
                    ("--questions", questions.to_string().into()),
                    ("--judge-examples", "0".into()),
                    (option, system_prompt.into()),
                    ("--seed", self.seed()),
                    ("--output", self.conversations(file).into()),
                ],
            )?;
        }
        self.sft_on_worked_examples()
    }

    /// The rows of the cold start, of `best`, and of the best SFT on the same worked examples, on held-out episodes; of
    /// `best` without images; and on held-out tasks.
    fn robot_rows(&self, best: &str) -> anyhow::Result<Vec<KindRow>> {
        let (test, held_out) = (self.split("test"), self.split("held_out"));
        let (grey, sft) = (self.grey("test")?, self.sft_of_any_length()?);
        let mut rows = Vec::new();
        for (name, model, questions) in [
            (COLD_START, "sft/final", &test),
            (TRAINED, best, &test),
            (SFT, &sft, &test),
            (GREY, best, &grey),
            (COLD_START_HELD_OUT, "sft/final", &held_out),
            (TRAINED_HELD_OUT, best, &held_out),
        ] {
            rows.extend(self.rows_by_kind(name, model, questions)?);
        }
        Ok(rows)
    }

    /// The questions of a split, with grey images.
    fn grey(&self, split: &str) -> anyhow::Result<PathBuf> {
        let grey = self.in_data(&format!("{split}_grey.json"));
        controls::with_grey_images(&self.split(split), &grey)?;
        Ok(grey)
    }

    /// Evaluates `model`.
    fn rows_by_kind(
        &self,
        name: &'static str,
        model: &str,
        questions: &Path,
    ) -> anyhow::Result<Vec<KindRow>> {
        let greedy = self.greedy(name, model, questions)?;
        KindRow::read(name, self.args.examples, &greedy, &self.path(model))
    }

    /// Scores answers to open questions by rules.
    fn bench(&self, model: &str) -> anyhow::Result<()> {
        let mut bench = words(["robot", "bench", "--judge", "exact", "--max-new-tokens"]);
        bench.extend([MAX_NEW_TOKENS.into(), "--model".into(), self.path(model).into()]);
        bench.extend(["--data".into(), self.demos().join("bench.json").into()]);
        bench.extend(["--output".into(), self.path("bench").into()]);
        self.steps.run_model(bench)
    }
}

#[cfg(test)]
mod tests {
    use embodied_r_policy::tokenizer::Tokenizer;
    use embodied_r_robot::{Kind, PromptStyle, Prompts, Robot};

    use super::*;

    #[test]
    fn help_and_page_have_the_shares_of_the_splits() {
        let shares: Vec<&str> = SPLIT.split(',').collect();
        let [train, val, test] = shares[..] else { panic!("{SPLIT}") };
        for (text, of) in [
            (include_str!("../../../../../docs/robot-r1.md"), "the episodes"),
            (include_str!("../../../../../docs/cli.md"), "them"),
        ] {
            let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            let said = format!(
                "{train} % of {of} are for training, {val} % for validation and {test} % for testing"
            );
            assert!(text.contains(&said), "{said}");
        }
    }

    #[test]
    fn prompts_have_at_most_160_tokens_of_text() {
        let base = concat!(env!("CARGO_MANIFEST_DIR"), "/base/arm");
        let tokenizer = Tokenizer::from_dir(base.as_ref()).unwrap();
        let robot = Robot::default();
        let decimals = DECIMALS.parse().unwrap();
        let prompts = Prompts { robot: &robot, style: PromptStyle::Compact, decimals };
        let state = [-0.265, -0.112, 1.154];
        for (kind, option) in [
            (Kind::Waypoint, prompts.position(state)),
            (Kind::State, prompts.position(state)),
            (Kind::Movement, "slightly backward, slightly right, down".to_owned()),
        ] {
            for task in Task::ALL {
                let options = vec![option.clone(); 4];
                let prompt = prompts.prompt(kind, task.instruction(), state, &options);
                let text = prompt.trim_start_matches("<image>");
                let tokens = tokenizer.encode(text).unwrap().len();
                assert!(tokens <= 160, "{tokens} tokens in\n{text}");
            }
        }
    }
}
