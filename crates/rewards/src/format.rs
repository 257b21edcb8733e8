//! The format reward: a `<think>` tag, then an `<answer>` tag, and nothing else.

use serde::{Deserialize, Serialize};

use crate::answer::TAGS;
use crate::error::Result;
use crate::reward::{Reward, RewardInput, Score};

/// 1 if the output is `<think>…</think>`, whitespace, `<answer>…</answer>`, else 0. Empty tags are
/// well formed; the other rewards penalize them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Each tag occurs once; whitespace around the output is ignored.
    #[default]
    Strict,
    /// The regular expression of the official run, ms-swift's `format`:
    /// `^<think>.*?</think>\s*<answer>.*?</answer>(?![\s\S])` with DOTALL, which is the full match of EasyR1's
    /// `r1v`. Its lazy dots accept repeated tags, and thus several answers; whitespace around the output is an error.
    #[serde(alias = "r1v")]
    Official,
}

impl Format {
    /// The first format error of `completion`, if any.
    pub fn error(self, completion: &str) -> Option<String> {
        match self {
            Self::Strict => format_error(completion),
            Self::Official => (!matches_official(completion)).then(|| {
                "the completion does not match `<think>.*?</think>\\s*<answer>.*?</answer>`"
                    .to_owned()
            }),
        }
    }
}

impl Reward for Format {
    fn name(&self) -> &str {
        "format"
    }

    fn score(&self, batch: &[RewardInput<'_>]) -> Result<Vec<Score>> {
        Ok(batch
            .iter()
            .map(|input| match self.error(input.completion) {
                None => Score::full(),
                Some(reason) => Score::zero(reason),
            })
            .collect())
    }
}

/// Whether the official regular expression matches: the first `</think>` that `<answer>` follows leaves the most text
/// for the end.
fn matches_official(completion: &str) -> bool {
    let answered = |rest: &str| {
        let answer = rest.trim_start_matches(is_python_space).strip_prefix("<answer>");
        answer.is_some_and(|answer| answer.ends_with("</answer>"))
    };
    completion.strip_prefix("<think>").is_some_and(|think| {
        let closed = think.match_indices("</think>");
        closed.map(|(at, tag)| &think[at + tag.len()..]).any(answered)
    })
}

/// Whether Python's `\s` matches: white space, and the four separators of ASCII.
fn is_python_space(char: char) -> bool {
    char.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&char)
}

/// The first error of `completion` in the strict format, if any.
fn format_error(completion: &str) -> Option<String> {
    let text = completion.trim();
    if text.is_empty() {
        return Some("the completion is empty".to_owned());
    }
    for tag in TAGS {
        match text.matches(tag).count() {
            1 => {}
            0 => return Some(format!("`{tag}` is missing")),
            count => return Some(format!("`{tag}` occurs {count} times")),
        }
    }
    let after_think = text.strip_prefix("<think>").and_then(|rest| rest.split_once("</think>"));
    let Some((_, rest)) = after_think else {
        return Some("the completion does not start with `<think>`".to_owned());
    };
    let Some(rest) = rest.trim_start().strip_prefix("<answer>") else {
        return Some("`<answer>` does not follow `</think>`".to_owned());
    };
    if !rest.ends_with("</answer>") {
        return Some("there is text after `</answer>`".to_owned());
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn well_formed(completion: &str) -> bool {
        let batch = [RewardInput { completion, ..RewardInput::default() }];
        Format::Strict.score(&batch).unwrap()[0].value == Some(1.0)
    }

    #[test]
    fn reasoning_then_answer_is_well_formed() {
        for text in [
            "<think>a</think><answer>B</answer>",
            "<think>a</think> \n <answer>B</answer>",
            "  \n<think>\na\n\nb\n</think>\n\n<answer>\nB\n</answer>\n",
            "<think></think><answer></answer>",
            "<think>1 < 2 and <b>bold</b></think><answer>B</answer>",
            "<think>a</think>\t<answer><b>B</b></answer>",
            "<think><Answer>a</think><answer>B</answer>",
            "<think>é “è”</think>\u{a0}<answer>B</answer>",
        ] {
            assert!(well_formed(text), "`{text}`: {:?}", format_error(text));
        }
    }

    #[test]
    fn malformed_outputs_are_reported_with_their_error() {
        for (text, reason) in [
            ("", "the completion is empty"),
            ("  \n", "the completion is empty"),
            ("B", "`<think>` is missing"),
            ("<answer>B</answer>", "`<think>` is missing"),
            ("<think>a<answer>B</answer>", "`</think>` is missing"),
            ("<think>a</think>B", "`<answer>` is missing"),
            ("<think>a</think><answer>B", "`</answer>` is missing"),
            ("<think>a</think><answer>B</answer", "`</answer>` is missing"),
            ("a</think><answer>B</answer>", "`<think>` is missing"),
            ("<Think>a</Think><answer>B</answer>", "`<think>` is missing"),
            ("<think >a</think><answer>B</answer>", "`<think>` is missing"),
            (
                "So <think>a</think><answer>B</answer>",
                "the completion does not start with `<think>`",
            ),
            ("</think>a<think><answer>B</answer>", "the completion does not start with `<think>`"),
            ("<answer>B</answer><think>a</think>", "the completion does not start with `<think>`"),
            ("<think>a</think> so <answer>B</answer>", "`<answer>` does not follow `</think>`"),
            ("<think>a <answer>B</answer></think>", "`<answer>` does not follow `</think>`"),
            ("<think>a</think></answer><answer>", "`<answer>` does not follow `</think>`"),
            ("<think>a</think><answer>B</answer> done", "there is text after `</answer>`"),
            ("<think>a</think><answer>B</answer><|im_end|>", "there is text after `</answer>`"),
            ("<think>a<think>b</think><answer>B</answer>", "`<think>` occurs 2 times"),
            ("<think>a</think>b</think><answer>B</answer>", "`</think>` occurs 2 times"),
            ("<think>a</think><answer>A<answer>B</answer>", "`<answer>` occurs 2 times"),
            ("<think>a</think><answer>A</answer><answer>B</answer>", "`<answer>` occurs 2 times"),
            ("<think>use <answer> tags</think><answer>B</answer>", "`<answer>` occurs 2 times"),
            ("<think>a</think><answer>A</answer></answer>", "`</answer>` occurs 2 times"),
            ("<think>a</think><think>b</think><answer>B</answer>", "`<think>` occurs 2 times"),
        ] {
            assert_eq!(format_error(text).as_deref(), Some(reason), "`{text}`");
            assert!(!well_formed(text), "`{text}`");
        }
    }

    #[test]
    fn a_malformed_output_scores_zero_with_a_reason() {
        let batch = [RewardInput { completion: "B", ..RewardInput::default() }];
        let scores = Format::Strict.score(&batch).unwrap();
        assert_eq!(scores, [Score::zero("`<think>` is missing")]);
    }

    /// Expected values are those of Python's `re.match` with DOTALL and MULTILINE, and of `re.fullmatch` with DOTALL and
    /// the expression of EasyR1's `r1v`.
    #[test]
    fn the_official_format_is_its_regular_expression() {
        for (text, matches) in [
            ("<think>a</think><answer>B</answer>", true),
            ("<think>a</think>\n \u{a0}<answer>B\nC</answer>", true),
            ("<think></think><answer></answer>", true),
            ("<think>a</think>\u{1c}\u{85}<answer>B</answer>", true),
            ("<think>a</think>\u{200b}<answer>B</answer>", false),
            ("<think>a</think><answer>A</answer><answer>B</answer>", true),
            ("<think>a</think>b</think><answer>B</answer>", true),
            ("<think>a<think>b</think><answer>B</answer>", true),
            ("<think>a</think><answer>A</answer></answer>", true),
            ("<think>use <answer> tags</think><answer>B</answer>", true),
            ("<think>a</think> so <answer>B</answer>", false),
            ("<think>a</think><answer>B</answer> done", false),
            ("<think>a</think><answer>B</answer>\n", false),
            (" <think>a</think><answer>B</answer>", false),
            ("x\n<think>a</think><answer>B</answer>", false),
            ("<think>a</think><answer>B", false),
            ("<think>a</think></answer><answer>", false),
            ("<think>a</answer></think><answer>", false),
            ("", false),
        ] {
            assert_eq!(Format::Official.error(text).is_none(), matches, "`{text}`");
        }
    }

    #[test]
    fn r1v_is_a_name_of_the_official_format() {
        let read = |name: &str| serde_json::from_value::<Format>(serde_json::json!(name)).unwrap();
        assert_eq!(
            [read("r1v"), read("official"), read("strict")],
            [Format::Official, Format::Official, Format::Strict]
        );
    }

    proptest! {
        #[test]
        fn any_tagless_reasoning_and_answer_are_well_formed(
            think in "[^<]{0,40}", gap in "[ \n\t]{0,4}", answer in "[^<]{0,10}",
        ) {
            let text = format!("<think>{think}</think>{gap}<answer>{answer}</answer>");
            prop_assert_eq!(format_error(&text), None);
            prop_assert_eq!(Format::Official.error(&text), None);
        }

        #[test]
        fn an_extra_tag_anywhere_is_malformed(
            tag in prop::sample::select(TAGS.to_vec()), position in 0_usize..5,
        ) {
            let mut parts = ["", "<think>a", "</think>", "<answer>B", "</answer>"].map(str::to_owned);
            parts[position].push_str(tag);
            prop_assert!(format_error(&parts.concat()).is_some());
        }
    }
}
