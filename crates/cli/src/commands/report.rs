//! `embodied-r report`.

use std::path::{Path, PathBuf};

use embodied_r_data::write::write_atomic;

use crate::args::report::ReportArgs;
use crate::exit::{Status, Usage};
use crate::output::outln;
use crate::report::{Page, Sources, compare, page};

/// Write a run, or several beside each other, as one HTML page.
pub(crate) fn run(args: ReportArgs) -> anyhow::Result<Status> {
    refuse_twice(&args.run)?;
    let title = args.title.as_deref();
    let (Page { html, skipped_lines }, out) = match args.run.as_slice() {
        [run] => (page(&Sources { run, evals: &args.eval, title })?, run.join("report.html")),
        runs => {
            let first = runs.first().map_or(Path::new(""), PathBuf::as_path);
            (compare::page(runs, &args.eval, title)?, first.join("comparison.html"))
        }
    };
    if skipped_lines > 0 {
        eprintln!(
            "warning: lines of `events.jsonl` that are not JSON, passed over: {skipped_lines}"
        );
    }
    let out = args.out.unwrap_or(out);
    write_atomic(&out, html.as_bytes())?;
    outln!("{}", out.display())?;
    Ok(Status::Done)
}

/// Refuses a run that is given twice: its curves would cover each other.
fn refuse_twice(runs: &[PathBuf]) -> Result<(), Usage> {
    let mut seen = std::collections::HashSet::new();
    let place = |run: &PathBuf| run.canonicalize().unwrap_or_else(|_| run.clone());
    match runs.iter().find(|run| !seen.insert(place(run))) {
        Some(run) => Err(Usage(format!("the run `{}` is given twice", run.display()))),
        None => Ok(()),
    }
}
