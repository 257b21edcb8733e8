//! A run's stages and rewards as text.

use embodied_r_grpo::Result;
use embodied_r_grpo::schedule::training_plan::{StageSpan, TrainingPlan};
use embodied_r_grpo::settings::GrpoSettings;
use embodied_r_rewards::External;
use embodied_r_rewards::external::RewardBackend;
use embodied_r_rewards::stages::StageLength;

/// One line per stage: name and text.
pub(super) fn lines(plan: &TrainingPlan) -> Vec<(String, String)> {
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

/// A stage as text; `early` says whether its start and its end may come earlier.
fn words(index: usize, span: &StageSpan, early: [bool; 2]) -> String {
    let stage = &span.stage;
    let weights = stage.weights.iter().filter(|(_, weight)| **weight > 0.0);
    let weights: Vec<String> = weights.map(|(name, weight)| format!("{name} {weight}")).collect();
    let [begin, end] = early.map(|early| if early { " or earlier" } else { "" });
    let length = match stage.length {
        StageLength::Epochs(epochs) => format!(", {epochs} epochs"),
        StageLength::Steps(_) => String::new(),
    };
    let (first, last) = (span.first + 1, span.end);
    let mut text = format!("steps {first}{begin} to {last}{end}{length}: {}", weights.join(", "));
    if let Some(until) = &stage.until {
        text.push_str(&format!(
            "; ends once the mean of {} over {} steps is {}",
            until.metric, until.window, until.threshold
        ));
    }
    if index == 0 {
        return text;
    }
    if stage.blend_steps > 0 {
        text.push_str(&format!("; weights blended over {} steps", stage.blend_steps));
    }
    if stage.restart_schedule {
        text.push_str("; learning-rate schedule and optimizer state restart");
    }
    if stage.reset_reference {
        text.push_str("; reference reset to the policy");
    }
    text
}

/// Lines about external rewards and resampling.
///
/// # Errors
/// A reward's program does not exist or its URL is invalid.
pub(super) fn reward_lines(settings: &GrpoSettings) -> Result<Vec<(&'static str, String)>> {
    let mut lines = Vec::new();
    for reward in &settings.rewards.reward {
        External::new(reward)?;
        let by = match &reward.backend {
            RewardBackend::Command(words) => format!("by `{}`", words.join(" ")),
            // A query string may hold a secret.
            RewardBackend::Url(url) => format!("by {}", url.split('?').next().unwrap_or_default()),
        };
        let batch = match reward.batch_size {
            Some(size) => format!("{size} completions per call"),
            None => "all completions of a step per call".to_owned(),
        };
        let timeout_s = reward.timeout_s;
        lines.push(("reward", format!("{} {by}, {batch}, timeout {timeout_s} s", reward.name)));
    }
    if settings.rollout.dynamic_sample {
        lines.push((
            "resampling",
            format!(
                "zero-variance groups, up to {} times per step",
                settings.rollout.max_resample_times
            ),
        ));
    }
    if settings.rollout.filter_groups {
        lines.push(("filtering", "zero-variance groups are left out of the update".into()));
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use embodied_r_rewards::stages::{ExitCondition, Threshold};
    use embodied_r_rewards::{ExternalRewardConfig, RewardNames, RewardSchedule, Stage};

    use super::*;

    #[test]
    fn early_ends_and_the_start_of_a_stage_are_described() {
        let mut stages: Vec<Stage> = RewardSchedule::default().stages().to_vec();
        let metric = "rewards/format/mean".to_owned();
        stages[0].until =
            Some(ExitCondition { metric, threshold: Threshold::Above(0.95), window: 50 });
        stages[1].length = StageLength::Steps(300);
        stages[1].blend_steps = 10;
        stages[2].restart_schedule = true;
        stages[2].reset_reference = true;
        let stages = RewardSchedule::new(stages, &RewardNames::default()).unwrap();
        let plan = TrainingPlan::new(&GrpoSettings::default(), &stages, 100).unwrap();
        let lines: Vec<String> = lines(&plan).into_iter().map(|(_, what)| what).collect();
        assert_eq!(
            lines,
            [
                "steps 1 to 200 or earlier, 2 epochs: accuracy 0.3, format 0.7; ends once the mean \
                 of rewards/format/mean over 50 steps is above 0.95",
                "steps 201 or earlier to 500 or earlier: accuracy 0.7, format 0.3; weights blended \
                 over 10 steps",
                "steps 501 or earlier to 1300, 8 epochs: accuracy 0.7, consistency 0.2, format 0.1; \
                 learning-rate schedule and optimizer state restart; reference reset to the policy",
            ]
        );
    }

    #[test]
    fn external_rewards_and_resampling_are_described_without_secrets() {
        let url = "http://127.0.0.1:9/score?key=secret".to_owned();
        let settings = GrpoSettings::default().with(|s| {
            s.rollout.dynamic_sample = true;
            s.rewards.reward = vec![
                ExternalRewardConfig::new(
                    "style",
                    RewardBackend::Command(vec!["sh".into(), "-e".into()]),
                ),
                ExternalRewardConfig {
                    batch_size: Some(8),
                    ..ExternalRewardConfig::new("help", RewardBackend::Url(url))
                },
            ];
        });
        assert_eq!(
            reward_lines(&settings).unwrap(),
            [
                (
                    "reward",
                    "style by `sh -e`, all completions of a step per call, timeout 60 s".into()
                ),
                (
                    "reward",
                    "help by http://127.0.0.1:9/score, 8 completions per call, timeout 60 s".into()
                ),
                ("resampling", "zero-variance groups, up to 3 times per step".to_owned()),
            ]
        );
    }

    #[test]
    fn a_missing_reward_program_is_named_before_the_run() {
        let reward = ExternalRewardConfig::new(
            "style",
            RewardBackend::Command(vec!["no-such-program".into()]),
        );
        let settings = GrpoSettings::default().with(|s| s.rewards.reward = vec![reward]);
        let error = reward_lines(&settings).unwrap_err().to_string();
        assert!(error.contains("`style`") && error.contains("`no-such-program`"), "{error}");
    }
}
