//! Reference answers.

use crate::answer;

/// A reference answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Solution {
    /// An option letter, upper case.
    Letter(char),
    /// A number.
    Number(f64),
}

impl Solution {
    /// Parses a reference answer: a number, or one option letter in any form that [`answer`] accepts. Of [`alternatives`],
    /// the first that is one.
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(alternatives) = alternatives(text) {
            return alternatives.iter().find_map(|text| Self::parse(text));
        }
        let text = answer::answer_tag(text).unwrap_or(text);
        match answer::whole_number(text) {
            Some(number) => Some(Self::Number(number)),
            None => answer::option_letter(text).map(Self::Letter),
        }
    }
}

/// The reference answers of a question with several, of which any is right: a JSON list of texts, as `["3", "three"]`.
/// `None` if `solution` is anything else.
pub fn alternatives(solution: &str) -> Option<Vec<String>> {
    let list = solution.trim().starts_with('[').then_some(solution)?;
    serde_json::from_str(list).ok().filter(|texts: &Vec<String>| !texts.is_empty())
}
