//! Checks that questions have the positions that a reward compares with.

use embodied_r_rewards::answer::read_position;
use embodied_r_rewards::{RewardSchedule as Stages, WaypointDistance};

use crate::data::questions::TokenizedQuestion;
use crate::error::{Error, Result};
use crate::settings::GrpoSettings;

/// Checks that the answers of all `questions` are positions if a run of `settings` over `stages` computes the distance
/// to them.
///
/// # Errors
/// [`Error::Question`] with the first one whose answer is none.
pub(crate) fn check_positions(
    settings: &GrpoSettings,
    stages: &Stages,
    questions: &[TokenizedQuestion],
) -> Result<()> {
    const NAME: &str = WaypointDistance::NAME;
    if !stages.stages().iter().any(|stage| settings.computes(NAME, stage)) {
        return Ok(());
    }
    let is_none = |answer: &str| read_position(answer).is_err();
    let has_none =
        |one: &&TokenizedQuestion| one.question.accepted_answers().into_iter().any(is_none);
    match questions.iter().find(has_none) {
        None => Ok(()),
        Some(TokenizedQuestion { question, .. }) => {
            let answer: String = question.answer.chars().take(80).collect();
            let what = format!(
                "has the `answer` `{answer}`, which is no position `[x, y, z]`; the reward `{NAME}` needs one"
            );
            Err(Error::Question { id: question.id(), what })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::questions::tests::with_answers;

    fn check(answers: &[&str], weights: &[(&str, f64)], logged: bool) -> Option<String> {
        let questions = with_answers(answers);
        let settings = GrpoSettings::default().with(|s| {
            let weights = weights.iter().map(|(name, weight)| ((*name).to_owned(), *weight));
            s.stages.reward_weights = weights.collect();
            s.rewards.log_unweighted_rewards = logged;
        });
        let checked = check_positions(&settings, &settings.stages().unwrap(), &questions);
        checked.err().map(|error| error.to_string())
    }

    #[test]
    fn an_answer_that_is_no_position_is_named_if_the_reward_has_weight() {
        let answers = ["[0.1, 0.2, 0.3]", "[0.1, 0.2]", "A"];
        assert_eq!(
            check(&answers, &[("accuracy", 1.0), ("waypoint_distance", 0.5)], false).unwrap(),
            "question `1` has the `answer` `[0.1, 0.2]`, which is no position `[x, y, z]`; the reward \
             `waypoint_distance` needs one"
        );
        assert_eq!(check(&answers[..1], &[("waypoint_distance", 1.0)], false), None);
    }

    #[test]
    fn without_the_reward_answers_are_of_any_kind() {
        let unweighted = [("accuracy", 1.0), ("waypoint_distance", 0.0)];
        assert_eq!(check(&["A"], &unweighted, false), None);
        assert!(check(&["A"], &unweighted, true).is_some(), "it is logged");
    }
}
