//! `embodied-r quickstart`: the other commands, one after the other.

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
use crate::ranks::refuse_impossible;

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

/// Share of them that give their answer at once: which reasoning pays is left to reinforcement.
const AT_ONCE: &str = "0.6";

/// Examples of the judge's task that it learns from.
const JUDGE_EXAMPLES: &str = "200";

/// Questions with reasoning that the cold start is validated on.
const VALIDATION: &str = "60";

/// Most tokens of an answer.
const MAX_NEW_TOKENS: &str = "200";

/// Run the whole way on built-in rooms.
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
        "all of it is in {}, made in {:.0} s",
        args.out.display(),
        began.elapsed().as_secs_f64()
    )?;
    Ok(Status::Done)
}

struct Quickstart {
    out: PathBuf,
    seed: u64,
    precision: PrecisionName,
    /// What it computes on.
    device: DeviceName,
    /// `--ranks` or `--gpus` of the processes that train together, if there are several.
    together: Option<[String; 2]>,
}

/// A list of words of a command line.
fn words<const N: usize>(list: [&str; N]) -> Vec<OsString> {
    list.into_iter().map(OsString::from).collect()
}

impl Quickstart {
    fn new(args: &QuickstartArgs) -> anyhow::Result<Self> {
        refuse_impossible(args.ranks, args.gpus)?;
        device::open(args.device)?;
        std::fs::create_dir_all(&args.out)
            .with_context(|| format!("cannot create `{}`", args.out.display()))?;
        let ranks = args.ranks.filter(|ranks| *ranks > 1).map(|ranks| ("--ranks", ranks));
        let together = ranks.or(args.gpus.map(|gpus| ("--gpus", gpus)));
        Ok(Self {
            out: args.out.clone(),
            seed: args.seed,
            precision: args.precision,
            device: args.device.or_gpus(args.gpus),
            together: together.map(|(flag, count)| [flag.to_owned(), count.to_string()]),
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.out.join(name)
    }

    /// Shows a command line and runs it.
    fn step(&self, words: Vec<OsString>) -> anyhow::Result<()> {
        self.show(&words)?;
        let name = words[0].clone();
        self.end_of(&name, run_words(words)?)
    }

    /// As [`Self::step`], by all ranks.
    fn step_by_ranks(&self, mut words: Vec<OsString>) -> anyhow::Result<()> {
        words.extend(["--device".into(), self.device.name().into()]);
        let Some(together) = &self.together else { return self.step(words) };
        words.extend(together.iter().map(OsString::from));
        self.show(&words)?;
        // Ranks are started by running the command line of their process again, so this one has a process of its own.
        // Ctrl-C reaches it too, and it ends in good order.
        let program = std::env::current_exe().context("cannot tell this program's own place")?;
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
        let told = format!("`{}` did not do all of its work", name.display());
        Err(exit::hint(told, "the same `quickstart` command goes on where it stopped"))
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

    /// Runs a command with `--flag VALUE` pairs behind its words.
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

    /// Rooms, questions split by room, and the videos told in words.
    fn make_questions(&self, rooms: u64) -> anyhow::Result<()> {
        self.command(
            &["sim", "rooms"],
            [
                ("--out", self.path("rooms").into()),
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
                ("--input", self.path("rooms").into()),
                ("--output", dataset.clone().into()),
                ("--seed", self.seed()),
            ],
        )?;
        let mut perceive = words(["perceive", "--backend", "scene", "--scenes"]);
        perceive.extend([self.path("rooms/scenes").into(), "--data-paths".into()]);
        for split in ["train", "val", "test"] {
            perceive.push(dataset.join(format!("complete/{split}_data.json")).into());
        }
        perceive.extend(["--save-path".into(), self.path("perceived").into()]);
        self.step(perceive)
    }

    /// The small model that stands where a pretrained one stands.
    fn make_base(&self, from_scratch: bool) -> anyhow::Result<()> {
        let base = self.path("base");
        if !from_scratch {
            return base::unpack(&base);
        }
        self.command(&["sim", "pretrain"], [("--out", base.into())])
    }

    /// Supervised fine-tuning on the format of reasoning and on the judge's task.
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
                    ("--out", self.path(file).into()),
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

    /// GRPO in the three stages.
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

    /// One page of curves, scores and completions.
    fn report(&self, tests: &[table::Test]) -> anyhow::Result<()> {
        let mut report = words(["report", "--title", "Quickstart", "--run"]);
        report.extend([self.path("train").into(), "--eval".into()]);
        for test in tests {
            let scores = self.path(&format!("eval/{}/embodied-r.json", test.file()));
            let mut labelled = OsString::from(format!("{}=", test.name()));
            labelled.push(scores);
            report.push(labelled);
        }
        self.step(report)
    }

    /// The rooms never seen, before and after, and with the captions of other questions.
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
                    ("--input", questions.into()),
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
                    ("--save-path", self.path(&format!("eval/{file}")).into()),
                ],
            )?;
            table::Test::read(name, file, &answers)
        })
        .collect()
    }
}
