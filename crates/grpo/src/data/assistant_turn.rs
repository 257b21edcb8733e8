//! An assistant's turn as the completion of its prompt, whatever the chat template does to it.

use embodied_r_rewards::prompt_end::opened_reasoning;

use crate::error::{Error, Result};
use crate::model::{ChatTokenizer, RenderedChat};

/// The tokens of an assistant's turn `content`, with a stop token, which makes the conversation `whole` of `prompt`.
///
/// They are what the template appends to the prompt if that is the content, white space aside. A template that drops the
/// content's reasoning, or whose generation prompt begins it, appends something else: then they are the content without
/// the `<think>` that the prompt has, and what the template writes after the answer.
///
/// # Errors
/// The template changes the content so that its answer cannot be found, the prompt opens reasoning that the content lacks,
/// or the tokenizer fails.
pub(crate) fn completion_of(
    prompt: &RenderedChat,
    whole: &RenderedChat,
    content: &str,
    text: &dyn ChatTokenizer,
) -> Result<Vec<u32>> {
    let opened = opened_reasoning(prompt.text());
    let appended = whole.strip_prefix(prompt).filter(|appended| {
        squashed(&format!("{opened}{}", appended.text())).contains(&squashed(content))
    });
    let mut completion = match appended {
        Some(appended) => text.encode(&appended)?,
        None => {
            let reply = reply_after(opened, content)?;
            let mut completion = text.encode(&text.plain(reply.trim_end()))?;
            let end = turn_end(prompt, whole, opened, content)?;
            completion.extend(text.encode(&end.to_owned().into())?);
            completion
        }
    };
    let stop = completion.iter().position(|id| text.stop_ids().contains(id));
    match (stop, text.stop_ids().first()) {
        (Some(stop), _) => completion.truncate(stop + 1),
        (None, Some(stop)) => completion.push(*stop),
        (None, None) => {}
    }
    Ok(completion)
}

/// What of `content` follows a prompt that ends with `opened`.
fn reply_after<'a>(opened: &str, content: &'a str) -> Result<&'a str> {
    let Some(reasoning) = content.trim_start().strip_prefix("<think>") else {
        return match opened.is_empty()
            || opened.contains("</think>")
            || content.contains("</think>")
        {
            true => Ok(content),
            false => Err(changed(
                "the generation prompt ends with `<think>`, but the message has no reasoning; begin it with \
                 `<think>…</think>`",
            )),
        };
    };
    if !opened.contains("</think>") {
        // Of the opened white space, the content's own is a part.
        let space = opened.trim_start_matches("<think>");
        return Ok(match opened {
            "" => content,
            _ => reasoning.strip_prefix(space).unwrap_or(reasoning),
        });
    }
    // The prompt has an empty reasoning: the content's is dropped if it is empty, too, else it is learned after it.
    let after = reasoning.trim_start().strip_prefix("</think>");
    Ok(after.map_or(content, str::trim_start))
}

/// What the template writes after the answer of the turn.
fn turn_end<'a>(
    prompt: &RenderedChat,
    whole: &'a RenderedChat,
    opened: &str,
    content: &str,
) -> Result<&'a str> {
    let head = &prompt.text()[..prompt.text().len() - opened.len()];
    let turn = whole.text().strip_prefix(head).ok_or_else(|| {
        changed(
            "it renders the messages before otherwise with the assistant's message than without",
        )
    })?;
    let answer = content.rsplit_once("</think>").map_or(content, |(_, answer)| answer).trim();
    let at = turn.rfind(answer).ok_or_else(|| {
        let start: String = answer.chars().take(40).collect();
        changed(&format!("`{start}` is not in what it renders"))
    })?;
    Ok(&turn[at + answer.len()..])
}

/// A text without its white space, which templates trim and add.
fn squashed(text: &str) -> String {
    text.split_whitespace().collect()
}

fn changed(why: &str) -> Error {
    Error::ChatTemplateChangesReply { why: why.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use embodied_r_policy::tokenizer::{SpecialTokens, Tokenizer};
    use serde_json::{Value, json};

    use crate::data::conversations::example;
    use crate::model::ChatMessage;

    /// A generation prompt that ends with `end`, and turns that have `turn` of a message's content.
    fn template(end: &str, turn: &str) -> String {
        let message = "{{ '<|im_start|>' + m.role + '\n' }}";
        format!(
            "{{% for m in messages %}}{message}{{% if m.role == 'assistant' %}}{{{{ {turn} }}}}{{% else %}}{{{{ m.content \
             }}}}{{% endif %}}{{{{ '<|im_end|>\n' }}}}{{% endfor %}}{{% if add_generation_prompt %}}{{{{ \
             '<|im_start|>assistant\n{end}' }}}}{{% endif %}}"
        )
    }

    const WHOLE: &str = "m.content";
    const ANSWER: &str = "m.content.split('</think>')[-1].lstrip('\n')";

    fn tokenizer(dir: &Path, template: &str) -> Tokenizer {
        let base = concat!(env!("CARGO_MANIFEST_DIR"), "/../cli/base");
        Tokenizer::from_dir(base.as_ref()).unwrap().save(dir).unwrap();
        let path = dir.join("tokenizer_config.json");
        let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        config["chat_template"] = json!(template);
        std::fs::write(&path, config.to_string()).unwrap();
        // A template of its own file would count.
        let _ = std::fs::remove_file(dir.join("chat_template.jinja"));
        Tokenizer::from_dir(dir).unwrap()
    }

    fn learned(template: &str, content: &str) -> Result<String, String> {
        let dir = tempfile::tempdir().unwrap();
        let tokenizer = tokenizer(dir.path(), template);
        let messages = [ChatMessage::user("x"), ChatMessage::assistant(content)];
        let found = example(&messages, &tokenizer).map_err(|error| error.to_string())?;
        assert_eq!(found.completion.last(), Some(&2), "it ends with the stop token");
        let text = &found.completion[..found.completion.len() - 1];
        Ok(tokenizer.decode(text, SpecialTokens::Keep).unwrap())
    }

    #[test]
    fn a_turn_has_each_tag_once_whatever_the_template_opens_or_drops() {
        let whole = "<think>\nso</think><answer>B</answer>";
        for (end, turn, content, expected) in [
            ("", WHOLE, whole, whole),
            ("", ANSWER, whole, whole),
            ("<think>\\n", WHOLE, whole, "so</think><answer>B</answer>"),
            ("<think>\\n", ANSWER, whole, "so</think><answer>B</answer>"),
            ("<think>", ANSWER, whole, "\nso</think><answer>B</answer>"),
            ("<think>\\n", ANSWER, "<think>so</think>B", "so</think>B"),
            ("<think>\\n", ANSWER, "so</think>\n\nB\n", "so</think>\n\nB\n"),
            ("<think>\\n\\n</think>\\n\\n", ANSWER, "B", "B"),
            ("<think>\\n\\n</think>\\n\\n", ANSWER, "<think>\n\n</think>\n\nB", "B"),
            ("<think>\\n\\n</think>\\n\\n", ANSWER, whole, whole),
        ] {
            let found = learned(&template(end, turn), content);
            assert_eq!(found.as_deref(), Ok(expected), "`{content}` behind `{end}`, {turn}");
        }
    }

    #[test]
    fn a_turn_that_the_template_changes_beyond_recognition_is_an_error() {
        let fault = |end, turn, content| learned(&template(end, turn), content).unwrap_err();
        let upper = fault("", "m.content | upper", "<think>so</think>answer b");
        assert!(upper.contains("`answer b` is not in what it renders"), "{upper}");
        let missing = fault("<think>\\n", ANSWER, "B");
        assert!(missing.contains("the message has no reasoning"), "{missing}");
    }
}
