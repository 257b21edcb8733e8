//! How an answer is compared with the reference answer.
//!
//! A type is a file of this module, whose `Kind` is a row of `AnswerType::kind`.

pub(crate) mod bounding_box;
mod choice;
pub(crate) mod kind;
mod number;
pub(crate) mod point;
pub(crate) mod position;
mod text;
pub(crate) mod trace;

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use crate::answer;
use crate::score::Score;
use crate::solution::{Solution, alternatives};
use crate::text_match::is_same_text;
use kind::{Case, Kind};
pub use kind::{Drawing, Mark};

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
    /// Points in an image, by the share in the true regions or the distance to the true points (Embodied-R1.5).
    Point,
    /// A box in an image, by its intersection over union (Embodied-R1.5).
    Box,
    /// A path in an image, by the root mean square of the distances (Embodied-R1.5).
    Trace,
    /// A path in an image with depths (Embodied-R1.5).
    Trace3d,
}

/// Columns of a question that name the type, ours first.
const COLUMNS: [&str; 2] = ["answer_type", "problem_type"];

impl AnswerType {
    /// All types.
    pub const ALL: [Self; 11] = [
        Self::Choice,
        Self::Number,
        Self::Regression,
        Self::Ocr,
        Self::FreeForm,
        Self::Text,
        Self::Position,
        Self::Point,
        Self::Box,
        Self::Trace,
        Self::Trace3d,
    ];

    /// What the type is.
    fn kind(self) -> &'static Kind {
        match self {
            Self::Choice => &choice::CHOICE,
            Self::Number => &number::NUMBER,
            Self::Regression => &number::REGRESSION,
            Self::Ocr => &text::OCR,
            Self::FreeForm => &text::FREE_FORM,
            Self::Text => &text::TEXT,
            Self::Position => &position::POSITION,
            Self::Point => &point::POINT,
            Self::Box => &bounding_box::BOX,
            Self::Trace => &trace::TRACE,
            Self::Trace3d => &trace::TRACE_3D,
        }
    }

    /// The type of this name, in any case, with `-` or `_` for spaces: `multiple choice`, `numerical`, `regression`, `OCR` and
    /// `free-form`, as Video-R1 names them, `spatial grounding`, `point`, `trace` and `trace_3d`, as Embodied-R1.5 does, or
    /// `text`, `position` or `box`.
    pub fn parse(name: &str) -> Option<Self> {
        let plain = |name: &str| name.trim().to_lowercase().replace(['-', '_'], " ");
        let name = plain(name);
        Self::ALL.into_iter().find(|it| it.kind().names.iter().any(|known| plain(known) == name))
    }

    /// Its name, which [`Self::parse`] reads.
    pub fn name(self) -> &'static str {
        self.kind().names.first().copied().unwrap_or_default()
    }

    /// The names of all types, for messages.
    pub(crate) fn names() -> String {
        Self::ALL.map(|answer_type| format!("`{}`", answer_type.name())).join(", ")
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

    /// The raw score of a completion for one reference answer.
    pub(crate) fn score(self, case: &Case<'_>) -> Score {
        (self.kind().score)(case)
    }

    /// The answer of a completion, for a reader; `None` if it has none.
    pub fn answer(self, completion: &str) -> Option<String> {
        (self.kind().answer)(completion)
    }

    /// Whether the type is drawn on the image.
    pub fn is_drawn(self) -> bool {
        self.kind().drawing.is_some()
    }

    /// What an answer, as it stands in its tag, or a reference answer shows on the image of a question with these columns; `None`
    /// if the type is not drawn, or it is none.
    pub fn drawing(self, answer: &str, columns: Option<&Map<String, Value>>) -> Option<Drawing> {
        (self.kind().drawing?)(answer, columns)
    }

    /// What the questions are called in messages.
    pub(crate) fn questions(self) -> &'static str {
        self.kind().questions
    }
}

impl Serialize for AnswerType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

#[cfg(test)]
mod tests;
