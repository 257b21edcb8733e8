//! `embodied-r sim conversations`.

mod robot;

use std::collections::VecDeque;

use embodied_r_data::prompts;
use embodied_r_data::question::{Question, read_questions};
use embodied_r_data::system_prompt::{Given, SystemPromptPreset};
use embodied_r_files::write_lines;
use embodied_r_random::{permutation, stream};
use embodied_r_sim::arm::WrittenArm;
use embodied_r_sim::views::{RATIONALE, perceived};
use embodied_r_sim::{Category, judge_example, rationale_in_prompt};
use indexmap::IndexMap;
use serde_json::{Value, json};

use crate::args::sim::ConversationsArgs;
use crate::exit::Status;
use crate::output::outln;

/// Write cold-start conversations: worked examples, and judge examples.
pub(super) fn run(args: ConversationsArgs) -> anyhow::Result<Status> {
    let questions = read_questions(&args.data)?;
    let bearings = SystemPromptPreset::Bearings.text(Given::Bearings);
    let system = args.system_prompt.as_deref().unwrap_or(bearings);
    let order = permutation(questions.len(), stream(&[args.seed]));
    let demonstrations = args.demos.as_deref().map(WrittenArm::open).transpose()?;
    let examples = order.iter().filter_map(|index| {
        let question = &questions[*index];
        let mut example = match &demonstrations {
            Some(demonstrations) => robot::example(question, demonstrations)?,
            None => Example::of(question)?,
        };
        if args.answers_only {
            example.completion = prompts::answer_alone(&question.answer);
        }
        Some(example)
    });
    let mut conversations: Vec<Value> = in_turns(examples, |example| example.group.clone())
        .take(args.questions)
        .map(|example| {
            let mut written = conversation(system, &example.question.question, &example.completion);
            if let Some(images) = example.question.extra.get("images") {
                written["images"] = images.clone();
            }
            written
        })
        .collect();
    let count = conversations.len();
    let judged = (0..args.judge_examples as u64).filter_map(|index| {
        let example = judge_example(args.seed, index, &Category::ALL)?;
        Some(conversation(&example.system, &example.user, &example.letter.to_string()))
    });
    conversations.extend(judged);
    write_lines(&args.output, &conversations)?;
    let kind = if args.answers_only { "answers without reasoning" } else { "worked examples" };
    outln!(
        "wrote {count} {kind} and {} judge examples to {}",
        conversations.len() - count,
        args.output.display()
    )?;
    Ok(Status::Done)
}

/// A question with its worked answer.
struct Example<'a> {
    question: &'a Question,
    completion: String,
    /// Examples are uniform over the first, and within each over the second.
    group: [String; 2],
}

impl<'a> Example<'a> {
    /// A question about a room.
    fn of(question: &'a Question) -> Option<Self> {
        let group = [question.question_category.clone(), String::new()];
        Some(Self { question, completion: worked(question)?, group })
    }
}

/// The completion with reasoning, if it leads to the correct answer. Of a question that points, the scene has both.
fn worked(question: &Question) -> Option<String> {
    if let Some(rationale) = question.extra.get(RATIONALE).and_then(Value::as_str) {
        return Some(format!("<think>{rationale}</think><answer>{}</answer>", question.answer));
    }
    let rationale = rationale_in_prompt(perceived(question))?;
    (question.answer.trim() == rationale.answer.to_string()).then(|| rationale.completion())
}

/// The items in an order in which their groups take turns, and within a group its subgroups, so that any number of them is
/// uniform over groups.
fn in_turns<T>(
    items: impl IntoIterator<Item = T>,
    group: impl Fn(&T) -> [String; 2],
) -> impl Iterator<Item = T> {
    let mut groups: IndexMap<String, IndexMap<String, VecDeque<T>>> = IndexMap::new();
    for item in items {
        let [outer, inner] = group(&item);
        groups.entry(outer).or_default().entry(inner).or_default().push_back(item);
    }
    groups.sort_keys();
    let in_order = |mut subgroups: IndexMap<String, VecDeque<T>>| {
        subgroups.sort_keys();
        by_turns(subgroups.into_values().collect())
    };
    by_turns(groups.into_values().map(|group| in_order(group).collect()).collect())
}

/// The items of all queues, one of each in turn.
fn by_turns<T>(mut queues: VecDeque<VecDeque<T>>) -> impl Iterator<Item = T> {
    std::iter::from_fn(move || {
        let mut queue = queues.pop_front()?;
        let item = queue.pop_front();
        if !queue.is_empty() {
            queues.push_back(queue);
        }
        item
    })
}

fn conversation(system: &str, user: &str, assistant: &str) -> Value {
    json!({"messages": [
        {"role": "system", "content": system},
        {"role": "user", "content": user},
        {"role": "assistant", "content": assistant},
    ]})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_take_turns_until_each_is_used_up() {
        let ordered = |items: &[&'static str]| -> Vec<&str> {
            in_turns(items.iter().copied(), |item| [item[..1].to_owned(), item[2..].to_owned()])
                .collect()
        };
        let items = ["b1", "a1", "a2", "b2", "a3", "c1"];
        assert_eq!(ordered(&items), ["a1", "b1", "c1", "a2", "b2", "a3"]);
        let items = ["a1x", "a2x", "b1x", "a3x", "a1y", "b1y"];
        assert_eq!(ordered(&items), ["a1x", "b1x", "a1y", "b1y", "a2x", "a3x"]);
    }
}
