//! `embodied-r eval`.

mod pass_at;

use std::io::Write as _;
use std::path::Path;

use embodied_r_data::write::write_atomic;
use embodied_r_data::{Progress as _, Question};
use embodied_r_eval::{Error, Prediction, Protocol, Report, markdown, predictions, score};

use super::infer::{self, perceived};
use crate::args::eval::{EvalArgs, ProtocolName, Source};
use crate::exit::{self, Status, Usage};
use crate::progress::Bar;

/// Name of the file of a model's answers.
const ANSWERS: &str = "answers.json";

/// Score predictions with a benchmark's protocol.
pub(crate) fn run(args: EvalArgs) -> anyhow::Result<Status> {
    let name = match &args.name {
        Some(name) => name.clone(),
        None => args.source.name(),
    };
    let output = args.output.as_deref();
    let report = if args.pass_at.ks.is_empty() {
        let predictions = answers(&args.source, output)?;
        let categories = predictions.iter().map(|prediction| prediction.category.as_str());
        score(protocol(args.protocol, categories), &predictions).map_err(explain)?
    } else {
        pass_at::report(&args.source, &args.pass_at, args.protocol, output)?
    };
    let json = serde_json::to_string(&report)?;
    let table = markdown(&report, &name);
    if let Some(folder) = &args.output {
        save(folder, &report, &json, &table)?;
    }
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{json}")?;
        let bar = Bar::default();
        report.warnings().iter().for_each(|remark| bar.warn(remark));
    } else {
        out.write_all(table.as_bytes())?;
    }
    Ok(Status::Done)
}

/// The requested protocol, or the default one for questions of these categories.
fn protocol<'a>(
    name: Option<ProtocolName>,
    categories: impl IntoIterator<Item = &'a str>,
) -> Protocol {
    match name {
        Some(ProtocolName::EmbodiedR) => Protocol::EmbodiedR,
        Some(ProtocolName::VsiBench) => Protocol::VsiBench,
        Some(ProtocolName::UrbanVideoBench) => Protocol::UrbanVideoBench,
        Some(ProtocolName::EgoSchema) => Protocol::EgoSchema,
        Some(ProtocolName::MvBench) => Protocol::MvBench,
        None => Protocol::out_of_domain(categories).unwrap_or(Protocol::EmbodiedR),
    }
}

/// The predictions to score.
fn answers(source: &Source, save_path: Option<&Path>) -> anyhow::Result<Vec<Prediction>> {
    if let Some(path) = &source.predictions {
        return predictions::read(path).map_err(explain);
    }
    let folder = Folder::new(save_path)?;
    let questions = questions(source, &folder)?;
    let output = folder.path().join(ANSWERS);
    infer::answer_file(questions, &source.model, &output)?;
    predictions::read(&output).map_err(explain)
}

/// Where completions and captions are written: the folder of `--output`, or a temporary one.
enum Folder<'a> {
    Kept(&'a Path),
    Temporary(tempfile::TempDir),
}

impl<'a> Folder<'a> {
    fn new(save_path: Option<&'a Path>) -> anyhow::Result<Self> {
        match save_path {
            Some(path) => Ok(Self::Kept(path)),
            None => Ok(Self::Temporary(tempfile::tempdir()?)),
        }
    }

    fn path(&self) -> &Path {
        match self {
            Self::Kept(path) => path,
            Self::Temporary(folder) => folder.path(),
        }
    }
}

/// The questions of `--data` with captions, which are kept in `folder`.
fn questions(source: &Source, folder: &Folder<'_>) -> anyhow::Result<Vec<Question>> {
    let (Some(_), Some(data)) = (&source.model.model, &source.data) else {
        let what = "nothing to score: give `--predictions FILE`, or `--model` and `--data`";
        return Err(Usage(what.into()).into());
    };
    let set = perceived::read(data, source.answers.as_deref(), source.limit)?;
    let is_temporary = matches!(folder, Folder::Temporary(_));
    if perceived::needed(&set) && is_temporary && source.video.has_captioner() {
        let what = "captioning the videos takes long: give `--output DIR` to keep the captions";
        return Err(Usage(what.into()).into());
    }
    // One place for the captions, so that `--pass-at` and answers share them.
    perceived::questions(set, &source.video, &folder.path().join(ANSWERS))
}

fn save(folder: &Path, report: &Report, json: &str, table: &str) -> anyhow::Result<()> {
    let name = report.protocol.name();
    write_atomic(&folder.join(format!("{name}.json")), format!("{json}\n").as_bytes())?;
    write_atomic(&folder.join(format!("{name}.md")), table.as_bytes())?;
    Ok(())
}

/// Adds hints.
fn explain(error: Error) -> anyhow::Error {
    let advice = match &error {
        Error::NoPredictions { .. } => {
            "`embodied-r infer` writes predictions; a `samples.jsonl` is scored with `--pass-at`"
        }
        Error::NothingToScore { .. } => "choose the benchmark's protocol with `--protocol`",
        Error::Records(embodied_r_rewards::Error::Field { .. }) => {
            "records need `question_category`, `answer` and `content`, or `id`, `category`, \
             `solution` and `prediction`"
        }
        _ => return error.into(),
    };
    exit::hint(error.to_string(), advice)
}
