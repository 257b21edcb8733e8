//! `embodied-r eval`.

use std::io::Write as _;
use std::path::Path;

use embodied_r_data::Progress as _;
use embodied_r_data::write::write_atomic;
use embodied_r_eval::{Error, Prediction, Protocol, Report, markdown, predictions, score};

use super::infer::{self, perceived};
use crate::args::eval::{EvalArgs, ProtocolName, Source};
use crate::exit::{self, Status, Usage};
use crate::progress::Bar;

/// Score predictions with a benchmark's protocol.
pub(crate) fn run(args: EvalArgs) -> anyhow::Result<Status> {
    let (predictions, source) = answers(args.source, args.output.as_deref())?;
    let protocol = match args.protocol {
        Some(ProtocolName::EmbodiedR) => Protocol::EmbodiedR,
        Some(ProtocolName::VsiBench) => Protocol::VsiBench,
        Some(ProtocolName::UrbanVideoBench) => Protocol::UrbanVideoBench,
        Some(ProtocolName::EgoSchema) => Protocol::EgoSchema,
        Some(ProtocolName::MvBench) => Protocol::MvBench,
        None => Protocol::out_of_domain(&predictions).unwrap_or(Protocol::EmbodiedR),
    };
    let report = score(protocol, &predictions).map_err(explain)?;
    let json = serde_json::to_string(&report)?;
    let table = markdown(&report, args.name.as_deref().unwrap_or(&source));
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

/// The predictions to score, and the name of their source.
fn answers(source: Source, save_path: Option<&Path>) -> anyhow::Result<(Vec<Prediction>, String)> {
    let name =
        |path: &Path| path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    if let Some(path) = &source.predictions {
        return Ok((predictions::read(path).map_err(explain)?, name(path)));
    }
    let (Some(model), Some(data)) = (source.model.model.clone(), source.data) else {
        let what = "nothing to score: give `--predictions FILE`, or `--model` and `--data`";
        return Err(Usage(what.into()).into());
    };
    let set = perceived::read(&data, source.answers.as_deref(), source.limit)?;
    if perceived::needed(&set) && save_path.is_none() && source.video.has_captioner() {
        let what = "captioning the videos takes long: give `--output DIR` to keep the captions";
        return Err(Usage(what.into()).into());
    }
    let scratch = tempfile::tempdir()?;
    let output = save_path.unwrap_or(scratch.path()).join("answers.json");
    let questions = perceived::questions(set, &source.video, &output)?;
    infer::answer_file(questions, &source.model, &output)?;
    Ok((predictions::read(&output).map_err(explain)?, name(Path::new(&model))))
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
        Error::NoPredictions { .. } => "`embodied-r infer` writes predictions",
        Error::NothingToScore { .. } => "choose the benchmark's protocol with `--protocol`",
        Error::Records(embodied_r_rewards::Error::Field { .. }) => {
            "records need `question_category`, `answer` and `content`, or `id`, `category`, \
             `solution` and `prediction`"
        }
        _ => return error.into(),
    };
    exit::hint(error.to_string(), advice)
}
