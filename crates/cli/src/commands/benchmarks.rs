//! `embodied-r benchmarks`.

use embodied_r_eval::Benchmark;
use embodied_r_eval::benchmark::{Layout, Scorer};
use embodied_r_eval::benchmarks::BENCHMARKS;
use embodied_r_eval::own_prompt::EMBODIED_R_PROMPT;
use embodied_r_eval::published::{PublishedRow, PublishedTable};
use serde_json::{Value, json};

use crate::args::benchmarks::BenchmarksArgs;
use crate::exit::Status;
use crate::output::outln;

/// Lists the benchmarks.
pub(crate) fn run(args: BenchmarksArgs) -> anyhow::Result<Status> {
    if args.json {
        let all: Vec<Value> = BENCHMARKS.into_iter().map(record).collect();
        outln!("{}", serde_json::to_string_pretty(&all)?)?;
        return Ok(Status::Done);
    }
    for benchmark in BENCHMARKS {
        outln!("{}\n  {}", benchmark.name, benchmark.title)?;
        let names: Vec<&str> = benchmark.scorers().map(|scorer| scorer.name).collect();
        outln!("  scorers: {}", names.join(", "))?;
        let Some(Layout { source, files, prompts, frames, .. }) = benchmark.layout else {
            continue;
        };
        outln!("  prompts: {}", prompts.join(", "))?;
        if !frames.is_empty() {
            outln!("  frames: {}", frames.join(", "))?;
        }
        outln!("  data: {source} (`{}`)", files.join("` or `"))?;
    }
    Ok(Status::Done)
}

fn record(benchmark: &Benchmark) -> Value {
    let layout = benchmark.layout;
    let scorer = |scorer: &Scorer| json!({"name": scorer.name, "comparable": scorer.comparable});
    json!({
        "name": benchmark.name,
        "title": benchmark.title,
        "files": layout.map_or(&[][..], |layout| layout.files),
        "source": layout.map(|layout| layout.source),
        "scorers": benchmark.scorers().map(|scorer| scorer.name).collect::<Vec<_>>(),
        "prompts": layout.map_or(&[EMBODIED_R_PROMPT][..], |layout| layout.prompts),
        "frames": layout.map_or(&[][..], |layout| layout.frames),
        "comparable": benchmark.scorers().map(scorer).collect::<Vec<_>>(),
        "published": benchmark.published.map(published),
    })
}

fn published(table: &PublishedTable) -> Value {
    let row = |row: &PublishedRow| {
        let scores = table.categories.iter().enumerate().filter_map(|(index, category)| {
            Some(((*category).to_owned(), json!(row.score(index)?)))
        });
        json!({
            "model": row.model,
            "harness": (!row.harness.is_empty()).then_some(row.harness),
            "overall": row.overall,
            "by_category": scores.collect::<serde_json::Map<_, _>>(),
        })
    };
    json!({
        "source": table.source,
        "caveat": table.caveat,
        "rows": table.rows.iter().map(row).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    /// The list as a page.
    fn page() -> String {
        let mut text = "# Benchmarks of `eval`\n\nWritten by `UPDATE_DOCS=1 cargo test -p embodied-r-cli reference_is_current`. The \
            first scorer, prompt and frames rule are the defaults. Of several patterns of files, the first one that matches counts.\n"
            .to_owned();
        for benchmark in BENCHMARKS {
            let _ = writeln!(text, "\n## {}\n\n{}.\n", benchmark.name, benchmark.title);
            if let Some(layout) = benchmark.layout {
                let _ =
                    writeln!(text, "- data: {}, as `{}`", layout.source, layout.files.join("`, `"));
                let _ = writeln!(text, "- prompts: `{}`", layout.prompts.join("`, `"));
                if !layout.frames.is_empty() {
                    let _ = writeln!(text, "- frames: `{}`", layout.frames.join("`, `"));
                }
            }
            for scorer in benchmark.scorers() {
                let _ = writeln!(
                    text,
                    "- scorer `{}`: comparable with {}",
                    scorer.name, scorer.comparable
                );
            }
            if let Some(published) = benchmark.published {
                let _ = writeln!(
                    text,
                    "- published rows: {}, from {}; {}",
                    published.rows.len(),
                    published.source,
                    published.caveat
                );
            }
        }
        text
    }

    #[test]
    fn benchmarks_reference_is_current() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/evaluation-benchmarks.md");
        let current = page();
        if std::env::var_os("UPDATE_DOCS").is_some_and(|value| !value.is_empty()) {
            std::fs::write(file, &current).unwrap();
        }
        let written = std::fs::read_to_string(file).unwrap_or_default();
        assert!(
            written == current,
            "`docs/evaluation-benchmarks.md` is out of date: set `UPDATE_DOCS=1`"
        );
    }
}
