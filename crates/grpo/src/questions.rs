//! Questions as tokenized prompts.

use embodied_r_data::{Question, prompts};

use crate::error::{Error, Result};
use crate::model::{ChatTokenizer, chat_prompt};

/// A question with its tokenized prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenizedQuestion {
    /// The question's record.
    pub question: Question,
    /// Token ids of the chat, up to the generation prompt.
    pub prompt: Vec<u32>,
}

/// Questions within the length limit, and the number of those beyond it.
#[derive(Debug, Clone, PartialEq)]
pub struct Prompts {
    /// The questions that fit.
    pub questions: Vec<TokenizedQuestion>,
    /// The number of questions skipped because their prompts are too long.
    pub too_long: usize,
}

/// Tokenizes every question as a prompt; prompts of more than `max_tokens` are skipped and counted.
///
/// # Errors
/// A question has no answer, or the tokenizer or the chat template fails.
pub fn prompts(
    questions: Vec<Question>,
    text: &dyn ChatTokenizer,
    system: Option<&str>,
    max_tokens: usize,
) -> Result<Prompts> {
    let system = system.unwrap_or_else(|| prompts::system_prompt());
    let mut out = Prompts { questions: Vec::with_capacity(questions.len()), too_long: 0 };
    for question in questions {
        if question.answer.trim().is_empty() {
            let what = "has no `answer`; training and evaluation need one".into();
            return Err(Error::Question { id: question.id(), what });
        }
        let prompt = chat_prompt(text, system, &question.question)?;
        if prompt.len() > max_tokens {
            out.too_long += 1;
        } else {
            out.questions.push(TokenizedQuestion { question, prompt });
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tests::toy::Words;

    fn question(text: &str, answer: &str) -> Question {
        let record = serde_json::json!({"Question_id": 7, "question": text, "answer": answer});
        serde_json::from_value(record).unwrap()
    }

    #[test]
    fn a_prompt_is_the_chat_up_to_the_generation_prompt() {
        let found = prompts(vec![question("x x", "A")], &Words::new(), None, 100).unwrap();
        assert_eq!(found.questions[0].prompt, [5, 5, 4]);
    }

    #[test]
    fn questions_over_the_length_limit_are_skipped_and_counted() {
        let questions = vec![question("x x x", "A"), question("x", "B")];
        let found = prompts(questions, &Words::new(), None, 3).unwrap();
        assert_eq!((found.questions.len(), found.too_long), (1, 1));
        assert_eq!(found.questions[0].question.answer, "B");
    }

    #[test]
    fn a_question_without_an_answer_is_named() {
        let error = prompts(vec![question("x", " ")], &Words::new(), None, 9).unwrap_err();
        assert_eq!(
            error.to_string(),
            "question `7` has no `answer`; training and evaluation need one"
        );
    }
}
