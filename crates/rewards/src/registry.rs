//! Rewards by name.

use crate::error::{Error, Result};
use crate::{Accuracy, Consistency, Format, Judge, Reward};

/// The names that a stage may weigh.
pub const NAMES: [&str; 3] = ["accuracy", "format", "consistency"];

/// The rewards called `names`, in that order. `judge` is used up by `consistency` and may be
/// absent where that is not asked for.
///
/// # Errors
/// [`Error::UnknownReward`], or [`Error::NoJudge`] for `consistency` without a judge.
pub fn build<'a>(
    names: impl IntoIterator<Item = &'a str>,
    mut judge: Option<Box<dyn Judge>>,
) -> Result<Vec<Box<dyn Reward>>> {
    names
        .into_iter()
        .map(|name| -> Result<Box<dyn Reward>> {
            match name {
                "accuracy" => Ok(Box::new(Accuracy)),
                "format" => Ok(Box::new(Format)),
                "consistency" => {
                    Ok(Box::new(Consistency::new(judge.take().ok_or(Error::NoJudge)?)))
                }
                _ => Err(Error::UnknownReward { name: name.to_owned() }),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::JudgePrompt;

    struct Mute;

    impl Judge for Mute {
        fn reply(&self, prompts: &[JudgePrompt]) -> Result<Vec<Option<String>>> {
            Ok(vec![None; prompts.len()])
        }
    }

    #[test]
    fn every_name_builds_the_reward_that_bears_it() {
        let rewards = build(NAMES, Some(Box::new(Mute))).unwrap();
        let names: Vec<&str> = rewards.iter().map(|reward| reward.name()).collect();
        assert_eq!(names, NAMES);
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_known_ones() {
        let error = build(["style"], None).err().unwrap().to_string();
        assert_eq!(
            error,
            "there is no reward `style`; known are `accuracy`, `format`, `consistency`"
        );
    }

    #[test]
    fn consistency_without_a_judge_is_refused() {
        assert!(matches!(build(["consistency"], None), Err(Error::NoJudge)));
    }
}
