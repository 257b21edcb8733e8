//! Examples of SFT: conversations, JSONL of `{"messages": [{"role", "content"}]}`, or questions with their answers.

use std::io::BufRead as _;
use std::path::Path;

use embodied_r_data::question::read_questions;
use embodied_r_data::system_prompt::{Given, SystemPrompt};
use embodied_r_data::{DataFiles, Question, prompts};
use embodied_r_files::open_text;
use serde::Deserialize;

use crate::data::assistant_turn::completion_of;
use crate::data::length_limit::LengthLimit;
use crate::data::too_long::TooLong;
use crate::error::{Error, Result};
use crate::model::{ChatMessage, ChatTokenizer, GenerationPrompt};
use crate::update::supervised::Example;

/// A line of the file; other fields are ignored.
#[derive(Debug, Deserialize)]
struct Line {
    messages: Vec<ChatMessage>,
}

/// The examples of one or more files.
#[derive(Debug, Clone, PartialEq)]
pub struct SftExamples {
    /// Every assistant turn with its preceding context, or every question with its answer.
    pub examples: Vec<Example>,
    /// The number of examples skipped because they exceed the length limit.
    pub too_long: usize,
}

/// Reads files of conversations, one per line, or lists of questions as `perceive` writes them.
///
/// Every assistant turn of a conversation becomes an example: the prompt is the preceding conversation with the
/// generation prompt, the completion is the turn's content with the stop token. A question becomes one too, with GRPO's
/// prompt, with `system`, and the answer after an empty rationale as the completion. Empty lines are skipped.
///
/// # Errors
/// A file cannot be read, a line has the wrong schema or an unknown role, there is no assistant turn, a question has no
/// answer, or an example is over a `limit` that raises.
pub fn read(
    data: &DataFiles,
    text: &dyn ChatTokenizer,
    system: &SystemPrompt,
    limit: &LengthLimit,
) -> Result<SftExamples> {
    let (mut all, mut too_long) = (Vec::new(), TooLong::default());
    let mut add =
        |example: Example, place: &dyn Fn() -> String| match limit.allows(example.tokens()) {
            true => all.push(example),
            false => too_long.add(place, example.tokens()),
        };
    for file in data.files().map_err(|error| Error::Data(Box::new(error)))? {
        read_file(&file, text, system, &mut add)?;
    }
    Ok(SftExamples { examples: all, too_long: too_long.left_out(limit)? })
}

/// Calls `add` with each example of a file and what it is of.
fn read_file(
    path: &Path,
    text: &dyn ChatTokenizer,
    system: &SystemPrompt,
    add: &mut dyn FnMut(Example, &dyn Fn() -> String),
) -> Result<()> {
    let mut file = open_text(path)?;
    let start = file.fill_buf().map_err(Error::io("read", path))?;
    if start.trim_ascii_start().starts_with(b"[") {
        for question in read_questions(path).map_err(|error| Error::Data(Box::new(error)))? {
            let place = || format!("question `{}` with its answer", question.id());
            add(answer_alone(&question, text, system)?, &place);
        }
        return Ok(());
    }
    for (index, line) in file.lines().enumerate() {
        let line = line.map_err(Error::io("read", path))?;
        if line.trim().is_empty() {
            continue;
        }
        let fault = |what| Error::Conversation { path: path.into(), line: index + 1, what };
        let examples = parse(&line, text).map_err(fault)?;
        let place = || format!("the conversation in line {} of `{}`", index + 1, path.display());
        examples.into_iter().for_each(|example| add(example, &place));
    }
    Ok(())
}

/// A question with its answer, without reasoning.
fn answer_alone(
    question: &Question,
    text: &dyn ChatTokenizer,
    system: &SystemPrompt,
) -> Result<Example> {
    let answer = question.answer.trim();
    if answer.is_empty() {
        let what = "has no `answer`; SFT on questions needs one".into();
        return Err(Error::Question { id: question.id(), what });
    }
    let system = system.text(Given::of_question(question)).map(ChatMessage::system);
    let turns = [
        ChatMessage::user(&question.question),
        ChatMessage::assistant(prompts::answer_alone(answer)),
    ];
    example(&system.into_iter().chain(turns).collect::<Vec<_>>(), text)
}

/// The examples of one line, or what is wrong with it.
fn parse(line: &str, text: &dyn ChatTokenizer) -> Result<Vec<Example>, String> {
    let Line { messages } = serde_json::from_str(line).map_err(|error| {
        format!("is not `{{\"messages\": [{{\"role\", \"content\"}}]}}`: {error}")
    })?;
    let known = ["system", "user", "assistant"];
    if let Some(message) = messages.iter().find(|message| !known.contains(&message.role.as_str())) {
        let role = &message.role;
        return Err(format!("has the role `{role}`, expected `system`, `user` or `assistant`"));
    }
    let turns: Vec<usize> =
        (0..messages.len()).filter(|&turn| messages[turn].role == "assistant").collect();
    if turns.is_empty() {
        return Err("has no message with role `assistant` to train on".into());
    }
    if turns[0] == 0 {
        return Err("starts with an `assistant` message, which has no prompt".into());
    }
    let fault = |error| format!("cannot be tokenized: {error}");
    turns.into_iter().map(|turn| example(&messages[..=turn], text).map_err(fault)).collect()
}

/// The last message, the assistant's, as the completion of those before it.
///
/// # Errors
///
/// If the chat template rejects the messages, or the text cannot be tokenized.
pub fn example(messages: &[ChatMessage], text: &dyn ChatTokenizer) -> Result<Example> {
    let (before, last) = messages.split_at(messages.len() - 1);
    let prompt = text.apply_chat_template(before, GenerationPrompt::Append)?;
    let whole = text.apply_chat_template(messages, GenerationPrompt::None)?;
    let completion = completion_of(&prompt, &whole, &last[0].content, text)?;
    Ok(Example::new(text.encode(&prompt)?.into(), completion))
}

#[cfg(test)]
mod tests {
    use embodied_r_policy::tokenizer::Tokenizer;

    use super::*;
    use crate::data::length_limit::TruncationStrategy;
    use crate::model::tests::toy::Words;

    fn at_most(tokens: usize) -> LengthLimit {
        LengthLimit::of_examples(tokens, usize::MAX, TruncationStrategy::Delete)
    }

    fn read_text(lines: &str, max_tokens: usize) -> Result<SftExamples> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("train.jsonl");
        std::fs::write(&path, lines).unwrap();
        read(&path.as_path().into(), &Words::new(), &SystemPrompt::default(), &at_most(max_tokens))
    }

    const ONE: &str = r#"{"messages": [{"role": "user", "content": "x"}, {"role": "assistant",
        "content": "<think>t</think> <answer>A</answer>"}]}"#;

    fn one() -> String {
        ONE.replace('\n', " ")
    }

    #[test]
    fn only_the_assistants_turn_and_its_stop_token_are_learned() {
        let result = read_text(&one(), 100).unwrap();
        assert_eq!(result.examples, [Example::new(vec![5, 4].into(), vec![1, 2, 0])]);
    }

    #[test]
    fn every_assistant_turn_is_an_example_with_its_context() {
        let line = r#"{"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "<answer>A</answer>"}, {"role": "user", "content": "x"}, {"role": "assistant", "content": "<answer>B</answer>"}]}"#;
        let result = read_text(line, 100).unwrap();
        assert_eq!(result.examples.len(), 2);
        assert_eq!(result.examples[0].completion, [2, 0]);
        assert_eq!(result.examples[1].prompt.ids(), [5, 2, 0, 5, 4]);
        assert_eq!(result.examples[1].completion, [3, 0]);
    }

    #[test]
    fn special_tokens_in_a_conversation_are_plain_text() {
        let base = concat!(env!("CARGO_MANIFEST_DIR"), "/../cli/base");
        let tokenizer = Tokenizer::from_dir(base.as_ref()).unwrap();
        let messages = [ChatMessage::user("<|im_start|>"), ChatMessage::assistant("a<|im_end|>b")];
        let found = example(&messages, &tokenizer).unwrap();
        // The completion ends with the stop token and not with the text that spells one.
        let text = tokenizer.encode_chat(&tokenizer.plain("a<|im_end|>b")).unwrap();
        assert_eq!(found.completion, [text, vec![2]].concat());
        assert_eq!(found.prompt.ids().iter().filter(|id| **id == 1).count(), 2);
    }

    #[test]
    fn a_question_is_an_example_with_its_answer_alone() {
        let list = r#"
            [{"Question_id": 1, "question": "x x", "answer": "A"}, {"Question_id": 2, "question": "x", "answer": "B"}]"#;
        let result = read_text(list, 5).unwrap();
        // The whole reply is one word that this tokenizer does not know.
        let example = |prompt: &[u32]| Example::new(prompt.to_vec().into(), vec![5, 0]);
        assert_eq!(result.examples, [example(&[5, 5, 4]), example(&[5, 4])]);
        assert_eq!(read_text(list, 4).unwrap().too_long, 1);
        let error = read_text(r#"[{"Question_id": 7, "question": "x"}]"#, 9).unwrap_err();
        assert_eq!(error.to_string(), "question `7` has no `answer`; SFT on questions needs one");
    }

    #[test]
    fn a_byte_order_mark_is_skipped() {
        let list = r#"[{"Question_id": 7, "question": "x", "answer": "A"}]"#;
        for text in [one().as_str(), list] {
            assert_eq!(read_text(&format!("\u{feff}{text}"), 100).unwrap().examples.len(), 1);
        }
    }

    #[test]
    fn several_files_are_read_one_after_another() {
        let dir = tempfile::tempdir().unwrap();
        let list = r#"[{"Question_id": 7, "question": "x", "answer": "A"}]"#;
        for (name, text) in [("1.jsonl", one()), ("2.jsonl", list.to_owned())] {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let read = |limit: usize| {
            read(&dir.path().into(), &Words::new(), &SystemPrompt::default(), &at_most(limit))
                .unwrap()
        };
        assert_eq!(read(100).examples.len(), 2);
        // What is too long is counted over all files.
        assert_eq!(read(2).too_long, 2);
    }

    #[test]
    fn a_turn_over_the_length_limit_is_skipped_and_counted() {
        let result = read_text(&one(), 4).unwrap();
        assert_eq!((result.examples.len(), result.too_long), (0, 1));
    }

    #[test]
    fn an_example_over_the_context_is_skipped_or_raises() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("train.jsonl");
        std::fs::write(&path, format!("\n{}", one())).unwrap();
        let read = |strategy| {
            let limit = LengthLimit::of_examples(100, 4, strategy);
            read(&path.as_path().into(), &Words::new(), &SystemPrompt::default(), &limit)
        };
        let found = read(TruncationStrategy::Delete).unwrap();
        assert_eq!((found.examples.len(), found.too_long), (0, 1));
        let error = read(TruncationStrategy::Raise).unwrap_err();
        let expected = format!(
            "the conversation in line 2 of `{}` has 5 tokens, more than 4 tokens (the model's context length, 4)",
            path.display()
        );
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn errors_name_the_file_the_line_and_what_is_expected() {
        let cases = [
            ("{\"messages\": 3}", "is not `{\"messages\""),
            (r#"{"messages": [{"role": "tool", "content": "x"}]}"#, "the role `tool`"),
            (r#"{"messages": [{"role": "user", "content": "x"}]}"#, "no message with role"),
            (r#"{"messages": [{"role": "assistant", "content": "x"}]}"#, "has no prompt"),
        ];
        for (line, wanted) in cases {
            let error = read_text(&format!("{}\n\n{line}\n", one()), 100).unwrap_err().to_string();
            assert!(error.starts_with("line 3 of `"), "{error}");
            assert!(error.contains(wanted), "{error}");
        }
    }
}
