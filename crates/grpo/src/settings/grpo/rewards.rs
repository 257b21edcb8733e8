//! Reward and stage settings of a GRPO run.

use embodied_r_rewards::stages::{Stage, StageLength};
use embodied_r_rewards::{
    Accuracy, Cosine, ExternalRewardConfig, Repetition, RewardNames, RewardSchedule as Stages,
    SoftOverlong, external,
};

use super::GrpoSettings;
use crate::events::{COLUMNS, DRAWN, WHY};
use crate::settings::faults::{Fault, Faults};

impl GrpoSettings {
    /// Validates the rewards, their settings and the stages.
    pub(super) fn reward_faults(&self, faults: &mut Faults) {
        let external = ExternalRewardConfig::validation_errors(&self.rewards.reward);
        let placed = |fault: &String| placed(fault).map(|(place, what)| Fault::new(place, what));
        faults.0.extend(external.iter().filter_map(placed));
        self.column_faults(faults);
        match self.stages() {
            Ok(stages) => self.stage_faults(&stages, faults),
            Err(stages) => faults.0.extend(stages),
        }
        let cache = self.rewards.soft_cache_length.unwrap_or(0);
        let longest = self.soft_overlong().max_length;
        faults.unless(cache <= longest, "soft_cache_length", || {
            format!("is {cache}, more than the maximum completion length of {longest} tokens")
        });
        self.rewards.add_faults(faults);
    }

    /// An external reward is a column of the saved completions.
    fn column_faults(&self, faults: &mut Faults) {
        for (index, reward) in self.rewards.reward.iter().enumerate() {
            let name = reward.name.as_str();
            let free = !COLUMNS.contains(&name) && name != DRAWN && !name.ends_with(WHY);
            faults.unless(free, &format!("reward[{index}].name"), || {
                format!("`{name}` is a reserved column of the saved completions; choose another")
            });
        }
    }

    /// Validates stages that are well formed.
    fn stage_faults(&self, stages: &Stages, faults: &mut Faults) {
        let stages = stages.stages();
        for (index, reward) in self.rewards.reward.iter().enumerate() {
            let weighed = stages.iter().any(|stage| stage.weights.contains_key(&reward.name));
            faults.unless(weighed, &format!("reward[{index}]"), || {
                format!("`{}` has no weight in any stage; give it one or remove it", reward.name)
            });
        }
        let overlong = stages.iter().any(|stage| self.computes("soft_overlong", stage));
        faults.unless(
            !overlong || self.rewards.soft_cache_length.is_some(),
            "soft_cache_length",
            || {
                "is required by the reward `soft_overlong`: tokens over which the penalty grows"
                    .into()
            },
        );
        for (index, stage) in stages.iter().enumerate() {
            let waits = stage.until.as_ref().is_some_and(|until| until.metric == "kl");
            let known = !waits || self.loss.beta > 0.0;
            faults.unless(known, &format!("stage[{index}].until.metric"), || {
                "is `kl`, which `beta = 0` does not compute".into()
            });
        }
    }

    /// The names of all rewards, built-in and external.
    pub fn reward_names(&self) -> RewardNames {
        external::names(&self.rewards.reward)
    }

    /// Whether a run over `stage` computes the reward `name`: it has a weight, or only a weight of 0 with
    /// `log_unweighted_rewards`.
    pub fn computes(&self, name: &str, stage: &Stage) -> bool {
        let is_logged = self.rewards.log_unweighted_rewards && stage.weights.contains_key(name);
        is_logged || stage.weight(name) > 0.0
    }

    /// The reward `soft_overlong`.
    pub fn soft_overlong(&self) -> SoftOverlong {
        SoftOverlong {
            max_length: self.rewards.soft_max_length.unwrap_or(self.loss.max_completion_length),
            cache_length: self.rewards.soft_cache_length.unwrap_or(0),
        }
    }

    /// The reward `repetition`.
    pub fn repetition(&self) -> Repetition {
        Repetition {
            n_grams: self.rewards.repetition_n_grams,
            max_penalty: self.rewards.repetition_max_penalty,
        }
    }

    /// The reward `accuracy`.
    pub fn accuracy(&self) -> Accuracy {
        Accuracy { pointing: self.rewards.pointing() }
    }

    /// The reward `cosine`.
    pub fn cosine(&self) -> Cosine {
        Cosine {
            min_len_value_wrong: self.rewards.cosine_min_len_value_wrong,
            max_len_value_wrong: self.rewards.cosine_max_len_value_wrong,
            min_len_value_correct: self.rewards.cosine_min_len_value_correct,
            max_len_value_correct: self.rewards.cosine_max_len_value_correct,
            max_len: self.rewards.cosine_max_len.unwrap_or(self.loss.max_completion_length),
            accuracy: self.accuracy(),
        }
    }

    /// The stages of the run: the given ones, a single one with the given weights, or else the paper's three.
    ///
    /// # Errors
    /// Stages combined with weights or epochs, and every fault of the stages themselves.
    pub fn stages(&self) -> Result<Stages, Vec<Fault>> {
        let names = self.reward_names();
        if self.stages.stage.is_empty() && self.stages.reward_weights.is_empty() {
            return match self.stages.num_train_epochs {
                None => Ok(Stages::default()),
                Some(_) => Err(vec![Fault::new(
                    "num_train_epochs",
                    "needs `reward_weights`; the default stages set their own lengths",
                )]),
            };
        }
        if self.stages.stage.is_empty() {
            let length = StageLength::Epochs(self.stages.num_train_epochs.unwrap_or(1.0));
            let whole = Stage::new(length, self.stages.reward_weights.clone());
            return checked(vec![whole], &names, "reward_weights");
        }
        let mut faults = Vec::new();
        if !self.stages.reward_weights.is_empty() {
            faults.push(Fault::new(
                "reward_weights",
                "conflicts with `[[stage]]`, which sets its own weights; keep one of them",
            ));
        }
        if self.stages.num_train_epochs.is_some() {
            faults.push(Fault::new(
                "num_train_epochs",
                "conflicts with `[[stage]]`, which sets its own length; keep one of them",
            ));
        }
        let stages = checked(self.stages.stage.clone(), &names, "stage");
        match stages {
            Ok(stages) if faults.is_empty() => Ok(stages),
            Ok(_) => Err(faults),
            Err(more) => Err(faults.into_iter().chain(more).collect()),
        }
    }
}

/// Splits a fault into the setting it names and the message.
fn placed(fault: &str) -> Option<(&str, &str)> {
    fault.strip_prefix('`')?.split_once("`: ")
}

/// Validates `stages`; faults name what the user wrote, `[[stage]]` or a single set of weights.
fn checked(stages: Vec<Stage>, names: &RewardNames, key: &str) -> Result<Stages, Vec<Fault>> {
    let named = |fault: String| match placed(&fault) {
        Some((place, what)) if key == "reward_weights" => {
            let place = place.replace("stage[0].weights", key);
            Fault::new(place.replace("stage[0].epochs", "num_train_epochs"), what)
        }
        Some((place, what)) => Fault::new(place, what),
        None => Fault::new(key, fault),
    };
    Stages::new(stages, names).map_err(|faults| faults.0.into_iter().map(named).collect())
}

#[cfg(test)]
mod tests {
    use embodied_r_rewards::external::RewardBackend;
    use embodied_r_rewards::stages::{ExitCondition, Threshold};

    use super::*;
    use crate::settings::grpo::tests::faults;

    fn external(name: &str) -> ExternalRewardConfig {
        ExternalRewardConfig::new(name, RewardBackend::Command(vec!["true".into()]))
    }

    fn weights(list: &[(&str, f64)]) -> std::collections::BTreeMap<String, f64> {
        list.iter().map(|(name, weight)| ((*name).to_owned(), *weight)).collect()
    }

    #[test]
    fn reward_weights_and_stages_are_mutually_exclusive() {
        let found = faults(|train| {
            train.stages.stage = Stages::default().stages().to_vec();
            train.stages.reward_weights.insert("accuracy".into(), 1.0);
        });
        assert!(found[0].contains("conflicts with `[[stage]]`"), "{found:?}");
    }

    #[test]
    fn weights_alone_make_one_stage_of_the_given_epochs() {
        let train = GrpoSettings::default().with(|s| {
            s.stages.reward_weights = [("accuracy".to_owned(), 1.0)].into();
            s.stages.num_train_epochs = Some(3.0);
        });
        let stages = train.stages().unwrap();
        assert_eq!(
            (stages.stages().len(), stages.stages()[0].length),
            (1, StageLength::Epochs(3.0))
        );
    }

    #[test]
    fn a_fault_of_reward_weights_names_the_setting_the_user_wrote() {
        let found = faults(|train| {
            train.stages.reward_weights = [("acuracy".to_owned(), 1.0)].into();
        });
        assert!(found[0].starts_with("`reward_weights.acuracy`"), "{found:?}");
    }

    #[test]
    fn an_external_reward_may_be_weighted_by_its_name() {
        let found = faults(|train| {
            train.rewards.reward = vec![external("style")];
            train.stages.reward_weights = weights(&[("accuracy", 1.0), ("style", 0.5)]);
        });
        assert_eq!(found, [""; 0]);
    }

    #[test]
    fn a_weight_without_a_reward_suggests_the_nearest_name() {
        let found = faults(|train| {
            train.rewards.reward = vec![external("style")];
            train.stages.reward_weights = weights(&[("style", 1.0), ("stile", 0.5)]);
        });
        assert_eq!(found, ["`reward_weights.stile`: unknown reward; did you mean `style`?"]);
    }

    #[test]
    fn ambiguous_and_unused_external_rewards_are_refused() {
        let found = faults(|train| {
            train.rewards.reward = ["reward", "format", "style_why", "idle"].map(external).to_vec();
        });
        assert_eq!(
            found[..3],
            [
                "`reward[1].name`: `format` is a built-in reward; choose another name",
                "`reward[0].name`: `reward` is a reserved column of the saved completions; choose another",
                "`reward[2].name`: `style_why` is a reserved column of the saved completions; choose another",
            ]
        );
        assert_eq!(
            found.last().unwrap(),
            "`reward[3]`: `idle` has no weight in any stage; give it one or remove it"
        );
    }

    #[test]
    fn soft_overlong_needs_its_cache_and_defaults_to_max_completion_length() {
        let weighed = |train: &mut GrpoSettings| {
            train.stages.reward_weights = weights(&[("accuracy", 1.0), ("soft_overlong", 1.0)]);
        };
        assert_eq!(
            faults(weighed),
            [
                "`soft_cache_length`: is required by the reward `soft_overlong`: tokens over which the \
              penalty grows"
            ]
        );
        let too_long = faults(|train| {
            weighed(train);
            train.rewards.soft_cache_length = Some(4096);
        });
        assert_eq!(
            too_long,
            [
                "`soft_cache_length`: is 4096, more than the maximum completion length of 2048 tokens"
            ]
        );
        let train = GrpoSettings::default().with(|s| s.rewards.soft_cache_length = Some(64));
        assert_eq!(train.soft_overlong(), SoftOverlong { max_length: 2048, cache_length: 64 });
    }

    #[test]
    fn reward_settings_out_of_range_are_all_reported() {
        let found = faults(|train| {
            train.rewards.repetition_n_grams = 0;
            train.rewards.repetition_max_penalty = 0.5;
            train.rewards.cosine_max_len = Some(0);
            train.rewards.cosine_max_len_value_wrong = f64::NAN;
            train.rollout.dynamic_sample = true;
            train.rollout.max_resample_times = 0;
        });
        assert_eq!(
            found,
            [
                "`cosine_max_len`: must be at least 1, not 0",
                "`repetition_n_grams`: must be at least 1, not 0",
                "`repetition_max_penalty`: must be 0 or less, not 0.5",
                "`cosine_max_len_value_wrong`: must be finite, not NaN",
                "`max_resample_times`: must be at least 1, not 0",
            ]
        );
    }

    #[test]
    fn a_stage_cannot_wait_for_a_kl_that_is_not_computed() {
        let waits = |beta: f64| {
            faults(|train| {
                train.loss.beta = beta;
                train.stages.stage = Stages::default().stages().to_vec();
                let threshold = Threshold::Above(0.1);
                train.stages.stage[0].until =
                    Some(ExitCondition { metric: "kl".into(), threshold, window: 1 });
            })
        };
        assert_eq!(waits(0.1), [""; 0]);
        assert_eq!(
            waits(0.0),
            ["`stage[0].until.metric`: is `kl`, which `beta = 0` does not compute"]
        );
    }
}
