//! The consistency judge's own accuracy.

use std::path::Path;
use std::sync::Arc;

use embodied_r_data::prompts::{judge_system_prompt, judge_user_prompt, question_part};
use embodied_r_data::question::{Question, read_questions};
use embodied_r_dist::ProcessGroup;
use embodied_r_files::write_atomic;
use embodied_r_grpo::rewards::judge::{ReferenceJudge, ReferenceModel};
use embodied_r_policy::Policy;
use embodied_r_policy::tokenizer::Tokenizer;
use embodied_r_rewards::answer::option_letter;
use embodied_r_rewards::{Judge, JudgePrompt};
use embodied_r_sim::rationale_in_prompt;
use embodied_r_sim::views::perceived;
use serde_json::json;

use super::steps::Steps;

/// How often the judge finds the right answer of a question in a rationale, per cent.
struct Approval {
    /// The question's own rationale, which leads to it: should be 100.
    of_true: f64,
    /// The same rationale with another option as its conclusion: should be 0.
    of_mismatched: f64,
}

/// Measures `model` as the judge, writes `judge.json` and prints a line.
pub(super) fn measure(steps: &Steps, model: &str, questions: &Path) -> anyhow::Result<()> {
    let dir = steps.path(model);
    let tokenizer = Arc::new(Tokenizer::from_dir(&dir)?);
    let reference = Arc::new(ReferenceModel::new(Policy::load(&dir)?));
    let judge = ReferenceJudge::new(reference, tokenizer, ProcessGroup::default());
    let Approval { of_true, of_mismatched } = approval(&judge, &read_questions(questions)?)?;
    let record = json!({"approves_true": of_true, "approves_mismatched": of_mismatched});
    write_atomic(&steps.path("judge.json"), format!("{record}\n").as_bytes())?;
    steps.say(&format!(
        "\nthe judge approves {of_true:.1} % of true rationales and {of_mismatched:.1} % of mismatched ones"
    ))
}

fn approval(judge: &dyn Judge, questions: &[Question]) -> anyhow::Result<Approval> {
    let reasoned: Vec<(&Question, String)> = questions
        .iter()
        .filter_map(|question| Some((question, rationale_in_prompt(perceived(question))?.think())))
        .collect();
    let own = reasoned.iter().map(|(question, think)| (*question, think.as_str())).collect();
    let mismatched: Vec<(&Question, String)> = reasoned
        .iter()
        .filter_map(|(question, think)| Some((*question, with_other_conclusion(question, think)?)))
        .collect();
    let mismatched = mismatched.iter().map(|(question, think)| (*question, think.as_str()));
    Ok(Approval {
        of_true: approved(judge, own)?,
        of_mismatched: approved(judge, mismatched.collect())?,
    })
}

/// `think` with the option after the right one as its conclusion.
fn with_other_conclusion(question: &Question, think: &str) -> Option<String> {
    let options: Vec<(&str, &str)> = question_part(&question.question)
        .lines()
        .filter_map(|line| line.split_once(". ").filter(|(letter, _)| letter.len() == 1))
        .collect();
    let (grounds, conclusion) = think.rsplit_once("so ")?;
    let is_right = |(letter, content): &(&str, &str)| conclusion == format!("{content} {letter}.");
    let right = options.iter().position(is_right)?;
    let (letter, content) = options[(right + 1) % options.len()];
    Some(format!("{grounds}so {content} {letter}."))
}

/// The share of questions for which the judge reads the right answer in the rationale beside them.
fn approved(judge: &dyn Judge, rationales: Vec<(&Question, &str)>) -> anyhow::Result<f64> {
    let prompts: Vec<JudgePrompt> = rationales
        .iter()
        .map(|(question, think)| JudgePrompt {
            system: judge_system_prompt().to_owned(),
            user: judge_user_prompt(&question.question, think),
        })
        .collect();
    let replies = judge.reply(&prompts)?;
    let right = replies.iter().zip(&rationales).filter(|(reply, (question, _))| {
        let letter = reply.as_deref().and_then(option_letter);
        letter.is_some() && letter == option_letter(&question.answer)
    });
    Ok(100.0 * right.count() as f64 / rationales.len().max(1) as f64)
}

#[cfg(test)]
mod tests {
    use embodied_r_rewards::Result;

    use super::*;

    /// Reads the letter that the reasoning ends with.
    struct Reader;

    impl Judge for Reader {
        fn reply(&self, prompts: &[JudgePrompt]) -> Result<Vec<Option<String>>> {
            let read = |prompt: &JudgePrompt| {
                let (_, end) = prompt.user.rsplit_once("so ")?;
                let (_, letter) = end.split_once('.')?.0.rsplit_once(' ')?;
                Some(letter.to_owned())
            };
            Ok(prompts.iter().map(read).collect())
        }
    }

    /// Approves everything, as a judge that has learned the answers does.
    struct Flatterer;

    impl Judge for Flatterer {
        fn reply(&self, prompts: &[JudgePrompt]) -> Result<Vec<Option<String>>> {
            Ok(prompts.iter().map(|_| Some("B".to_owned())).collect())
        }
    }

    fn question() -> Question {
        let question = "<\nFrame 0: Observe: lamp left 10, 3 m\n\
            Frame 1: After rotate left 90, Observe: nothing\n>\n\
            Question: When you reach the current location, where is the lamp relative to you?\n\n\
            Choices:\nA. left\nB. right\nC. ahead\nD. behind";
        serde_json::from_value(json!({"Question_id": 1, "question": question, "answer": "B"}))
            .unwrap()
    }

    #[test]
    fn a_judge_that_reads_approves_true_rationales_alone() {
        let found = approval(&Reader, &[question()]).unwrap();
        assert_eq!((found.of_true, found.of_mismatched), (100.0, 0.0));
    }

    #[test]
    fn a_judge_that_approves_everything_is_seen() {
        let found = approval(&Flatterer, &[question()]).unwrap();
        assert_eq!((found.of_true, found.of_mismatched), (100.0, 100.0));
    }
}
