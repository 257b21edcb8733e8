//! `embodied-r eval`.

mod folds;
mod outputs;
mod page;
mod pass_at;

use std::collections::BTreeSet;
use std::path::Path;

use embodied_r_data::Progress as _;
use embodied_r_eval::benchmarks::{self, ACCURACY, EMBODIED_R};
use embodied_r_eval::own_prompt::EMBODIED_R_PROMPT;
use embodied_r_eval::report::Context;
use embodied_r_eval::{
    Benchmark, FoldedReport, Protocol, Report, folded_markdown, markdown, scorers_markdown,
};
use embodied_r_files::write_atomic;

use crate::args::eval::{EvalArgs, Source};
use crate::exit::{Status, Usage};
use crate::output::{out, outln};
use crate::progress::Bar;

/// Stands for every scorer of a benchmark.
const ALL_SCORERS: &str = "all";

/// Score predictions by a benchmark's rules.
pub(crate) fn run(args: EvalArgs) -> anyhow::Result<Status> {
    let name = match &args.name {
        Some(name) => name.clone(),
        None => args.source.name(),
    };
    if let Some(benchmark) = args.source.benchmark {
        protocols(benchmark, args.source.scorer.as_deref())?;
    }
    let outputs = outputs::all(&args)?;
    let categories = outputs.iter().flat_map(outputs::Outputs::categories);
    let benchmark = benchmark(args.source.benchmark, categories.clone());
    if args.source.predictions.is_some() {
        warn_of_unknown_categories(args.source.benchmark, benchmark, categories);
    }
    let context = context(&args.source)?;
    let scored = protocols(benchmark, args.source.scorer.as_deref())?
        .into_iter()
        .map(|protocol| {
            let score = |(fold, outputs): (usize, &outputs::Outputs)| {
                let report = outputs.score(protocol, &args.pass_at.ks);
                let report = report.map(|report| Report { context: context.clone(), ..report });
                outputs::of_fold(report, args.folds.folds.map(|_| fold))
            };
            let reports = outputs.iter().enumerate().map(score);
            Scored::new(reports.collect::<anyhow::Result<_>>()?, &args, &name)
        })
        .collect::<anyhow::Result<Vec<Scored>>>()?;
    if let (Some(folder), [outputs::Outputs::Predictions(predictions)], [scored, ..]) =
        (&args.output, outputs.as_slice(), scored.as_slice())
    {
        let path = folder.join(format!("{}.html", benchmark.name));
        page::write(&path, &name, predictions, &scored.report, &args.source.image_folder())?;
    }
    let printed = Scored::joined(scored, benchmark)?;
    if let Some(folder) = &args.output {
        save(folder, benchmark, &printed)?;
    }
    if args.json {
        outln!("{}", printed.json)?;
        let bar = Bar::default();
        printed.warnings.iter().for_each(|remark| bar.warn(remark));
    } else {
        out!("{}", printed.table)?;
    }
    Ok(Status::Done)
}

/// What decides the scores besides the scorer.
fn context(source: &Source) -> anyhow::Result<Context> {
    let annotations = source.annotations()?;
    let asks = source.predictions.is_none();
    let prompt = annotations.as_ref().map_or(EMBODIED_R_PROMPT, |of| of.prompt);
    let direct = source.video.direct(&source.direct)?;
    let direct = direct.map(|direct| direct.with_frames_of(annotations.as_ref()));
    let shows_videos = annotations.as_ref().is_none_or(|of| of.frames().is_some());
    Ok(Context {
        prompt: asks.then(|| prompt.to_owned()),
        frames: direct.filter(|_| asks && shows_videos).map(|direct| direct.frames().to_owned()),
        data_sha256: annotations.map(|of| of.sha256()).transpose()?,
        is_limited: source.limit.is_some(),
    })
}

/// The benchmark with the scorer called `name`, or with each if that is `all`.
fn protocols(benchmark: &'static Benchmark, name: Option<&str>) -> Result<Vec<Protocol>, Usage> {
    let Some(name) = name else { return Ok(vec![benchmark.into()]) };
    let all: Vec<Protocol> = Protocol::all(benchmark).collect();
    if name == ALL_SCORERS {
        return Ok(all);
    }
    let names: Vec<&str> = all.iter().map(|protocol| protocol.scorer.name).collect();
    match all.iter().find(|protocol| protocol.scorer.name == name) {
        Some(protocol) => Ok(vec![*protocol]),
        None => Err(Usage(format!(
            "`{}` has no scorer `{name}`; its scorers are `{}`, and `{ALL_SCORERS}`",
            benchmark.name,
            names.join("`, `")
        ))),
    }
}

/// A report of a question set, or of all folds, in every form.
struct Scored {
    json: serde_json::Value,
    table: String,
    warnings: Vec<String>,
    /// The report, or the mean over folds.
    report: Report,
}

/// Scores in every form.
struct Printed {
    json: String,
    table: String,
    warnings: Vec<String>,
}

impl Scored {
    fn new(mut reports: Vec<Report>, args: &EvalArgs, name: &str) -> anyhow::Result<Self> {
        // Without the questions, answers that the file leaves out cannot be counted.
        let is_unmatched = args.source.data.is_empty();
        if let (1, None) = (reports.len(), args.folds.folds) {
            let mut report = reports.remove(0);
            if is_unmatched {
                report.set_unrecorded();
            }
            return Ok(Self {
                json: serde_json::to_value(&report)?,
                table: markdown(&report, name),
                warnings: report.warnings(),
                report,
            });
        }
        let mut folded = FoldedReport::new(reports)?;
        if is_unmatched {
            folded.mean.set_unrecorded();
        }
        Ok(Self {
            json: serde_json::to_value(&folded)?,
            table: folded_markdown(&folded, name),
            warnings: folded.warnings(),
            report: folded.mean,
        })
    }

    /// The only report, or those of all scorers: `{"benchmark", "scorers": {name: report}}`.
    fn joined(mut all: Vec<Self>, benchmark: &Benchmark) -> anyhow::Result<Printed> {
        if all.len() == 1 {
            let Self { json, table, warnings, .. } = all.remove(0);
            return Ok(Printed { json: serde_json::to_string(&json)?, table, warnings });
        }
        let reports: Vec<&Report> = all.iter().map(|scored| &scored.report).collect();
        let table = scorers_markdown(benchmark, &reports);
        let scorers: serde_json::Map<String, serde_json::Value> = all
            .iter()
            .map(|scored| (scored.report.protocol.scorer.name.to_owned(), scored.json.clone()))
            .collect();
        let json = serde_json::json!({"benchmark": benchmark.name, "scorers": scorers});
        let mut warnings: Vec<String> = Vec::new();
        for warning in all.into_iter().flat_map(|scored| scored.warnings) {
            if !warnings.contains(&warning) {
                warnings.push(warning);
            }
        }
        Ok(Printed { json: json.to_string(), table, warnings })
    }
}

/// The requested benchmark, or the one that questions of these categories choose.
fn benchmark<'a>(
    name: Option<&'static Benchmark>,
    categories: impl IntoIterator<Item = &'a str>,
) -> &'static Benchmark {
    name.or_else(|| benchmarks::of_categories(categories)).unwrap_or(&EMBODIED_R)
}

/// Warns that questions have categories of no benchmark, which may be misspelled, if that chose the benchmark.
fn warn_of_unknown_categories<'a>(
    name: Option<&Benchmark>,
    chosen: &Benchmark,
    categories: impl IntoIterator<Item = &'a str>,
) {
    /// Most categories that the warning names.
    const NAMED: usize = 3;
    let categories: BTreeSet<&str> =
        categories.into_iter().filter(|category| !category.is_empty()).collect();
    if name.is_some() || *chosen != ACCURACY || categories.is_empty() {
        return;
    }
    let named: Vec<String> =
        categories.iter().take(NAMED).map(|category| format!("`{category}`")).collect();
    let more = if categories.len() > NAMED { ", …" } else { "" };
    Bar::default().warn(&format!(
        "no benchmark has the categories of these questions ({}{more}): they are scored as with `--benchmark accuracy`",
        named.join(", ")
    ));
}

fn save(folder: &Path, benchmark: &Benchmark, scored: &Printed) -> anyhow::Result<()> {
    let name = benchmark.name;
    write_atomic(&folder.join(format!("{name}.json")), format!("{}\n", scored.json).as_bytes())?;
    write_atomic(&folder.join(format!("{name}.md")), scored.table.as_bytes())?;
    Ok(())
}
