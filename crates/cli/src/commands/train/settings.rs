//! What the settings of all training commands have in common.

use embodied_r_grpo::settings::{GrpoSettings, PromptSettings, RunSettings, SftSettings};
use embodied_r_policy::Trainable;

use crate::settings::Settings;

/// Settings that may change on resume without a warning, in every run. `model` is one of them because its contents are
/// verified by fingerprint.
const MUTABLE_ON_RESUME: [&str; 9] = [
    "image_cache_gb",
    "keep_every_epochs",
    "max_skipped_steps",
    "model",
    "output",
    "report_to",
    "save_steps",
    "save_total_limit",
    "truncation_strategy",
];

/// Settings of a training run.
pub(crate) trait TrainingSettings: Settings {
    /// The command.
    const COMMAND: &'static str;
    /// What the command does, for its progress.
    const PHASE: &'static str;
    /// Settings of this command alone that may change on resume without a warning.
    const MUTABLE_ON_RESUME: &'static [&'static str];

    /// The settings that every run has.
    fn run(&self) -> &RunSettings;

    /// The settings of prompts.
    fn prompt(&self) -> &PromptSettings;

    /// The trainable parameters.
    fn trainable(&self) -> Trainable;
}

impl TrainingSettings for GrpoSettings {
    const COMMAND: &'static str = "train";
    const PHASE: &'static str = "training";
    const MUTABLE_ON_RESUME: &'static [&'static str] = &[
        "eval_steps",
        "greater_is_better",
        "judge_base_url",
        "judge_model",
        "log_completions",
        "log_unweighted_rewards",
        "metric_for_best_model",
    ];

    fn run(&self) -> &RunSettings {
        &self.run
    }

    fn prompt(&self) -> &PromptSettings {
        &self.prompt
    }

    fn trainable(&self) -> Trainable {
        self.trainable()
    }
}

impl TrainingSettings for SftSettings {
    const COMMAND: &'static str = "sft";
    const PHASE: &'static str = "fine-tuning";
    const MUTABLE_ON_RESUME: &'static [&'static str] = &[];

    fn run(&self) -> &RunSettings {
        &self.run
    }

    fn prompt(&self) -> &PromptSettings {
        &self.prompt
    }

    fn trainable(&self) -> Trainable {
        self.trainable()
    }
}

/// The settings that may change on resume without a warning.
pub(super) fn mutable_on_resume<T: TrainingSettings>() -> Vec<&'static str> {
    [MUTABLE_ON_RESUME.as_slice(), T::MUTABLE_ON_RESUME].concat()
}

#[cfg(test)]
mod tests {
    use embodied_r_grpo::settings::names;

    use super::*;
    use crate::commands::train::session::FIXED_ON_RESUME;

    /// Results do not depend on a mutable setting, and the shape of a checkpoint's tensors on a fixed one.
    #[test]
    fn every_mutable_and_fixed_setting_is_one_and_none_is_both() {
        for (known, mutable) in [
            (names::<GrpoSettings>(), mutable_on_resume::<GrpoSettings>()),
            (names::<SftSettings>(), mutable_on_resume::<SftSettings>()),
        ] {
            for name in mutable.iter().chain(&FIXED_ON_RESUME) {
                assert!(known.contains(name), "`{name}` is no setting");
            }
            assert!(mutable.iter().all(|name| !FIXED_ON_RESUME.contains(name)));
        }
    }
}
