//! `embodied-r report`.

use embodied_r_data::write::write_atomic;

use crate::args::report::ReportArgs;
use crate::exit::Status;
use crate::output::outln;
use crate::report::{Sources, page};

/// Write a run's curves and completions as one HTML page.
pub(crate) fn run(args: ReportArgs) -> anyhow::Result<Status> {
    let page = page(&Sources { run: &args.run, evals: &args.eval, title: args.title.as_deref() })?;
    if page.skipped_lines > 0 {
        eprintln!(
            "warning: lines of `events.jsonl` that are not JSON, passed over: {}",
            page.skipped_lines
        );
    }
    let out = args.out.unwrap_or_else(|| args.run.join("report.html"));
    write_atomic(&out, page.html.as_bytes())?;
    outln!("{}", out.display())?;
    Ok(Status::Done)
}
