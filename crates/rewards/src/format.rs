//! The format reward: reasoning in one tag, then the answer in another, and nothing else.

use crate::answer::TAGS;
use crate::error::Result;
use crate::reward::{Reward, Score, Scored};

/// 1 if the trimmed output is `<think>…</think>`, white space, `<answer>…</answer>`, with no
/// further tag of these two kinds inside; else 0.
///
/// The same language as the expression of the official run,
/// `^<think>.*?</think>\s*<answer>.*?</answer>$` with a dot that matches new lines, less the
/// outputs that repeat a tag: there the lazy dots would let through any number of answers.
/// Empty tags are well formed; the other rewards deal with what they lack.
#[derive(Debug, Clone, Copy, Default)]
pub struct Format;

impl Reward for Format {
    fn name(&self) -> &str {
        "format"
    }

    fn score(&self, batch: &[Scored<'_>]) -> Result<Vec<Score>> {
        Ok(batch
            .iter()
            .map(|scored| match fault(scored.completion) {
                None => Score::full(),
                Some(why) => Score::zero(why),
            })
            .collect())
    }
}

/// What is wrong with the form of `completion`, if anything is.
pub fn fault(completion: &str) -> Option<String> {
    let text = completion.trim();
    if text.is_empty() {
        return Some("the output is empty".to_owned());
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
        return Some("the output does not begin with `<think>`".to_owned());
    };
    let Some(rest) = rest.trim_start().strip_prefix("<answer>") else {
        return Some("`<answer>` does not follow `</think>`".to_owned());
    };
    if !rest.ends_with("</answer>") {
        return Some("the output goes on after `</answer>`".to_owned());
    }
    None
}
