//! `embodied-r quickstart`: the pipeline end to end, by running the other commands.

mod baselines;
mod claims;
mod controls;
mod judge;
mod row;
mod steps;
mod table;
mod views;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Instant;

use embodied_r_files::write_atomic;

use self::row::{Replies, Row, SAMPLES};
use self::steps::{RunWords, Steps, words};
use self::table::Results;
use crate::args::quickstart::QuickstartArgs;
use crate::base_model::BaseModel;
use crate::exit::Status;
use crate::output::outln;

/// Settings of the cold start.
const SFT_SETTINGS: &str = include_str!("../../../../configs/quickstart-sft.toml");

/// Settings of the GRPO run.
const TRAIN_SETTINGS: &str = include_str!("../../../../configs/quickstart-train.toml");

/// Categories of both benchmarks that captions can answer in few steps.
const CATEGORIES: &str =
    "obj_appearance_order,Landmark Position,Action Generation,Progress Evaluation";

/// Questions of each category about a room.
const PER_CATEGORY: &str = "4";

/// Judge examples of the cold start, besides its worked examples.
const JUDGE_EXAMPLES: usize = 20;

/// Worked examples that the loss of the cold start is validated on.
const VALIDATION: usize = 40;

/// Maximum tokens of an answer.
const MAX_NEW_TOKENS: &str = "160";

/// Run the pipeline end to end on simulated rooms; `run_words` runs one of its command lines.
pub(crate) fn run(args: QuickstartArgs, run_words: RunWords) -> anyhow::Result<Status> {
    let began = Instant::now();
    let run = Quickstart { steps: Steps::new(&args, run_words)?, args: &args };
    match args.vision {
        true => run.make_views()?,
        false => run.make_questions()?,
    }
    run.make_base()?;
    run.cold_start()?;
    run.train("train", &run.split("train"))?;
    let mut rows = match args.vision {
        true => run.vision_rows()?,
        false => run.main_rows()?,
    };
    if args.full {
        rows.extend(run.baseline_rows()?);
    }
    judge::measure(&run.steps, "sft/final", &run.test())?;
    run.report(&rows)?;
    let blind_guess = controls::blind_guess(&run.test())?;
    let claims = match args.vision {
        true => claims::vision_claims(&rows, blind_guess),
        false => claims::claims(&rows, blind_guess),
    };
    let claims = claims::listed(&claims);
    run.steps.say(&format!("\n{}\n{claims}", table::markdown(&rows)))?;
    let seconds = began.elapsed().as_secs_f64();
    let results = serde_json::to_string_pretty(&Results { seed: args.seed, seconds, rows })?;
    write_atomic(&run.path("results.json"), format!("{results}\n").as_bytes())?;
    run.steps.say(&format!(
        "finished in {seconds:.0} s; all outputs are in {}",
        args.output.display()
    ))?;
    if args.json {
        outln!("{results}")?;
    }
    Ok(Status::Done)
}

struct Quickstart<'a> {
    steps: Steps,
    args: &'a QuickstartArgs,
}

impl Quickstart<'_> {
    fn path(&self, name: &str) -> PathBuf {
        self.steps.path(name)
    }

    fn seed(&self) -> OsString {
        self.args.seed.to_string().into()
    }

    /// The questions of a split.
    fn split(&self, split: &str) -> PathBuf {
        self.path(self.data()).join(format!("{split}_data.json"))
    }

    /// The folder of the questions.
    fn data(&self) -> &'static str {
        if self.args.vision { views::FOLDER } else { "perceived" }
    }

    /// The questions about rooms never seen.
    fn test(&self) -> PathBuf {
        self.split("test")
    }

    /// The conversations of a split. Those with images are beside the questions, as paths of images are relative to them.
    fn conversations(&self, file: &str) -> PathBuf {
        match self.args.vision {
            true => self.path(views::FOLDER).join(file),
            false => self.path(file),
        }
    }

    /// Supervised examples of the cold start.
    fn supervised(&self) -> usize {
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

    /// Writes the small base model, in place of a published one.
    fn make_base(&self) -> anyhow::Result<()> {
        let base = self.path("base");
        let bundled = if self.args.vision { BaseModel::Vision } else { BaseModel::Text };
        if self.args.from_scratch {
            let mut pretrain = words(["sim", "pretrain", "--output"]);
            if !self.args.vision {
                pretrain.push(base.into());
                return self.steps.run(pretrain);
            }
            let text = self.path("text-base");
            pretrain.push(text.clone().into());
            self.steps.run(pretrain)?;
            let names = [("--from", text.into()), ("--output", base.into())];
            return self.steps.command(&["sim", "pretrain", "--vision"], names);
        }
        bundled.unpack(&base)?;
        self.steps.say(&format!("\nwrote the built-in base model to {}", base.display()))
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
        write_atomic(&self.path("sft.toml"), SFT_SETTINGS.as_bytes())?;
        self.sft("sft", "base", "conversations.jsonl", &self.args.sft_set)
    }

    /// SFT of `model` on the conversations in `data`.
    fn sft(&self, name: &str, model: &str, data: &str, sets: &[String]) -> anyhow::Result<()> {
        let mut sft = words(["sft", "--resume", "auto", "--config"]);
        sft.extend([self.path("sft.toml").into(), "--model".into(), self.path(model).into()]);
        sft.extend(["--data".into(), self.conversations(data).into()]);
        let validation = self.conversations("conversations-val.jsonl");
        sft.extend(["--eval-data".into(), validation.into()]);
        sft.extend(["--output".into(), self.path(name).into()]);
        self.steps.run_training(sft, sets)
    }

    /// GRPO from the cold start in three stages, on questions with nothing but answers.
    fn train(&self, name: &str, data: &Path) -> anyhow::Result<()> {
        let config = self.path("train.toml");
        write_atomic(&config, TRAIN_SETTINGS.as_bytes())?;
        let mut train = words(["train", "--resume", "auto", "--config"]);
        train.extend([config.into(), "--model".into(), self.path("sft/final").into()]);
        train.extend(["--data".into(), data.into()]);
        train.extend(["--eval-data".into(), self.split("val").into()]);
        train.extend(["--output".into(), self.path(name).into()]);
        self.steps.run_training(train, &self.args.set)
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

    /// Greedy replies of `model` to `questions`.
    fn answer(&self, model: &str, questions: &Path, answers: &Path) -> anyhow::Result<()> {
        let mut infer = words(["infer", "--max-new-tokens", MAX_NEW_TOKENS, "--model"]);
        infer.extend([self.path(model).into(), "--data".into(), questions.into()]);
        infer.extend(["--output".into(), answers.into()]);
        infer.extend(self.args.vision.then(|| "--direct".into()));
        self.steps.run_model(infer)
    }

    /// `samples` replies of `model` to each of `questions` at temperature 1.
    fn sample(
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
        self.steps.run_model(eval)
    }

    /// Evaluates `model`.
    fn row(
        &self,
        name: &'static str,
        model: &str,
        questions: &Path,
        supervised: usize,
    ) -> anyhow::Result<Row> {
        let file = name.replace(' ', "-");
        let greedy = self.path(&format!("answers/{file}.json"));
        self.answer(model, questions, &greedy)?;
        let mut eval = words(["eval", "--predictions"]);
        eval.extend([greedy.clone().into(), "--name".into(), name.into()]);
        eval.extend(["--output".into(), self.path(&format!("eval/{file}")).into()]);
        self.steps.run(eval)?;
        let samples = self.path(&format!("samples/{file}"));
        self.sample(model, questions, SAMPLES, &samples)?;
        let replies = Replies {
            greedy: &greedy,
            sampled: &samples.join("samples.jsonl"),
            model: &self.path(model),
        };
        Row::read(name, supervised, &replies)
    }

    /// Writes the HTML report and its curves as a figure.
    fn report(&self, rows: &[Row]) -> anyhow::Result<()> {
        let mut report = words(["report", "--title", "Quickstart", "--run"]);
        report.extend([self.path("train").into(), "--svg".into(), self.path("curves.svg").into()]);
        report.push("--eval".into());
        for row in rows {
            let file = row.name.replace(' ', "-");
            let mut labeled = OsString::from(format!("{}=", row.name));
            labeled.push(self.path(&format!("eval/{file}/embodied-r.json")));
            report.push(labeled);
        }
        self.steps.run(report)
    }
}
