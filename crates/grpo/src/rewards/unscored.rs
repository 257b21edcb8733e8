//! Checks that the rewards can score the questions of a run.

use embodied_r_rewards::{AnswerType, EmbodiedR15, RewardInput, RewardSchedule as Stages};

use crate::data::questions::TokenizedQuestion;
use crate::error::{Error, Result};
use crate::settings::GrpoSettings;

/// How many questions an error names.
const NAMED: usize = 3;

/// Checks that all `questions` have an answer that `accuracy` and `embodied_r15` can score, if a run of `settings` over `stages` has
/// a weight for the reward and `allow_unscored` is not set.
///
/// # Errors
/// [`Error::Unscored`] with the number of the others and the first of them.
pub(crate) fn check_scored(
    settings: &GrpoSettings,
    stages: &Stages,
    questions: &[TokenizedQuestion],
) -> Result<()> {
    if settings.rewards.allow_unscored {
        return Ok(());
    }
    let is_used = |name| stages.stages().iter().any(|stage| settings.computes(name, stage));
    if is_used("accuracy") {
        let accuracy = settings.accuracy();
        check("accuracy", questions, |input| accuracy.unscored(input))?;
    }
    if is_used(EmbodiedR15::NAME) {
        let embodied_r15 = EmbodiedR15 { pointing: settings.rewards.pointing() };
        check(EmbodiedR15::NAME, questions, |input| embodied_r15.unscored(input))?;
    }
    Ok(())
}

fn check(
    reward: &'static str,
    questions: &[TokenizedQuestion],
    unscored: impl Fn(&RewardInput<'_>) -> Option<String>,
) -> Result<()> {
    let reason = |it: &TokenizedQuestion| {
        let (columns, solution) = (&it.question.extra, it.question.solution());
        unscored(&RewardInput {
            solution: &solution,
            answer_type: AnswerType::of_columns(columns),
            columns: Some(columns),
            ..RewardInput::default()
        })
    };
    let unscored: Vec<_> = questions.iter().filter_map(|it| Some((it, reason(it)?))).collect();
    if unscored.is_empty() {
        return Ok(());
    }
    let named =
        unscored.iter().take(NAMED).map(|(it, why)| format!("`{}` ({why})", it.question.id()));
    let examples = named.collect::<Vec<_>>().join(", ");
    Err(Error::Unscored { reward, count: unscored.len(), total: questions.len(), examples })
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
            "`accuracy` cannot score the answers of 4 of 7 questions, such as \
             `3` (the solution `\\frac{a}{b}` is neither an option letter nor a number), \
             `4` (the solution `to the left of it` is neither an option letter nor a number), \
             `5` (the solution `b c` is neither an option letter nor a number); \
             give the questions an `answer_type`, such as `text`, or set `allow_unscored = true`"
        );
        assert_eq!(check(|s| s.rewards.allow_unscored = true), None);
        let other = [("format".to_owned(), 1.0)];
        assert_eq!(check(|s| s.stages.reward_weights = other.into_iter().collect()), None);
    }
}
