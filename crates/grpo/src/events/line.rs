//! The progress line of a run.

use embodied_r_data::Progress;

use super::{Event, Metrics, Sink, StageTrigger};
use crate::error::Result;
use crate::non_finite::kept;

/// Shows the progress of a run: metrics of the last step, and the time left.
pub struct ProgressLine<'a> {
    progress: &'a dyn Progress,
    phase: &'static str,
}

impl<'a> ProgressLine<'a> {
    /// A progress line for `phase`, such as `training`.
    pub fn new(progress: &'a dyn Progress, phase: &'static str) -> Self {
        Self { progress, phase }
    }
}

/// Metrics shown for a step: label, metric, digits.
const SHOWN: [(&str, &str, usize); 8] = [
    ("reward", "reward", 3),
    ("accuracy", "rewards/accuracy/mean", 3),
    ("loss", "loss", 4),
    ("kl", "kl", 5),
    ("length", "completions/mean_length", 0),
    ("grad", "grad_norm", 3),
    ("lr", "learning_rate", 9),
    ("tok/s", "tokens_per_second", 0),
];

impl Sink for ProgressLine<'_> {
    fn event(&mut self, event: &Event) -> Result<()> {
        match event {
            Event::Start { steps, done } => {
                self.progress.start(self.phase, Some(*steps));
                self.progress.advance(*done);
            }
            Event::Step { .. } => self.progress.advance(1),
            Event::End { .. } => self.progress.finish(),
            _ => {}
        }
        match (describe(event), event) {
            (Some(words), Event::Skipped { .. } | Event::Warning { .. }) => {
                self.progress.warn(&words);
            }
            (Some(words), _) => self.progress.message(&words),
            (None, _) => {}
        }
        Ok(())
    }
}

/// An event as a line of text for the user; `None` for events not shown.
pub fn describe(event: &Event) -> Option<String> {
    Some(match event {
        Event::Step { metrics, .. } => line(metrics),
        Event::Stage { step, stage, because, weights, blend_steps, .. } => {
            let weights: Vec<_> =
                weights.iter().map(|(name, weight)| format!("{name} {weight}")).collect();
            let because = match because {
                StageTrigger::Until { metric, mean, window, mark } => {
                    format!(", since {metric} is {mean:.3} over {window} steps, {mark}")
                }
                StageTrigger::Start | StageTrigger::Length => String::new(),
            };
            let blend = match blend_steps {
                0 => String::new(),
                steps => format!(", blended over {steps} steps"),
            };
            let weights = weights.join(", ");
            format!("stage {} after step {step}{because}: {weights}{blend}", stage + 1)
        }
        Event::Eval { step, metrics, .. } => {
            let metrics: Vec<_> =
                metrics.iter().map(|(name, value)| format!("{name} {value:.3}")).collect();
            format!("after step {step}: {}", metrics.join("  "))
        }
        Event::Skipped { step, what, kept_iterations, dump } => {
            let kept = kept(*kept_iterations).map(|kept| format!("; {kept}")).unwrap_or_default();
            let iteration = match kept_iterations {
                0 => String::new(),
                kept => format!(" from optimizer step {} on", kept + 1),
            };
            format!(
                "step {step} skipped{iteration}, non-finite: {what}{kept}; batch dumped to `{dump}`"
            )
        }
        Event::PackingVerified { step, gradient, tensor, logp } => format!(
            "step {step}: packed gradients match per-completion gradients within \
             {gradient:.1e} (`{tensor}`), log-probabilities within {logp:.1e}"
        ),
        Event::Warning { message, .. } => message.clone(),
        Event::Start { .. } | Event::Checkpoint { .. } | Event::End { .. } => return None,
    })
}

fn line(metrics: &Metrics) -> String {
    let mut parts: Vec<String> = SHOWN
        .iter()
        .filter_map(|(name, key, digits)| {
            // Rewards are more informative than the loss, which hovers around 0.
            let hidden = *name == "loss" && metrics.contains_key("reward");
            let value = metrics.get(*key).filter(|_| !hidden)?;
            Some(match *name {
                "lr" => format!("lr {value:.2e}"),
                _ => format!("{name} {value:.digits$}"),
            })
        })
        .collect();
    if let Some(&left) = metrics.get("time_left_s") {
        parts.push(format!("left {}", duration(left)));
    }
    parts.join("  ")
}

/// Formats seconds as hours and minutes, or minutes and seconds.
fn duration(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    let (hours, minutes, seconds) = (whole / 3600, whole / 60 % 60, whole % 60);
    if hours > 0 { format!("{hours}h{minutes:02}m") } else { format!("{minutes}m{seconds:02}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_shows_reward_kl_length_speed_and_time_left() {
        let metrics: Metrics = [
            ("loss", 0.0),
            ("reward", 0.51),
            ("kl", 0.0012),
            ("completions/mean_length", 104.6),
            ("tokens_per_second", 1234.0),
            ("time_left_s", 3725.0),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
        assert_eq!(line(&metrics), "reward 0.510  kl 0.00120  length 105  tok/s 1234  left 1h02m");
    }
}
