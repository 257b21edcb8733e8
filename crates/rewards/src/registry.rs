//! Reward lookup by name.

use crate::error::{Error, Result};
use crate::names::RewardNames;
use crate::{
    Accuracy, Consistency, Cosine, EmbodiedR15, External, Format, Judge, Repetition, Reward,
    SoftOverlong, WaypointDistance,
};

/// What [`build`] needs to construct rewards.
pub struct RewardDependencies {
    /// The judge of `consistency`.
    pub judge: Option<Box<dyn Judge>>,
    /// Parameters of `accuracy`.
    pub accuracy: Accuracy,
    /// The reading of `format`.
    pub format: Format,
    /// Parameters of `soft_overlong`.
    pub soft_overlong: SoftOverlong,
    /// Parameters of `repetition`.
    pub repetition: Repetition,
    /// Parameters of `cosine`.
    pub cosine: Cosine,
    /// The rewards of the `[[reward]]` tables.
    pub external: Vec<External>,
}

/// Builds the rewards called `names`, in that order.
///
/// # Errors
/// [`Error::UnknownReward`], or [`Error::NoJudge`] for `consistency` without a judge.
pub fn build<'a>(
    names: impl IntoIterator<Item = &'a str>,
    mut dependencies: RewardDependencies,
) -> Result<Vec<Box<dyn Reward>>> {
    names
        .into_iter()
        .map(|name| -> Result<Box<dyn Reward>> {
            Ok(match name {
                "accuracy" => Box::new(dependencies.accuracy),
                "format" => Box::new(dependencies.format),
                "consistency" => {
                    Box::new(Consistency::new(dependencies.judge.take().ok_or(Error::NoJudge)?))
                }
                "soft_overlong" => Box::new(dependencies.soft_overlong),
                "repetition" => Box::new(dependencies.repetition),
                "cosine" => Box::new(dependencies.cosine),
                WaypointDistance::NAME => Box::new(WaypointDistance),
                EmbodiedR15::NAME => {
                    Box::new(EmbodiedR15 { pointing: dependencies.accuracy.pointing })
                }
                _ => Box::new(external(name, &mut dependencies.external)?),
            })
        })
        .collect()
}

/// Removes the reward called `name` from `external`.
fn external(name: &str, external: &mut Vec<External>) -> Result<External> {
    match external.iter().position(|reward| reward.name() == name) {
        Some(index) => Ok(external.remove(index)),
        None => {
            let names = RewardNames::new(external.iter().map(Reward::name));
            let known = names.iter().map(str::to_owned).collect();
            Err(Error::UnknownReward { name: name.to_owned(), known })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::external::{ExternalRewardConfig, RewardBackend};
    use crate::{JudgePrompt, Score};

    struct SilentJudge;

    impl Judge for SilentJudge {
        fn reply(&self, prompts: &[JudgePrompt]) -> Result<Vec<Option<String>>> {
            Ok(vec![None; prompts.len()])
        }
    }

    fn dependencies(judge: Option<Box<dyn Judge>>) -> RewardDependencies {
        let style = ExternalRewardConfig::new("style", RewardBackend::Command(vec!["true".into()]));
        RewardDependencies {
            judge,
            accuracy: Accuracy::default(),
            format: Format::default(),
            soft_overlong: SoftOverlong { max_length: 4, cache_length: 2 },
            repetition: Repetition::default(),
            cosine: Cosine::new(4),
            external: vec![External::new(&style).unwrap()],
        }
    }

    #[test]
    fn every_name_builds_the_reward_of_that_name() {
        let names = RewardNames::new(["style"]);
        let rewards = build(names.iter(), dependencies(Some(Box::new(SilentJudge)))).unwrap();
        assert!(rewards.iter().map(|reward| reward.name()).eq(names.iter()));
    }

    #[test]
    fn length_based_rewards_use_their_configured_limits() {
        let rewards = build(["soft_overlong", "cosine"], dependencies(None)).unwrap();
        let input = crate::RewardInput {
            solution: "A",
            completion: "<answer>A</answer>",
            completion_ids: Some(&[7, 7, 7, 7]),
            ..crate::RewardInput::default()
        };
        let value = |reward: &dyn Reward| -> Score { reward.score(&[input]).unwrap().remove(0) };
        assert_eq!(value(rewards[0].as_ref()).value, Some(-1.0));
        assert_eq!(value(rewards[1].as_ref()).value, Some(0.5));
    }

    #[test]
    fn an_unknown_name_is_an_error_that_lists_the_known_ones() {
        let error = build(["look"], dependencies(None)).err().unwrap().to_string();
        assert_eq!(
            error,
            "unknown reward `look`; available: `accuracy`, `format`, `consistency`, \
             `soft_overlong`, `repetition`, `cosine`, `waypoint_distance`, `embodied_r15`, `style`"
        );
    }

    #[test]
    fn consistency_without_a_judge_is_an_error() {
        assert!(matches!(build(["consistency"], dependencies(None)), Err(Error::NoJudge)));
    }
}
