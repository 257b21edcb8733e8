//! Conversations to learn: JSONL of `{"messages": [{"role", "content"}]}`.

use std::io::{BufRead, BufReader};
use std::path::Path;

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::model::{ChatMessage, Generation, Text};
use crate::supervised::Example;

/// A line of the file; fields beside the messages are passed over.
#[derive(Debug, Deserialize)]
struct Line {
    messages: Vec<ChatMessage>,
}

/// The replies of a file of conversations.
#[derive(Debug, Clone, PartialEq)]
pub struct Replies {
    /// Every turn of the assistant with what came before it.
    pub examples: Vec<Example>,
    /// How many are longer than allowed, and left out.
    pub too_long: usize,
}

/// Reads a file of conversations, a line each; empty lines are passed over.
///
/// Every turn of the assistant becomes an example: the prompt is the conversation before it with
/// the opening of its turn, the completion is what it says and the stop token that ends its turn.
///
/// # Errors
/// The file cannot be read, a line is not such JSON, a role is unknown, or nobody replies.
pub fn read(path: &Path, text: &dyn Text, max_tokens: usize) -> Result<Replies> {
    let file = std::fs::File::open(path).map_err(Error::io("read", path))?;
    let mut replies = Replies { examples: Vec::new(), too_long: 0 };
    for (index, line) in BufReader::new(file).lines().enumerate() {
        let line = line.map_err(Error::io("read", path))?;
        if line.trim().is_empty() {
            continue;
        }
        let fault = |what| Error::Conversation { path: path.into(), line: index + 1, what };
        let examples = parse(&line, text).map_err(fault)?;
        for example in examples {
            if example.tokens() > max_tokens {
                replies.too_long += 1;
            } else {
                replies.examples.push(example);
            }
        }
    }
    Ok(replies)
}

/// The examples of one line, or what is wrong with it.
fn parse(line: &str, text: &dyn Text) -> Result<Vec<Example>, String> {
    let Line { messages } = serde_json::from_str(line).map_err(|error| {
        format!("is not `{{\"messages\": [{{\"role\", \"content\"}}]}}`: {error}")
    })?;
    let known = ["system", "user", "assistant"];
    if let Some(message) = messages.iter().find(|message| !known.contains(&message.role.as_str())) {
        let role = &message.role;
        return Err(format!("has the role `{role}`, known are `system`, `user` and `assistant`"));
    }
    let turns: Vec<usize> =
        (0..messages.len()).filter(|&turn| messages[turn].role == "assistant").collect();
    if turns.is_empty() {
        return Err("has no message of the role `assistant` to learn".into());
    }
    if turns[0] == 0 {
        return Err("begins with the `assistant`, who has nothing to reply to".into());
    }
    let fault = |error| format!("cannot be put in tokens: {error}");
    turns.into_iter().map(|turn| reply(&messages[..=turn], text).map_err(fault)).collect()
}

/// The last message as a reply to those before it.
fn reply(messages: &[ChatMessage], text: &dyn Text) -> Result<Example> {
    let (before, last) = messages.split_at(messages.len() - 1);
    let prompt = text.render(before, Generation::Prompt)?;
    let whole = text.render(messages, Generation::None)?;
    // Templates may trim or decorate what is said, so the reply is what they add to the prompt.
    let said = whole.strip_prefix(&prompt).unwrap_or(&last[0].content);
    let mut completion = text.encode(said)?;
    let stop = completion.iter().position(|id| text.stop_ids().contains(id));
    match (stop, text.stop_ids().first()) {
        (Some(stop), _) => completion.truncate(stop + 1),
        (None, Some(stop)) => completion.push(*stop),
        (None, None) => {}
    }
    Ok(Example { prompt: text.encode(&prompt)?, completion })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::toy::Words;

    fn read_text(lines: &str, max_tokens: usize) -> Result<Replies> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("train.jsonl");
        std::fs::write(&path, lines).unwrap();
        read(&path, &Words::new(), max_tokens)
    }

    const ONE: &str = r#"{"messages": [{"role": "user", "content": "x"}, {"role": "assistant",
        "content": "<think>t</think> <answer>A</answer>"}]}"#;

    fn one() -> String {
        ONE.replace('\n', " ")
    }

    #[test]
    fn only_the_assistants_words_and_its_stop_token_are_learnt() {
        let replies = read_text(&one(), 100).unwrap();
        assert_eq!(replies.examples, [Example { prompt: vec![5, 4], completion: vec![1, 2, 0] }]);
    }

    #[test]
    fn every_turn_of_the_assistant_is_an_example_with_all_that_came_before() {
        let line = r#"{"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "<answer>A</answer>"}, {"role": "user", "content": "x"}, {"role": "assistant", "content": "<answer>B</answer>"}]}"#;
        let replies = read_text(line, 100).unwrap();
        assert_eq!(replies.examples.len(), 2);
        assert_eq!(replies.examples[0].completion, [2, 0]);
        assert_eq!(replies.examples[1].prompt, [5, 2, 0, 5, 4]);
        assert_eq!(replies.examples[1].completion, [3, 0]);
    }

    #[test]
    fn a_conversation_that_is_too_long_is_left_out_and_counted() {
        let replies = read_text(&one(), 4).unwrap();
        assert_eq!((replies.examples.len(), replies.too_long), (0, 1));
    }

    #[test]
    fn faults_name_file_line_and_what_is_wanted() {
        let cases = [
            ("{\"messages\": 3}", "is not `{\"messages\""),
            (r#"{"messages": [{"role": "tool", "content": "x"}]}"#, "the role `tool`"),
            (r#"{"messages": [{"role": "user", "content": "x"}]}"#, "no message of the role"),
            (r#"{"messages": [{"role": "assistant", "content": "x"}]}"#, "nothing to reply to"),
        ];
        for (line, wanted) in cases {
            let error = read_text(&format!("{}\n\n{line}\n", one()), 100).unwrap_err().to_string();
            assert!(error.starts_with("line 3 of `"), "{error}");
            assert!(error.contains(wanted), "{error}");
        }
    }
}
