//! Rewards by name.

use crate::error::{Error, Result};
use crate::{
    Accuracy, Consistency, Cosine, External, Format, Judge, Repetition, Reward, SoftOverlong,
};

/// The names of the rewards that need no `[[reward]]` table.
pub const BUILT_IN: [&str; 6] =
    ["accuracy", "format", "consistency", "soft_overlong", "repetition", "cosine"];

/// The names that the stages of a run may weigh: the built-in ones, then those of its `[[reward]]`
/// tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names(Vec<String>);

impl Names {
    /// The built-in names and `external` ones behind them.
    pub fn new(external: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let built_in = BUILT_IN.map(str::to_owned).into_iter();
        Self(built_in.chain(external.into_iter().map(Into::into)).collect())
    }

    /// Whether a reward is called `name`.
    pub fn contains(&self, name: &str) -> bool {
        self.0.iter().any(|known| known == name)
    }

    /// The names in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

impl Default for Names {
    /// The built-in names alone.
    fn default() -> Self {
        Self::new([""; 0])
    }
}

/// What rewards are made of.
pub struct Parts {
    /// The judge that `consistency` asks.
    pub judge: Option<Box<dyn Judge>>,
    /// The reward `soft_overlong`.
    pub soft_overlong: SoftOverlong,
    /// The reward `repetition`.
    pub repetition: Repetition,
    /// The reward `cosine`.
    pub cosine: Cosine,
    /// The rewards of the `[[reward]]` tables.
    pub external: Vec<External>,
}

/// The rewards called `names`, in that order.
///
/// # Errors
/// [`Error::UnknownReward`], or [`Error::NoJudge`] for `consistency` without a judge.
pub fn build<'a>(
    names: impl IntoIterator<Item = &'a str>,
    mut parts: Parts,
) -> Result<Vec<Box<dyn Reward>>> {
    names
        .into_iter()
        .map(|name| -> Result<Box<dyn Reward>> {
            Ok(match name {
                "accuracy" => Box::new(Accuracy),
                "format" => Box::new(Format),
                "consistency" => {
                    Box::new(Consistency::new(parts.judge.take().ok_or(Error::NoJudge)?))
                }
                "soft_overlong" => Box::new(parts.soft_overlong),
                "repetition" => Box::new(parts.repetition),
                "cosine" => Box::new(parts.cosine),
                _ => Box::new(external(name, &mut parts.external)?),
            })
        })
        .collect()
}

/// Takes the reward called `name` out of `external`.
fn external(name: &str, external: &mut Vec<External>) -> Result<External> {
    match external.iter().position(|reward| reward.name() == name) {
        Some(index) => Ok(external.remove(index)),
        None => {
            let names = Names::new(external.iter().map(Reward::name));
            let known = names.iter().map(str::to_owned).collect();
            Err(Error::UnknownReward { name: name.to_owned(), known })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::external::{ExternalReward, Source};
    use crate::{JudgePrompt, Score};

    struct Mute;

    impl Judge for Mute {
        fn reply(&self, prompts: &[JudgePrompt]) -> Result<Vec<Option<String>>> {
            Ok(vec![None; prompts.len()])
        }
    }

    fn parts(judge: Option<Box<dyn Judge>>) -> Parts {
        let style = ExternalReward::new("style", Source::Command(vec!["true".into()]));
        Parts {
            judge,
            soft_overlong: SoftOverlong { max_length: 4, cache_length: 2 },
            repetition: Repetition::default(),
            cosine: Cosine::new(4),
            external: vec![External::new(&style).unwrap()],
        }
    }

    #[test]
    fn every_name_builds_the_reward_that_bears_it() {
        let names = Names::new(["style"]);
        let rewards = build(names.iter(), parts(Some(Box::new(Mute)))).unwrap();
        assert!(rewards.iter().map(|reward| reward.name()).eq(names.iter()));
    }

    #[test]
    fn rewards_by_length_take_the_lengths_that_they_are_given() {
        let rewards = build(["soft_overlong", "cosine"], parts(None)).unwrap();
        let scored = crate::Scored {
            solution: "A",
            completion: "<answer>A</answer>",
            completion_ids: Some(&[7, 7, 7, 7]),
            ..crate::Scored::default()
        };
        let value = |reward: &dyn Reward| -> Score { reward.score(&[scored]).unwrap().remove(0) };
        assert_eq!(value(rewards[0].as_ref()).value, Some(-1.0));
        assert_eq!(value(rewards[1].as_ref()).value, Some(0.5));
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_known_ones() {
        let error = build(["look"], parts(None)).err().unwrap().to_string();
        assert_eq!(
            error,
            "there is no reward `look`; known are `accuracy`, `format`, `consistency`, \
             `soft_overlong`, `repetition`, `cosine`, `style`"
        );
    }

    #[test]
    fn consistency_without_a_judge_is_refused() {
        assert!(matches!(build(["consistency"], parts(None)), Err(Error::NoJudge)));
    }
}
