//! The end of a prompt that belongs to the reply: chat templates of reasoning models write `<think>` into the generation
//! prompt, and others close an empty one there, so that the model does not reason.

use std::borrow::Cow;

/// The end of `prompt` from its last `<think>`, if nothing but white space and one `</think>` follows; else empty.
pub fn opened_reasoning(prompt: &str) -> &str {
    let Some(at) = prompt.rfind("<think>") else { return "" };
    let after = prompt[at + "<think>".len()..].trim_start();
    let after = after.strip_prefix("</think>").unwrap_or(after);
    if after.trim_start().is_empty() { &prompt[at..] } else { "" }
}

/// The whole reply: what `prompt` has [opened](opened_reasoning), then `completion`. A reply that reasons although the prompt
/// has closed an empty `<think>` stands alone.
pub fn whole_reply<'a>(prompt: &str, completion: &'a str) -> Cow<'a, str> {
    match opened_reasoning(prompt) {
        "" => completion.into(),
        opened if opened.contains("</think>") && completion.contains("<think>") => {
            completion.into()
        }
        opened => format!("{opened}{completion}").into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Format;

    #[test]
    fn a_prompt_ends_with_reasoning_if_nothing_else_follows_the_tag() {
        for (prompt, opened) in [
            ("assistant\n<think>\n", "<think>\n"),
            ("assistant\n<think>", "<think>"),
            ("assistant\n<think>\n\n</think>\n\n", "<think>\n\n</think>\n\n"),
            ("<think>a</think>b<think>\n", "<think>\n"),
            ("", ""),
            ("assistant\n", ""),
            ("use <think> tags<|im_end|>\nassistant\n", ""),
            ("assistant\n<think>so", ""),
            ("assistant\n<think>so</think>", ""),
            ("assistant\n</think>", ""),
            ("assistant\n<think></think></think>", ""),
        ] {
            assert_eq!(opened_reasoning(prompt), opened, "`{prompt}`");
        }
    }

    #[test]
    fn a_reply_that_the_prompt_began_is_well_formed_once() {
        for (prompt, completion, is_formatted) in [
            ("assistant\n<think>\n", "so</think><answer>B</answer>", true),
            ("assistant\n<think>\n\n</think>\n\n", "<answer>B</answer>", true),
            ("assistant\n<think>\n\n</think>\n\n", "<think>so</think><answer>B</answer>", true),
            ("assistant\n", "<think>so</think><answer>B</answer>", true),
            ("assistant\n<think>\n", "<think>so</think><answer>B</answer>", false),
            ("assistant\n", "so</think><answer>B</answer>", false),
        ] {
            let reply = whole_reply(prompt, completion);
            assert_eq!(Format::Strict.error(&reply).is_none(), is_formatted, "`{reply}`");
        }
    }
}
