//! Questions as prompts of the model.

use embodied_r_data::{Question, prompts};

use crate::error::{Error, Result};
use crate::model::{Text, chat_prompt};

/// A question and the tokens that put it to the model.
#[derive(Debug, Clone, PartialEq)]
pub struct Prompted {
    /// The record.
    pub question: Question,
    /// The chat up to where the assistant begins.
    pub prompt: Vec<u32>,
}

/// The questions that can be asked, and how many cannot.
#[derive(Debug, Clone, PartialEq)]
pub struct Prompts {
    /// Those that fit.
    pub prompted: Vec<Prompted>,
    /// How many have longer prompts than allowed.
    pub too_long: usize,
}

/// Writes every question as a prompt; those of more than `max_tokens` are left out and counted.
///
/// # Errors
/// A question has no answer, or the tokenizer or the chat template fails.
pub fn prompts(
    questions: Vec<Question>,
    text: &dyn Text,
    system: Option<&str>,
    max_tokens: usize,
) -> Result<Prompts> {
    let system = system.unwrap_or_else(|| prompts::system_prompt());
    let mut out = Prompts { prompted: Vec::with_capacity(questions.len()), too_long: 0 };
    for question in questions {
        if question.answer.trim().is_empty() {
            let what = "has no `answer`; training and evaluation need one".into();
            return Err(Error::Question { id: question.id(), what });
        }
        let prompt = chat_prompt(text, system, &question.question)?;
        if prompt.len() > max_tokens {
            out.too_long += 1;
        } else {
            out.prompted.push(Prompted { question, prompt });
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::toy::Words;

    fn question(text: &str, answer: &str) -> Question {
        let record = serde_json::json!({"Question_id": 7, "question": text, "answer": answer});
        serde_json::from_value(record).unwrap()
    }

    #[test]
    fn a_prompt_is_the_chat_up_to_where_the_assistant_begins() {
        let found = prompts(vec![question("x x", "A")], &Words::new(), None, 100).unwrap();
        assert_eq!(found.prompted[0].prompt, [5, 5, 4]);
    }

    #[test]
    fn questions_that_are_too_long_are_left_out_and_counted() {
        let questions = vec![question("x x x", "A"), question("x", "B")];
        let found = prompts(questions, &Words::new(), None, 3).unwrap();
        assert_eq!((found.prompted.len(), found.too_long), (1, 1));
        assert_eq!(found.prompted[0].question.answer, "B");
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
