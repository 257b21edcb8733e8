//! Checks that the `accuracy` reward can score the questions of a run.

use embodied_r_rewards::{AnswerType, RewardSchedule as Stages};

use crate::data::questions::TokenizedQuestion;
use crate::error::{Error, Result};
use crate::settings::GrpoSettings;

/// How many questions an error names.
const NAMED: usize = 3;

/// Checks that all `questions` have an answer that `accuracy` can score, if a run of `settings` over `stages` has a weight
/// for it and `allow_unscored` is not set.
///
/// # Errors
/// [`Error::Unscored`] with the number of the others and the first of them.
pub(crate) fn check_scored(
    settings: &GrpoSettings,
    stages: &Stages,
    questions: &[TokenizedQuestion],
) -> Result<()> {
    let is_used = stages.stages().iter().any(|stage| settings.computes("accuracy", stage));
    if settings.rewards.allow_unscored || !is_used {
        return Ok(());
    }
    let unscored: Vec<&TokenizedQuestion> = questions
        .iter()
        .filter(|it| AnswerType::of_question(&it.question.extra, &it.question.solution()).is_none())
        .collect();
    if unscored.is_empty() {
        return Ok(());
    }
    let named = unscored.iter().take(NAMED).map(|it| {
        let answer: String = it.question.answer.chars().take(40).collect();
        format!("`{}` (`{answer}`)", it.question.id())
    });
    Err(Error::Unscored {
        count: unscored.len(),
        total: questions.len(),
        examples: named.collect::<Vec<_>>().join(", "),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::questions::tests::with_answers;

    fn check(change: impl FnOnce(&mut GrpoSettings)) -> Option<String> {
        let answers = ["A", "12,000", "yes", r"\frac{a}{b}", "to the left of it", "b c", "x y"];
        let questions = with_answers(&answers);
        let settings = GrpoSettings::default().with(|s| {
            s.stages.reward_weights = [("accuracy".to_owned(), 1.0)].into_iter().collect();
            change(s);
        });
        let checked = check_scored(&settings, &settings.stages().unwrap(), &questions);
        checked.err().map(|error| error.to_string())
    }

    #[test]
    fn answers_that_no_reward_scores_are_named_unless_they_are_allowed() {
        let error = check(|_| ()).unwrap();
        assert_eq!(
            error,
            "`accuracy` cannot score the answers of 4 of 7 questions, such as `3` (`\\frac{a}{b}`), `4` (`to the left of it`), \
             `5` (`b c`): they are neither option letters nor numbers; give the questions an `answer_type`, such as `text`, or \
             set `allow_unscored = true`"
        );
        assert_eq!(check(|s| s.rewards.allow_unscored = true), None);
        let other = [("format".to_owned(), 1.0)];
        assert_eq!(check(|s| s.stages.reward_weights = other.into_iter().collect()), None);
    }
}
