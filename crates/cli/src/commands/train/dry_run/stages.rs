//! A run's stages and rewards, in words.

use embodied_r_grpo::Result;
use embodied_r_grpo::plan::{Plan, Span};
use embodied_r_grpo::settings::Train;
use embodied_r_rewards::External;
use embodied_r_rewards::external::Source;
use embodied_r_rewards::stages::Length;

/// A line a stage: name and text.
pub(super) fn lines(plan: &Plan) -> Vec<(String, String)> {
    let mut early = false;
    let last = plan.spans.len().saturating_sub(1);
    let mut lines = Vec::with_capacity(plan.spans.len());
    for (index, span) in plan.spans.iter().enumerate() {
        let begin_early = early;
        early |= span.stage.until.is_some();
        let end_early = early && index < last;
        lines.push((format!("stage {}", index + 1), words(index, span, [begin_early, end_early])));
    }
    lines
}

/// A stage in words; `early` says whether its begin and its end may come earlier.
fn words(index: usize, span: &Span, early: [bool; 2]) -> String {
    let stage = &span.stage;
    let weights = stage.weights.iter().filter(|(_, weight)| **weight > 0.0);
    let weights: Vec<String> = weights.map(|(name, weight)| format!("{name} {weight}")).collect();
    let [begin, end] = early.map(|early| if early { " or earlier" } else { "" });
    let length = match stage.length {
        Length::Epochs(epochs) => format!(", {epochs} epochs"),
        Length::Steps(_) => String::new(),
    };
    let (first, last) = (span.first + 1, span.end);
    let mut text = format!("steps {first}{begin} to {last}{end}{length}: {}", weights.join(", "));
    if let Some(until) = &stage.until {
        text.push_str(&format!(
            "; ends once the mean of {} over {} steps is {}",
            until.metric, until.window, until.mark
        ));
    }
    if index == 0 {
        return text;
    }
    if stage.blend_steps > 0 {
        text.push_str(&format!("; weights go over in {} steps", stage.blend_steps));
    }
    if stage.restart_schedule {
        text.push_str("; learning rate and moments begin anew");
    }
    if stage.reset_reference {
        text.push_str("; the policy becomes the reference");
    }
    text
}

/// Lines about rewards from outside, and about groups that are sampled again.
///
/// # Errors
/// A reward names no program or address.
pub(super) fn reward_lines(settings: &Train) -> Result<Vec<(&'static str, String)>> {
    let mut lines = Vec::new();
    for reward in &settings.reward {
        External::new(reward)?;
        let by = match &reward.source {
            Source::Command(words) => format!("by `{}`", words.join(" ")),
            // What stands behind a question mark may be a secret.
            Source::Url(url) => format!("by {}", url.split('?').next().unwrap_or_default()),
        };
        let batch = match reward.batch_size {
            Some(size) => format!("{size} completions at a time"),
            None => "all completions of a step at a time".to_owned(),
        };
        lines.push(("reward", format!("{} {by}, {batch}, {} s", reward.name, reward.timeout_s)));
    }
    if settings.dynamic_sample {
        lines.push((
            "resampling",
            format!(
                "groups whose rewards are all equal, up to {} times a step",
                settings.max_resample_times
            ),
        ));
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use embodied_r_rewards::stages::{Mark, Until};
    use embodied_r_rewards::{ExternalReward, Names, Schedule, Stage};

    use super::*;

    #[test]
    fn what_may_come_earlier_and_how_a_stage_begins_is_told() {
        let mut stages: Vec<Stage> = Schedule::default().stages().to_vec();
        let metric = "rewards/format/mean".to_owned();
        stages[0].until = Some(Until { metric, mark: Mark::Above(0.95), window: 50 });
        stages[1].length = Length::Steps(300);
        stages[1].blend_steps = 10;
        stages[2].restart_schedule = true;
        stages[2].reset_reference = true;
        let stages = Schedule::new(stages, &Names::default()).unwrap();
        let plan = Plan::new(&Train::default(), &stages, 100).unwrap();
        let lines: Vec<String> = lines(&plan).into_iter().map(|(_, what)| what).collect();
        assert_eq!(
            lines,
            [
                "steps 1 to 200 or earlier, 2 epochs: accuracy 0.3, format 0.7; ends once the mean \
                 of rewards/format/mean over 50 steps is above 0.95",
                "steps 201 or earlier to 500 or earlier: accuracy 0.7, format 0.3; weights go over \
                 in 10 steps",
                "steps 501 or earlier to 1300, 8 epochs: accuracy 0.7, consistency 0.2, format 0.1; \
                 learning rate and moments begin anew; the policy becomes the reference",
            ]
        );
    }

    #[test]
    fn outside_rewards_and_resampling_are_told_without_secrets() {
        let url = "http://127.0.0.1:9/score?key=secret".to_owned();
        let settings = Train {
            dynamic_sample: true,
            reward: vec![
                ExternalReward::new("style", Source::Command(vec!["sh".into(), "-e".into()])),
                ExternalReward {
                    batch_size: Some(8),
                    ..ExternalReward::new("help", Source::Url(url))
                },
            ],
            ..Train::default()
        };
        assert_eq!(
            reward_lines(&settings).unwrap(),
            [
                ("reward", "style by `sh -e`, all completions of a step at a time, 60 s".into()),
                (
                    "reward",
                    "help by http://127.0.0.1:9/score, 8 completions at a time, 60 s".into()
                ),
                (
                    "resampling",
                    "groups whose rewards are all equal, up to 3 times a step".to_owned()
                ),
            ]
        );
    }

    #[test]
    fn a_program_that_is_not_there_is_named_before_the_run() {
        let reward = ExternalReward::new("style", Source::Command(vec!["no-such-program".into()]));
        let settings = Train { reward: vec![reward], ..Train::default() };
        let error = reward_lines(&settings).unwrap_err().to_string();
        assert!(error.contains("`style`") && error.contains("`no-such-program`"), "{error}");
    }
}
