//! The blind baseline for the bias filter of Embodied-R (arXiv 2504.12680), which drops questions
//! that a model answers correctly without video or captions.
//!
//! ```
//! use embodied_r_data::Question;
//! use embodied_r_eval::blind;
//!
//! let question: Question = serde_json::from_str(
//!     r#"{"Question_id": 1, "answer": "B",
//!         "question": "Frame 0: Observe: a lamp\nQuestion: Where is it?\n\nChoices:\nA. up\nB. down"}"#,
//! )?;
//! assert_eq!(blind::question(&question)?, "Question: Where is it?\n\nChoices:\nA. up\nB. down");
//! assert_eq!(blind::letter("<answer>B. down</answer>"), Some('B'));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use embodied_r_data::{Question, prompts};
use embodied_r_rewards::accuracy::Solution;
use embodied_r_rewards::answer;

use crate::error::{Error, Result};

/// The prefix of questions before perception.
const VIDEO: &str = "<video>";

/// The question and its choices, without any caption.
///
/// # Errors
/// [`Error::NotBlind`] if the captions cannot be separated from the question.
pub fn question(question: &Question) -> Result<&str> {
    let text = question.without_captions().ok_or_else(|| Error::NotBlind { id: question.id() })?;
    let text = prompts::question_part(text).trim();
    Ok(text.strip_prefix(VIDEO).unwrap_or(text).trim_start())
}

/// The letter of the correct option; `None` for numeric questions, which the filter ignores.
///
/// # Errors
/// [`Error::NoSolution`] if the answer is neither a letter nor a number.
pub fn solution(question: &Question) -> Result<Option<char>> {
    match Solution::parse(&question.answer) {
        Some(Solution::Letter(letter)) => Ok(Some(letter)),
        Some(Solution::Number(_)) => Ok(None),
        None => {
            let found = match question.answer.trim() {
                "" => "no `answer`".to_owned(),
                answer => format!("the `answer` `{answer}`"),
            };
            Err(Error::NoSolution { id: question.id(), found })
        }
    }
}

/// The option letter of a completion: from its `<answer>` tag, or without a tag from the text after the
/// reasoning.
pub fn letter(reply: &str) -> Option<char> {
    if !answer::answer_tags(reply).is_empty() {
        return answer::letter(reply).ok();
    }
    let after = reply.rsplit_once("</think>").map_or(reply, |(_, after)| after);
    answer::option_letter(after)
}

/// The default drop threshold: three quarters of the tries, rounded up. Random guessing among four
/// options gets 3 of 4 right for one question in twenty.
pub fn default_drop_at(tries: usize) -> usize {
    (tries * 3).div_ceil(4)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const CHOICES: &str = "Question: Where?\n\nChoices:\nA. left\nB. right";

    fn record(fields: Value) -> Question {
        let mut record = json!({"Question_id": 7, "answer": "B"});
        record.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        serde_json::from_value(record).unwrap()
    }

    #[test]
    fn a_blind_prompt_has_the_question_but_no_captions() {
        let with_captions =
            format!("Video content:\n<\nFrame 0: Observe: an elephant\n>\n{CHOICES}");
        for fields in [
            json!({"question": CHOICES}),
            json!({"question": format!("<video>\n{CHOICES}")}),
            json!({"question": with_captions}),
            json!({"question": "Frame 0: elephant. Where?", "original_question": CHOICES}),
        ] {
            assert_eq!(question(&record(fields)).unwrap(), CHOICES);
        }
    }

    #[test]
    fn captions_that_cannot_be_separated_are_an_error() {
        for text in ["Frame 0: Observe: a lamp\nWhere?", "Question: x\nVideo content: a lamp"] {
            let error = question(&record(json!({"question": text}))).unwrap_err();
            assert!(error.to_string().starts_with("question `7` contains captions"), "{error}");
        }
    }

    #[test]
    fn a_letter_is_parsed_with_and_without_its_tag() {
        for (reply, read) in [
            ("<think>A?</think><answer>B</answer>", Some('B')),
            ("b.", Some('B')),
            ("<think>A or C</think>\nThe answer is D", Some('D')),
            ("<answer>A or B</answer>", None),
            ("no idea", None),
            ("", None),
        ] {
            assert_eq!(letter(reply), read, "{reply}");
        }
    }

    #[test]
    fn numeric_questions_have_no_letter_and_others_must() {
        let of = |answer: &str| solution(&record(json!({"question": "q", "answer": answer})));
        assert_eq!(of("b").unwrap(), Some('B'));
        assert_eq!(of("2.5").unwrap(), None);
        assert!(of("").unwrap_err().to_string().contains("has no `answer`"));
        assert!(of("left").unwrap_err().to_string().contains("`left`"));
    }

    #[test]
    fn the_drop_threshold_is_three_quarters_of_the_tries() {
        assert_eq!([1, 2, 3, 4, 5, 8].map(default_drop_at), [1, 2, 3, 3, 4, 6]);
    }
}
