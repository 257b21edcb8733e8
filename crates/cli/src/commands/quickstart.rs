//! `embodied-r quickstart`: the pipeline end to end, by running the other commands.

mod base;
mod controls;
mod table;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;
use embodied_r_data::write::write_atomic;

use super::run_words;
use crate::args::device::DeviceName;
use crate::args::model::PrecisionName;
use crate::args::quickstart::QuickstartArgs;
use crate::device;
use crate::exit::{self, Status};
use crate::interrupt::on_interrupt;
use crate::output::outln;
use crate::ranks::check_launchable;

/// Settings of the cold start.
const SFT_SETTINGS: &str = include_str!("../../../../configs/quickstart-sft.toml");

/// Settings of the GRPO run.
const TRAIN_SETTINGS: &str = include_str!("../../../../configs/quickstart-train.toml");

/// Categories of both benchmarks that captions can answer and a small model can learn.
const CATEGORIES: &str = "obj_appearance_order,Landmark Position,Action Generation,\
                          Progress Evaluation,Counterfactual";

/// Questions of each category about a room.
const PER_CATEGORY: &str = "3";

/// Questions with reasoning that the cold start learns from.
const CONVERSATIONS: &str = "300";

/// Share of them that answer without reasoning: reinforcement learns when reasoning pays off.
const AT_ONCE: &str = "0.6";

/// Judge examples that the cold start learns from.
const JUDGE_EXAMPLES: &str = "200";

/// Questions with reasoning that the cold start is validated on.
const VALIDATION: &str = "60";

/// Maximum tokens of an answer.
const MAX_NEW_TOKENS: &str = "200";

/// Run the pipeline end to end on simulated rooms.
pub(crate) fn run(args: QuickstartArgs) -> anyhow::Result<Status> {
    let began = std::time::Instant::now();
    let run = Quickstart::new(&args)?;
    run.make_questions(args.rooms)?;
    run.make_base(args.from_scratch)?;
    run.cold_start(&args.sft_set)?;
    run.train(&args)?;
    let tests = run.tests()?;
    run.report(&tests)?;
    outln!("\n{}", table::markdown(&tests))?;
    outln!(
        "finished in {1:.0} s; all outputs are in {0}",
        args.output.display(),
        began.elapsed().as_secs_f64()
    )?;
    Ok(Status::Done)
}

struct Quickstart {
    out: PathBuf,
    seed: u64,
    precision: PrecisionName,
    device: DeviceName,
    /// `--ranks` or `--gpus` of the training commands, if there are several ranks.
    rank_args: Option<[String; 2]>,
}

/// Arguments of a command line.
fn words<const N: usize>(list: [&str; N]) -> Vec<OsString> {
    list.into_iter().map(OsString::from).collect()
}

impl Quickstart {
    fn new(args: &QuickstartArgs) -> anyhow::Result<Self> {
        check_launchable(args.ranks, args.gpus)?;
        device::open(args.device)?;
        std::fs::create_dir_all(&args.output)
            .with_context(|| format!("cannot create `{}`", args.output.display()))?;
        let ranks = args.ranks.filter(|ranks| *ranks > 1).map(|ranks| ("--ranks", ranks));
        let rank_args = ranks.or(args.gpus.map(|gpus| ("--gpus", gpus)));
        Ok(Self {
            out: args.output.clone(),
            seed: args.seed,
            precision: args.precision,
            device: args.device.or_gpus(args.gpus),
            rank_args: rank_args.map(|(flag, count)| [flag.to_owned(), count.to_string()]),
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.out.join(name)
    }

    /// Prints a command line and runs it.
    fn step(&self, words: Vec<OsString>) -> anyhow::Result<()> {
        self.show(&words)?;
        let name = words[0].clone();
        self.end_of(&name, run_words(words)?)
    }

    /// As [`Self::step`], on all ranks.
    fn step_by_ranks(&self, mut words: Vec<OsString>) -> anyhow::Result<()> {
        words.extend(["--device".into(), self.device.name().into()]);
        let Some(rank_args) = &self.rank_args else { return self.step(words) };
        words.extend(rank_args.iter().map(OsString::from));
        self.show(&words)?;
        // Ranks are launched with their parent's command line, so this step needs a process of its own. Ctrl-C reaches
        // it too and stops it gracefully.
        let program = std::env::current_exe().context("cannot locate this program's executable")?;
        on_interrupt("waiting for the ranks")?;
        let status = Command::new(program).args(&words).status();
        let status = status.with_context(|| format!("cannot run `{}`", words[0].display()))?;
        let status = if status.success() { Status::Done } else { Status::Partial };
        self.end_of(&words[0], status)
    }

    fn end_of(&self, name: &OsString, status: Status) -> anyhow::Result<()> {
        if status == Status::Done {
            return Ok(());
        }
        let message = format!("`{}` did not finish", name.display());
        Err(exit::hint(message, "run the same `quickstart` command again to resume"))
    }

    fn show(&self, words: &[OsString]) -> anyhow::Result<()> {
        let shown: Vec<String> = words
            .iter()
            .map(|word| match word.to_string_lossy() {
                word if word.contains([' ', '"']) => format!("'{word}'"),
                word => word.into_owned(),
            })
            .collect();
        Ok(outln!("\n$ embodied-r {}", shown.join(" "))?)
    }

    /// Runs a command with `--flag VALUE` pairs.
    fn command<const N: usize>(
        &self,
        name: &[&str],
        flags: [(&str, OsString); N],
    ) -> anyhow::Result<()> {
        let mut words: Vec<OsString> = name.iter().map(OsString::from).collect();
        for (flag, value) in flags {
            words.extend([flag.into(), value]);
        }
        self.step(words)
    }

    fn seed(&self) -> OsString {
        self.seed.to_string().into()
    }

    /// Simulates rooms, splits their questions by room, and captions the videos.
    fn make_questions(&self, rooms: u64) -> anyhow::Result<()> {
        self.command(
            &["sim", "rooms"],
            [
                ("--output", self.path("rooms").into()),
                ("--rooms", rooms.to_string().into()),
                ("--seed", self.seed()),
                ("--per-category", PER_CATEGORY.into()),
                ("--categories", CATEGORIES.into()),
            ],
        )?;
        let dataset = self.path("dataset");
        self.command(
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
        self.step(perceive)
    }

    /// Writes the small base model, in place of a published one.
    fn make_base(&self, from_scratch: bool) -> anyhow::Result<()> {
        let base = self.path("base");
        if !from_scratch {
            return base::unpack(&base);
        }
        self.command(&["sim", "pretrain"], [("--output", base.into())])
    }

    /// Supervised fine-tuning on the output format and the judge's task.
    fn cold_start(&self, sets: &[String]) -> anyhow::Result<()> {
        for (split, questions, judged, file) in [
            ("train", CONVERSATIONS, JUDGE_EXAMPLES, "conversations.jsonl"),
            ("val", VALIDATION, "0", "conversations-val.jsonl"),
        ] {
            self.command(
                &["sim", "conversations"],
                [
                    ("--data", self.path(&format!("perceived/{split}_data.json")).into()),
                    ("--questions", questions.into()),
                    ("--at-once", AT_ONCE.into()),
                    ("--judge-examples", judged.into()),
                    ("--seed", self.seed()),
                    ("--output", self.path(file).into()),
                ],
            )?;
        }
        let config = self.path("sft.toml");
        write_atomic(&config, SFT_SETTINGS.as_bytes())?;
        let mut sft = words(["sft", "--resume", "auto", "--config"]);
        sft.extend([config.into(), "--model".into(), self.path("base").into()]);
        sft.extend(["--data".into(), self.path("conversations.jsonl").into()]);
        sft.extend(["--eval-data".into(), self.path("conversations-val.jsonl").into()]);
        sft.extend(["--output".into(), self.path("sft").into()]);
        self.step_by_ranks(self.with_settings(sft, sets))
    }

    /// A training command with the seed, the precision and the user's settings.
    fn with_settings(&self, mut words: Vec<OsString>, sets: &[String]) -> Vec<OsString> {
        words.extend(["--set".into(), format!("seed={}", self.seed).into()]);
        words.extend(["--set".into(), format!("precision={}", self.precision.name()).into()]);
        for set in sets {
            words.extend(["--set".into(), set.into()]);
        }
        words
    }

    /// GRPO in three stages.
    fn train(&self, args: &QuickstartArgs) -> anyhow::Result<()> {
        let mut data = self.path("perceived/train_data.json");
        if args.random_rewards {
            let truth = data;
            data = self.path("perceived/train_random.json");
            controls::with_random_answers(&truth, &data, self.seed)?;
        }
        let config = self.path("train.toml");
        write_atomic(&config, TRAIN_SETTINGS.as_bytes())?;
        let mut train = words(["train", "--resume", "auto", "--config"]);
        train.extend([config.into(), "--model".into(), self.path("sft/final").into()]);
        train.extend(["--data".into(), data.into()]);
        train.extend(["--output".into(), self.path("train").into()]);
        self.step_by_ranks(self.with_settings(train, &args.set))
    }

    /// Writes the HTML report.
    fn report(&self, tests: &[table::Test]) -> anyhow::Result<()> {
        let mut report = words(["report", "--title", "Quickstart", "--run"]);
        report.extend([self.path("train").into(), "--eval".into()]);
        for test in tests {
            let scores = self.path(&format!("eval/{}/embodied-r.json", test.file()));
            let mut labeled = OsString::from(format!("{}=", test.name()));
            labeled.push(scores);
            report.push(labeled);
        }
        self.step(report)
    }

    /// Evaluates on held-out rooms: before training, after, and with shuffled captions.
    fn tests(&self) -> anyhow::Result<Vec<table::Test>> {
        let test = self.path("perceived/test_data.json");
        let shuffled = self.path("perceived/test_shuffled.json");
        controls::with_other_captions(&test, &shuffled, self.seed)?;
        [
            ("cold start", "start", "sft/final", &test),
            ("trained", "trained", "train/final", &test),
            ("trained, captions shuffled", "shuffled", "train/final", &shuffled),
        ]
        .into_iter()
        .map(|(name, file, model, questions)| {
            let answers = self.path(&format!("answers/{file}.json"));
            self.command(
                &["infer"],
                [
                    ("--model", self.path(model).into()),
                    ("--data", questions.into()),
                    ("--output", answers.clone().into()),
                    ("--max-new-tokens", MAX_NEW_TOKENS.into()),
                    ("--precision", self.precision.name().into()),
                    ("--device", self.device.name().into()),
                ],
            )?;
            self.command(
                &["eval", "--json"],
                [
                    ("--predictions", answers.clone().into()),
                    ("--name", name.into()),
                    ("--output", self.path(&format!("eval/{file}")).into()),
                ],
            )?;
            table::Test::read(name, file, &answers)
        })
        .collect()
    }
}
