//! `embodied-r runs`.

mod found;
mod run;

use std::time::{Duration, SystemTime};

use embodied_r_grpo::checkpoint::BestCheckpoint;

use crate::args::runs::RunsArgs;
use crate::exit::{self, Status};
use crate::output::{out, outln};
use run::Run;

/// Maximum length of a model name; the start of a longer one is elided.
const MODEL_CHARS: usize = 32;

/// List the runs in a folder.
pub(crate) fn run(args: RunsArgs) -> anyhow::Result<Status> {
    let folders = found::runs(&args.dir).map_err(|error| {
        exit::hint(
            format!("cannot read `{}`: {error}", args.dir.display()),
            "give the directory with the runs of `embodied-r train` or `sft`",
        )
    })?;
    let now = SystemTime::now();
    let mut runs: Vec<Run> = folders.iter().map(|folder| Run::read(folder, now)).collect();
    runs.sort_by(|a, b| b.changed.cmp(&a.changed).then_with(|| a.path.cmp(&b.path)));
    if args.json {
        outln!("{}", serde_json::to_string(&runs)?)?;
        return Ok(Status::Done);
    }
    if runs.is_empty() {
        outln!("no runs in `{}`", args.dir.display())?;
        return Ok(Status::Done);
    }
    out!("{}", table(&runs, now))?;
    for (run, error) in runs.iter().filter_map(|run| Some((run, run.error.as_ref()?))) {
        outln!("{}: {error}", run.path.display())?;
    }
    Ok(Status::Done)
}

/// An aligned table, one line per run.
fn table(runs: &[Run], now: SystemTime) -> String {
    const HEADER: [&str; 10] = [
        "run",
        "kind",
        "model",
        "step",
        "status",
        "checkpoint",
        "last step",
        "accuracy",
        "best eval",
        "changed",
    ];
    let rows: Vec<[String; 10]> = runs
        .iter()
        .map(|run| {
            [
                run.path.display().to_string(),
                run.kind.map_or("–", |kind| kind.name()).to_owned(),
                run.model.as_deref().map_or_else(dash, model),
                steps(run),
                run.state.name().to_owned(),
                run.checkpoint.map_or_else(dash, |step| step.to_string()),
                last(run),
                run.accuracy.map_or_else(dash, format_metric),
                run.best.as_ref().map_or_else(dash, best),
                run.changed.map_or_else(dash, |changed| ago(changed, now)),
            ]
        })
        .collect();
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([HEADER[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: [usize; 10] = std::array::from_fn(width);
    let line = |cells: &[String; 10]| {
        let cells = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    let header = HEADER.map(str::to_owned);
    std::iter::once(&header).chain(&rows).map(line).collect()
}

fn dash() -> String {
    "–".to_owned()
}

fn model(name: &str) -> String {
    let chars = name.chars().count();
    match chars.checked_sub(MODEL_CHARS) {
        Some(over) if over > 0 => format!("…{}", name.chars().skip(over + 1).collect::<String>()),
        _ => name.to_owned(),
    }
}

fn steps(run: &Run) -> String {
    match (run.step, run.steps) {
        (None, None) => dash(),
        (step, steps) => {
            let steps = steps.map_or_else(|| "?".to_owned(), |steps| steps.to_string());
            format!("{}/{steps}", step.unwrap_or(0))
        }
    }
}

fn last(run: &Run) -> String {
    match (run.reward, run.loss) {
        (Some(reward), _) => format!("reward {}", format_metric(reward)),
        (None, Some(loss)) => format!("loss {}", format_metric(loss)),
        (None, None) => dash(),
    }
}

fn best(best: &BestCheckpoint) -> String {
    let metric = best.metric.strip_prefix("eval/").unwrap_or(&best.metric);
    format!("{metric} {} at {}", format_metric(best.value), best.step)
}

fn format_metric(value: f64) -> String {
    format!("{value:.3}")
}

/// The time since `then`, in its largest unit.
fn ago(then: SystemTime, now: SystemTime) -> String {
    let seconds = now.duration_since(then).unwrap_or(Duration::ZERO).as_secs();
    match seconds {
        0..60 => format!("{seconds} s ago"),
        60..3_600 => format!("{} min ago", seconds / 60),
        3_600..172_800 => format!("{} h ago", seconds / 3_600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_shown_in_their_largest_unit() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let before = |seconds| ago(now - Duration::from_secs(seconds), now);
        assert_eq!(
            [5, 61, 7_300, 400_000].map(before),
            ["5 s ago", "1 min ago", "2 h ago", "4 days ago"]
        );
        assert_eq!(ago(now + Duration::from_secs(9), now), "0 s ago");
    }

    #[test]
    fn a_long_model_name_keeps_its_end() {
        let name = format!("/a/long/path/{}", "x".repeat(31));
        assert_eq!(model(&name), format!("…{}", "x".repeat(31)));
        assert_eq!(model("Qwen/Qwen2.5-0.5B"), "Qwen/Qwen2.5-0.5B");
    }
}
