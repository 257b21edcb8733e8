//! `embodied-r sim conversations`.

use std::collections::VecDeque;

use embodied_r_data::prompts;
use embodied_r_data::question::{Question, read_questions};
use embodied_r_files::write_lines;
use embodied_r_random::{permutation, stream};
use embodied_r_sim::views::perceived;
use embodied_r_sim::{Category, judge_example, rationale_in_prompt};
use indexmap::IndexMap;
use serde_json::{Value, json};

use crate::args::sim::ConversationsArgs;
use crate::exit::Status;
use crate::output::outln;

/// Write cold-start conversations: worked examples, and judge examples.
pub(super) fn run(args: ConversationsArgs) -> anyhow::Result<Status> {
    let questions = read_questions(&args.data)?;
    let system = args.system_prompt.as_deref().unwrap_or_else(|| prompts::system_prompt());
    let order = permutation(questions.len(), stream(&[args.seed]));
    let answer_alone = |question: &Question| Some(prompts::answer_alone(&question.answer));
    let completion = |question: &Question| match args.answers_only {
        true => answer_alone(question),
        false => worked(question),
    };
    let completed = order.iter().filter_map(|index| {
        let question = &questions[*index];
        Some((question, completion(question)?))
    });
    let category = |(question, _): &(&Question, String)| question.question_category.clone();
    let mut conversations: Vec<Value> = in_turns(completed, category)
        .take(args.questions)
        .map(|(question, completion)| {
            let mut written = conversation(system, &question.question, &completion);
            if let Some(images) = question.extra.get("images") {
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

/// The completion with reasoning, if it leads to the correct answer.
fn worked(question: &Question) -> Option<String> {
    let rationale = rationale_in_prompt(perceived(question))?;
    (question.answer.trim() == rationale.answer.to_string()).then(|| rationale.completion())
}

/// The items in an order in which their groups take turns, so that any number of them is uniform over groups.
fn in_turns<T>(
    items: impl IntoIterator<Item = T>,
    group: impl Fn(&T) -> String,
) -> impl Iterator<Item = T> {
    let mut groups: IndexMap<String, VecDeque<T>> = IndexMap::new();
    for item in items {
        groups.entry(group(&item)).or_default().push_back(item);
    }
    groups.sort_keys();
    let mut queues: VecDeque<VecDeque<T>> = groups.into_values().collect();
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
        let items = ["b1", "a1", "a2", "b2", "a3", "c1"];
        let ordered: Vec<&str> = in_turns(items, |item| item[..1].to_owned()).collect();
        assert_eq!(ordered, ["a1", "b1", "c1", "a2", "b2", "a3"]);
    }
}
