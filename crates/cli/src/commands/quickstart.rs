//! `embodied-r quickstart`: the pipeline end to end, by running the other commands.

mod baselines;
mod best;
mod claims;
mod controls;
mod judge;
mod robot;
mod rooms;
mod row;
mod scores;
mod steps;
mod table;
mod views;
mod world;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Instant;

use embodied_r_files::write_atomic;
use serde::Serialize;
use serde_json::Value;

use self::claims::Claim;
use self::steps::{RunWords, Steps, words};
use self::table::Results;
use self::world::World;
use crate::args::quickstart::QuickstartArgs;
use crate::exit::{self, Status};
use crate::output::outln;

/// Maximum tokens of an answer.
const MAX_NEW_TOKENS: &str = "160";

/// Run the pipeline end to end on simulated rooms or a robot arm; `run_words` runs one of its command lines.
pub(crate) fn run(args: QuickstartArgs, run_words: RunWords) -> anyhow::Result<Status> {
    if args.from_scratch {
        return Err(exit::usage_hint(
            "`--from-scratch` is in another binary, `embodied-r-pretrain`",
            "build it in a checkout with `cargo build --release -p embodied-r-pretraining`; \
             `embodied-r-pretrain model` pretrains the base models",
        ));
    }
    let began = Instant::now();
    let (steps, world) = (Steps::new(&args, run_words)?, World::of(&args));
    let is_strict = args.strict && args.has_default_settings()?;
    if args.strict && !is_strict {
        steps.say("claims are about the default numbers and settings: with others `--strict` does not fail")?;
    }
    let run = Quickstart { steps, args: &args, world };
    let Outcome { rows, table, claims } = match world {
        World::Captions | World::Frames => run.rooms()?,
        World::Robot => run.robot()?,
    };
    run.steps.say(&format!("\n{table}\n{}", claims::listed(&claims)))?;
    let seconds = began.elapsed().as_secs_f64();
    let status = claims::status(&claims, is_strict);
    let results = Results { seed: args.seed, seconds, rows, claims };
    let results = serde_json::to_string_pretty(&results)?;
    write_atomic(&run.path("results.json"), format!("{results}\n").as_bytes())?;
    run.steps.say(&format!(
        "finished in {seconds:.0} s; all outputs are in {}",
        args.output.display()
    ))?;
    if args.json {
        outln!("{results}")?;
    }
    Ok(status)
}

/// What a run ends with.
struct Outcome {
    /// The rows of `results.json`.
    rows: Vec<Value>,
    /// The same as Markdown.
    table: String,
    claims: Vec<Claim>,
}

impl Outcome {
    fn new(rows: &[impl Serialize], table: String, claims: Vec<Claim>) -> anyhow::Result<Self> {
        let rows: Result<Vec<Value>, _> = rows.iter().map(serde_json::to_value).collect();
        Ok(Self { rows: rows?, table, claims })
    }
}

/// The file or directory of what is called `name` in the table.
fn file_name(name: &str) -> String {
    name.replace(',', "").replace(' ', "-")
}

struct Quickstart<'a> {
    steps: Steps,
    args: &'a QuickstartArgs,
    world: World,
}

impl Quickstart<'_> {
    fn path(&self, name: &str) -> PathBuf {
        self.steps.path(name)
    }

    fn seed(&self) -> OsString {
        self.args.seed.to_string().into()
    }

    /// A file in the folder of the questions.
    fn in_data(&self, file: &str) -> PathBuf {
        self.path(self.world.folder()).join(file)
    }

    /// The questions of a split.
    fn split(&self, split: &str) -> PathBuf {
        self.in_data(&self.world.file(split))
    }

    /// The conversations of a split. Those with images are beside the questions, as paths of images are relative to them.
    fn conversations(&self, file: &str) -> PathBuf {
        match self.world.has_images() {
            true => self.in_data(file),
            false => self.path(file),
        }
    }

    /// Writes the small base model, in place of a published one.
    fn make_base(&self) -> anyhow::Result<()> {
        let base = self.path("base");
        self.world.base().unpack(&base)?;
        self.steps.say(&format!("\nwrote the built-in base model to {}", base.display()))
    }

    /// SFT of `model` on the conversations in `data`, with the loss on those in `eval_data`.
    fn sft(
        &self,
        name: &str,
        model: &str,
        (data, eval_data): (&str, Option<&str>),
        sets: &[String],
    ) -> anyhow::Result<()> {
        let config = self.path("sft.toml");
        write_atomic(&config, self.world.configs().sft.as_bytes())?;
        let mut sft = words(["sft", "--resume", "auto", "--config"]);
        sft.extend([config.into(), "--model".into(), self.path(model).into()]);
        sft.extend(["--data".into(), self.conversations(data).into()]);
        if let Some(eval_data) = eval_data {
            sft.extend(["--eval-data".into(), self.conversations(eval_data).into()]);
        }
        sft.extend(["--output".into(), self.path(name).into()]);
        self.steps.run_training(sft, sets)
    }

    /// SFT of the base on the worked examples.
    fn sft_on_worked_examples(&self) -> anyhow::Result<()> {
        let data = ("conversations.jsonl", Some("conversations-val.jsonl"));
        self.sft("sft", "base", data, &self.args.sft_set)
    }

    /// GRPO from the cold start, on questions with nothing but answers.
    fn train(&self, name: &str, data: &Path, eval_data: &Path) -> anyhow::Result<()> {
        let config = self.path("train.toml");
        write_atomic(&config, self.world.configs().train.as_bytes())?;
        let mut train = words(["train", "--resume", "auto", "--config"]);
        train.extend([config.into(), "--model".into(), self.path("sft/final").into()]);
        train.extend(["--data".into(), data.into()]);
        train.extend(["--eval-data".into(), eval_data.into()]);
        train.extend(["--output".into(), self.path(name).into()]);
        self.steps.run_training(train, &self.args.set)
    }

    /// Greedy replies of `model` to `questions`.
    fn answer(&self, model: &str, questions: &Path, answers: &Path) -> anyhow::Result<()> {
        let mut infer = words(["infer", "--max-new-tokens", MAX_NEW_TOKENS, "--model"]);
        infer.extend([self.path(model).into(), "--data".into(), questions.into()]);
        infer.extend(["--output".into(), answers.into()]);
        infer.extend(self.world.has_images().then(|| "--direct".into()));
        let (option, prompt) = self.world.system_prompt();
        infer.extend([option.into(), prompt.into()]);
        self.steps.run_model(infer)
    }

    /// Greedy replies of `model` to `questions`, which `eval` has scored: a file.
    fn greedy(&self, name: &str, model: &str, questions: &Path) -> anyhow::Result<PathBuf> {
        let file = file_name(name);
        let greedy = self.path(&format!("answers/{file}.json"));
        self.answer(model, questions, &greedy)?;
        let mut eval = words(["eval", "--predictions"]);
        eval.extend([greedy.clone().into(), "--name".into(), name.into()]);
        eval.extend(["--output".into(), self.path(&format!("eval/{file}")).into()]);
        self.steps.run(eval)?;
        Ok(greedy)
    }

    /// Writes the HTML report and its curves as a figure, with the scores of the models in `names`.
    fn report<'b>(
        &self,
        title: &str,
        names: impl IntoIterator<Item = &'b str>,
    ) -> anyhow::Result<()> {
        let mut report = words(["report", "--title", title, "--run"]);
        report.extend([self.path("train").into(), "--svg".into(), self.path("curves.svg").into()]);
        report.push("--eval".into());
        for name in names {
            let scores = format!("eval/{}/{}.json", file_name(name), self.world.protocol());
            let mut labeled = OsString::from(format!("{name}="));
            labeled.push(self.path(&scores));
            report.push(labeled);
        }
        self.steps.run(report)
    }
}
