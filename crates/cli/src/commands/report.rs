//! `embodied-r report`.

use std::path::{Path, PathBuf};

use embodied_r_files::write_atomic;
use embodied_r_report::{Error, Page, Sources, compare, figure, keep_scores, page};

use crate::args::report::ReportArgs;
use crate::exit::{self, Status, Usage};
use crate::output::outln;

/// Write an HTML report of a run, or a comparison of several; and a figure.
pub(crate) fn run(args: ReportArgs) -> anyhow::Result<Status> {
    refuse_twice(&args.run)?;
    let figure = match (&args.svg, args.run.as_slice()) {
        (None, _) => None,
        (Some(file), [run]) => Some((file, figure(run).map_err(explained)?)),
        (Some(_), _) => {
            return Err(Usage("`--svg` shows one run; give a single `--run`".into()).into());
        }
    };
    let title = args.title.as_deref();
    let (Page { html, skipped_lines }, out) = match args.run.as_slice() {
        [run] => {
            if !args.eval.is_empty() {
                keep_scores(run, &args.eval).map_err(explained)?;
            }
            let page = page(&Sources { run, evals: &args.eval, title });
            (page.map_err(explained)?, run.join("report.html"))
        }
        runs => {
            let first = runs.first().map_or(Path::new(""), PathBuf::as_path);
            let page = compare(runs, &args.eval, title).map_err(explained)?;
            (page, first.join("comparison.html"))
        }
    };
    if skipped_lines > 0 {
        eprintln!("warning: skipped {skipped_lines} lines of `events.jsonl` that are not JSON");
    }
    let out = args.output.unwrap_or(out);
    write_atomic(&out, html.as_bytes())?;
    outln!("{}", out.display())?;
    if let Some((file, svg)) = figure {
        write_atomic(file, svg.as_bytes())?;
        outln!("{}", file.display())?;
    }
    Ok(Status::Done)
}

/// The error with its hint.
fn explained(error: Error) -> anyhow::Error {
    match error.hint() {
        Some(hint) => exit::hint(error.to_string(), hint),
        None => error.into(),
    }
}

/// Fails if a run is given twice: its curves would overlap.
fn refuse_twice(runs: &[PathBuf]) -> Result<(), Usage> {
    let mut seen = std::collections::HashSet::new();
    let at = |run: &PathBuf| run.canonicalize().unwrap_or_else(|_| run.clone());
    match runs.iter().find(|run| !seen.insert(at(run))) {
        Some(run) => Err(Usage(format!("the run `{}` is given twice", run.display()))),
        None => Ok(()),
    }
}
