//! `embodied-r show`.

mod card;
mod paint;
mod wrap;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use embodied_r_report::samples::{self, Sample};
use serde_json::{Map, Value, json};

use crate::args::show::{Order, ShowArgs};
use crate::exit::{self, Status};
use crate::output::outln;
use crate::pager::{Pager, Paging};
use crate::terminal::{self, escaped};
use card::Prompts;
use paint::Paint;

/// Maximum question ids in a hint.
const MAX_HINT_IDS: usize = 8;

/// Browse a run's completions in the terminal.
pub(crate) fn run(args: ShowArgs) -> anyhow::Result<Status> {
    let (step, file) = file(&args.run, args.step)?;
    let all = samples::read(&file)?;
    let chosen = chosen(&all, &args, step)?;
    if args.json {
        for sample in &chosen {
            outln!("{}", as_json(sample))?;
        }
        return Ok(Status::Done);
    }
    let paint = Paint::new(args.color);
    let questions: std::collections::HashSet<&str> =
        all.iter().map(|sample| sample.question_id.as_str()).collect();
    let title = format!("step {step} of {}", escaped(&args.run.to_string_lossy()));
    let shown = match chosen.len() == all.len() {
        true => String::new(),
        false => format!(", showing {}", chosen.len()),
    };
    let width = terminal::width();
    let wrapped = |text: String| match width {
        Some(width) => wrap::wrap(&text, width),
        None => text,
    };
    let mut out = Pager::start(if args.no_pager { Paging::Off } else { Paging::Auto });
    let (title, completions, questions) = (paint.bold(&title), all.len(), questions.len());
    let heading = format!("{title}: {completions} completions to {questions} questions{shown}\n");
    out.write_all(wrapped(heading).as_bytes())?;
    let prompts = if args.prompts { Prompts::Whole } else { Prompts::Short };
    let mut before: Option<&Sample> = None;
    for sample in chosen {
        // Completions to one question share its prompt.
        let again = before.is_some_and(|before| before.prompt == sample.prompt);
        let card = card::card(sample, (!again).then_some(prompts), paint);
        out.write_all(wrapped(card).as_bytes())?;
        before = Some(sample);
    }
    out.flush()?;
    Ok(Status::Done)
}

/// The completion file of `step`, or of the last logged step.
fn file(run: &Path, step: Option<u64>) -> anyhow::Result<(u64, PathBuf)> {
    let files = samples::files(run);
    let files: Vec<(u64, PathBuf)> =
        files.into_iter().filter_map(|file| Some((samples::step_of(&file)?, file))).collect();
    let steps: Vec<u64> = files.iter().map(|(step, _)| *step).collect();
    let found = match step {
        None => files.into_iter().next_back(),
        Some(step) => files.into_iter().find(|(of, _)| *of == step),
    };
    found.ok_or_else(|| match step {
        Some(step) if !steps.is_empty() => exit::hint(
            format!("step {step} of `{}` has no completions", run.display()),
            near(&steps, step),
        ),
        _ => exit::hint(
            format!("no completions in `{}`", run.display()),
            "give the directory of an `embodied-r train` run with `log_completions` set; \
             `embodied-r runs` lists runs",
        ),
    })
}

/// The range of logged steps, and those nearest to `step`. `steps` are sorted and not empty.
fn near(steps: &[u64], step: u64) -> String {
    let at = steps.partition_point(|known| *known < step);
    let nearest: Vec<String> = [at.checked_sub(1), Some(at)]
        .into_iter()
        .flatten()
        .filter_map(|index| steps.get(index).map(u64::to_string))
        .collect();
    let (first, last) = (steps[0], steps[steps.len() - 1]);
    format!(
        "nearest: {}; {} steps from {first} to {last} have completions",
        nearest.join(" and "),
        steps.len()
    )
}

/// The samples to show, in order.
fn chosen<'a>(all: &'a [Sample], args: &ShowArgs, step: u64) -> anyhow::Result<Vec<&'a Sample>> {
    let is_wanted = |sample: &&Sample| {
        args.question.as_deref().is_none_or(|wanted| sample.question_id == wanted)
    };
    let mut chosen: Vec<&Sample> = all.iter().filter(is_wanted).collect();
    if let (true, Some(wanted)) = (chosen.is_empty(), &args.question) {
        let mut ids: Vec<&str> = all.iter().map(|sample| sample.question_id.as_str()).collect();
        ids.dedup();
        let more = if ids.len() > MAX_HINT_IDS { " …" } else { "" };
        ids.truncate(MAX_HINT_IDS);
        return Err(exit::hint(
            format!("step {step} has no question `{wanted}`"),
            format!("its questions are {}{more}", ids.join(", ")),
        ));
    }
    if args.failed {
        chosen.retain(|sample| is_failed(sample));
    }
    // Samples without a value come last.
    let by = |name: &'static str| {
        move |sample: &&Sample| sample.score(name).unwrap_or(f64::NEG_INFINITY)
    };
    match args.sort {
        Some(Order::Reward) => sort(&mut chosen, by("reward")),
        Some(Order::Length) => sort(&mut chosen, by("length")),
        None => {}
    }
    if args.reverse {
        chosen.reverse();
    }
    chosen.truncate(args.limit.unwrap_or(usize::MAX));
    Ok(chosen)
}

/// Sorts in descending order; the sort is stable.
fn sort<'a>(samples: &mut [&'a Sample], key: impl Fn(&&'a Sample) -> f64) {
    samples.sort_by(|a, b| key(b).total_cmp(&key(a)));
}

/// Whether the accuracy is 0 or the reward is missing; without an accuracy, whether the reward is 0.
fn is_failed(sample: &Sample) -> bool {
    let reward = sample.score("reward");
    match sample.score("accuracy") {
        Some(accuracy) => accuracy == 0.0 || reward.is_none(),
        None => reward.is_none_or(|reward| reward == 0.0),
    }
}

fn as_json(sample: &Sample) -> Value {
    let rewards: Map<String, Value> = sample
        .rewards
        .iter()
        .map(|name| {
            let value = json!({"value": sample.score(name), "why": sample.reason(name)});
            (name.clone(), value)
        })
        .collect();
    json!({
        "step": sample.step,
        "question_id": sample.question_id,
        "solution": sample.solution,
        "reward": sample.score("reward"),
        "advantage": sample.score("advantage"),
        "length": sample.score("length"),
        "finish_reason": sample.finish_reason,
        "rewards": rewards,
        "prompt": sample.prompt,
        "completion": sample.completion,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(scores: &[(&str, f64)]) -> Sample {
        let scores = scores.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        Sample { scores, ..Sample::default() }
    }

    #[test]
    fn wrong_answers_and_missing_rewards_are_failures() {
        for (scores, failed) in [
            (&[("accuracy", 0.0), ("reward", 0.3)][..], true),
            (&[("accuracy", 1.0), ("reward", 0.7)], false),
            (&[("accuracy", 0.4), ("reward", 0.7)], false),
            (&[("accuracy", 1.0)], true),
            (&[("reward", 0.0)], true),
            (&[("reward", 0.2)], false),
            (&[], true),
        ] {
            assert_eq!(is_failed(&sample(scores)), failed, "{scores:?}");
        }
    }

    #[test]
    fn the_nearest_steps_are_those_on_both_sides() {
        let hint = |step| near(&[10, 20, 30], step);
        assert_eq!(hint(14), "nearest: 10 and 20; 3 steps from 10 to 30 have completions");
        assert_eq!(hint(99), "nearest: 30; 3 steps from 10 to 30 have completions");
        assert_eq!(hint(1), "nearest: 10; 3 steps from 10 to 30 have completions");
    }
}
