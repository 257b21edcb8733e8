//! How an answer is compared with the reference answer.

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use crate::answer;
use crate::solution::{Solution, alternatives};
use crate::text_match::is_same_text;

/// How an answer is compared with the reference answer, as a question's data says.
///
/// Without a type, a reference answer that [shows one](AnswerType::of_solution) is compared by it, and any other is not scored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AnswerType {
    /// An option letter.
    Choice,
    /// A number, by its mean relative accuracy (VSI-Bench).
    Number,
    /// A number, by one minus its relative error (Video-R1).
    Regression,
    /// A transcription, by one minus its word error rate (Video-R1).
    Ocr,
    /// A text, by the mean of its ROUGE-1, ROUGE-2 and ROUGE-L (Video-R1).
    FreeForm,
    /// A text, which must be equal but for case, white space and a final full stop.
    Text,
    /// A position `[x, y, z]`, by one minus its L1 distance (Robot-R1).
    Position,
}

/// Columns of a question that name the type, ours first.
const COLUMNS: [&str; 2] = ["answer_type", "problem_type"];

impl AnswerType {
    /// The type of this name: `multiple choice`, `numerical`, `regression`, `OCR` and `free-form`, as Video-R1 names
    /// them, or `text` or `position`; in any case, with `-` or `_` for spaces.
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name.trim().to_lowercase().replace(['-', '_'], " ").as_str() {
            "multiple choice" | "choice" => Self::Choice,
            "numerical" | "numeric" | "number" => Self::Number,
            "regression" => Self::Regression,
            "ocr" => Self::Ocr,
            "free form" => Self::FreeForm,
            "text" | "exact match" => Self::Text,
            "position" => Self::Position,
            _ => return None,
        })
    }

    /// Its name, which [`Self::parse`] reads.
    pub fn name(self) -> &'static str {
        match self {
            Self::Choice => "multiple choice",
            Self::Number => "numerical",
            Self::Regression => "regression",
            Self::Ocr => "OCR",
            Self::FreeForm => "free-form",
            Self::Text => "text",
            Self::Position => "position",
        }
    }

    /// The type that a question's columns name, `answer_type` or else `problem_type`; `None` for an unknown one.
    pub fn of_columns(columns: &Map<String, Value>) -> Option<Self> {
        let name = COLUMNS.iter().find_map(|name| columns.get(*name).and_then(Value::as_str));
        name.and_then(Self::parse)
    }

    /// The type of a question: the one that its `columns` name, or else the one that its reference answer shows. `None` if it
    /// shows none, as a sentence.
    pub fn of_question(columns: &Map<String, Value>, solution: &str) -> Option<Self> {
        Self::of_columns(columns).or_else(|| Self::of_solution(solution))
    }

    /// The type that a reference answer shows: an option letter, a number, with a unit or without, a position in brackets,
    /// or a yes or no, which is compared as a text.
    pub fn of_solution(solution: &str) -> Option<Self> {
        const WORDS: [&str; 4] = ["yes", "no", "true", "false"];
        if let Some(known) = Solution::parse(solution) {
            return Some(match known {
                Solution::Letter(_) => Self::Choice,
                Solution::Number(_) => Self::Number,
            });
        }
        let is_word = |text: &str| WORDS.iter().any(|word| is_same_text(text, word));
        let has_unit = |text: &str| {
            let unit = text.trim().split_once(char::is_whitespace).map(|(number, unit)| {
                answer::whole_number(number).is_some()
                    && unit.trim().chars().all(char::is_alphabetic)
            });
            unit.unwrap_or_default() && answer::read_number(text).is_ok()
        };
        match alternatives(solution) {
            Some(texts) => texts.iter().all(|text| is_word(text)).then_some(Self::Text),
            None if is_word(solution) => Some(Self::Text),
            None if solution.trim_start().starts_with('[')
                && answer::read_position(solution).is_ok() =>
            {
                Some(Self::Position)
            }
            None => has_unit(solution).then_some(Self::Number),
        }
    }

    /// What the questions are called in messages.
    pub(crate) fn questions(self) -> &'static str {
        match self {
            Self::Choice => "multiple-choice questions",
            Self::Number | Self::Regression => "numeric questions",
            Self::Ocr | Self::FreeForm | Self::Text => "questions with texts as answers",
            Self::Position => "questions with positions as answers",
        }
    }
}

impl Serialize for AnswerType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_type_is_read_by_its_name() {
        for name in
            ["multiple choice", "numerical", "regression", "OCR", "free-form", "text", "position"]
        {
            let answer_type = AnswerType::parse(name).unwrap();
            assert_eq!(answer_type.name(), name);
            assert_eq!(serde_json::to_value(answer_type).unwrap(), json!(name));
        }
    }

    fn of(columns: Value) -> Option<AnswerType> {
        AnswerType::of_columns(columns.as_object().unwrap())
    }

    #[test]
    fn video_r1s_names_are_known() {
        for (name, expected) in [
            ("multiple choice", AnswerType::Choice),
            ("numerical", AnswerType::Number),
            ("regression", AnswerType::Regression),
            ("OCR", AnswerType::Ocr),
            ("free-form", AnswerType::FreeForm),
            (" Exact_Match", AnswerType::Text),
            ("position", AnswerType::Position),
        ] {
            assert_eq!(of(json!({"problem_type": name})), Some(expected), "{name}");
        }
    }

    #[test]
    fn an_answer_shows_its_type_where_it_is_sure() {
        for (answer, expected) in [
            ("B", Some(AnswerType::Choice)),
            ("(C) the lamp", Some(AnswerType::Choice)),
            ("4", Some(AnswerType::Number)),
            ("12,000", Some(AnswerType::Number)),
            ("−2.5", Some(AnswerType::Number)),
            ("5 cm", Some(AnswerType::Number)),
            ("Yes", Some(AnswerType::Text)),
            ("false.", Some(AnswerType::Text)),
            (r#"["yes", "true"]"#, Some(AnswerType::Text)),
            (r#"["3", "three"]"#, Some(AnswerType::Number)),
            ("[0.25, 0, -0.75]", Some(AnswerType::Position)),
            ("[0.25, 0]", None),
            ("1/2", None),
            (r"$\frac{1}{2}$", None),
            ("5 or 6", None),
            ("10^3", None),
            ("the red lamp", None),
            ("", None),
        ] {
            assert_eq!(AnswerType::of_solution(answer), expected, "`{answer}`");
        }
        assert_eq!(
            AnswerType::of_question(json!({"problem_type": "OCR"}).as_object().unwrap(), "4"),
            Some(AnswerType::Ocr)
        );
    }

    #[test]
    fn an_unknown_type_is_none() {
        for columns in [json!({}), json!({"problem_type": "grounding"}), json!({"problem_type": 3})]
        {
            assert_eq!(of(columns), None);
        }
    }

    #[test]
    fn answer_type_goes_before_problem_type() {
        let columns = json!({"problem_type": "OCR", "answer_type": "text"});
        assert_eq!(of(columns), Some(AnswerType::Text));
    }
}
