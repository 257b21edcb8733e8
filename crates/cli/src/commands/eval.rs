//! `embodied-r eval`.

mod folds;
mod outputs;
mod pass_at;

use std::collections::BTreeSet;
use std::path::Path;

use embodied_r_data::Progress as _;
use embodied_r_eval::{FoldedReport, Protocol, Report, folded_markdown, markdown};
use embodied_r_files::write_atomic;

use crate::args::eval::{EvalArgs, ProtocolName};
use crate::exit::Status;
use crate::output::{out, outln};
use crate::progress::Bar;

/// Score predictions with a benchmark's protocol.
pub(crate) fn run(args: EvalArgs) -> anyhow::Result<Status> {
    let name = match &args.name {
        Some(name) => name.clone(),
        None => args.source.name(),
    };
    let outputs = outputs::all(&args)?;
    let categories = outputs.iter().flat_map(outputs::Outputs::categories);
    let protocol = protocol(args.protocol, categories.clone());
    if args.source.predictions.is_some() {
        warn_of_unknown_categories(args.protocol, protocol, categories);
    }
    let score = |(fold, outputs): (usize, &outputs::Outputs)| {
        let report = outputs.score(protocol, &args.pass_at.ks);
        outputs::of_fold(report, args.folds.folds.map(|_| fold))
    };
    let reports: Vec<Report> =
        outputs.iter().enumerate().map(score).collect::<anyhow::Result<_>>()?;
    let scored = Scored::new(reports, &args, &name)?;
    if let Some(folder) = &args.output {
        save(folder, protocol, &scored)?;
    }
    if args.json {
        outln!("{}", scored.json)?;
        let bar = Bar::default();
        scored.warnings.iter().for_each(|remark| bar.warn(remark));
    } else {
        out!("{}", scored.table)?;
    }
    Ok(Status::Done)
}

/// A report of a question set, or of all folds, in every form.
struct Scored {
    json: String,
    table: String,
    warnings: Vec<String>,
}

impl Scored {
    fn new(mut reports: Vec<Report>, args: &EvalArgs, name: &str) -> anyhow::Result<Self> {
        // Without the questions, answers that the file leaves out cannot be counted.
        let is_unmatched = args.source.data.is_empty();
        if let ([report], None) = (reports.as_mut_slice(), args.folds.folds) {
            if is_unmatched {
                report.set_unrecorded();
            }
            return Ok(Self {
                json: serde_json::to_string(report)?,
                table: markdown(report, name),
                warnings: report.warnings(),
            });
        }
        let mut report = FoldedReport::new(reports)?;
        if is_unmatched {
            report.mean.set_unrecorded();
        }
        Ok(Self {
            json: serde_json::to_string(&report)?,
            table: folded_markdown(&report, name),
            warnings: report.warnings(),
        })
    }
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
        Some(ProtocolName::RobotR1) => Protocol::RobotR1,
        Some(ProtocolName::Accuracy) => Protocol::Accuracy,
        None => Protocol::of_categories(categories).unwrap_or(Protocol::EmbodiedR),
    }
}

/// Warns that questions have categories of no benchmark, which may be misspelled, if that chose the protocol.
fn warn_of_unknown_categories<'a>(
    name: Option<ProtocolName>,
    chosen: Protocol,
    categories: impl IntoIterator<Item = &'a str>,
) {
    /// Most categories that the warning names.
    const NAMED: usize = 3;
    let categories: BTreeSet<&str> =
        categories.into_iter().filter(|category| !category.is_empty()).collect();
    if name.is_some() || chosen != Protocol::Accuracy || categories.is_empty() {
        return;
    }
    let named: Vec<String> =
        categories.iter().take(NAMED).map(|category| format!("`{category}`")).collect();
    let more = if categories.len() > NAMED { ", …" } else { "" };
    Bar::default().warn(&format!(
        "no benchmark has the categories of these questions ({}{more}): they are scored as with `--protocol accuracy`",
        named.join(", ")
    ));
}

fn save(folder: &Path, protocol: Protocol, scored: &Scored) -> anyhow::Result<()> {
    let name = protocol.name();
    write_atomic(&folder.join(format!("{name}.json")), format!("{}\n", scored.json).as_bytes())?;
    write_atomic(&folder.join(format!("{name}.md")), scored.table.as_bytes())?;
    Ok(())
}
