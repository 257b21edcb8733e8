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
