//! `embodied-r sim conversations`.

use embodied_r_data::prompts;
use embodied_r_data::question::{Question, read_questions};
use embodied_r_data::write::write_atomic;
use embodied_r_grpo::random::{permutation, stream};
use embodied_r_sim::{Category, Rationale, corpus, rationale_in_prompt};
use serde_json::{Value, json};

use crate::args::sim::ConversationsArgs;
use crate::exit::Status;
use crate::output::outln;

/// Write cold-start conversations: questions with reasoning, and judge examples.
pub(super) fn run(args: ConversationsArgs) -> anyhow::Result<Status> {
    let questions = read_questions(&args.data)?;
    let system = args.system_prompt.as_deref().unwrap_or_else(|| prompts::system_prompt());
    let order = permutation(questions.len(), stream(&[args.seed]));
    let right = order.iter().filter_map(|index| {
        let question = &questions[*index];
        Some((question, right_rationale(question)?))
    });
    let mut reasoned: Vec<Value> = right
        .take(args.questions)
        .enumerate()
        .map(|(index, (question, rationale))| {
            let rationale = match falls_within(index, args.at_once) {
                true => rationale.without_grounds(),
                false => rationale,
            };
            conversation(system, &question.question, &rationale.completion())
        })
        .collect();
    let count = reasoned.len();
    let categories = Category::ALL;
    let judged = (0..args.judge_examples as u64).filter_map(|index| {
        let example = corpus::judge_example(args.seed, index, &categories)?;
        Some(conversation(&example.system, &example.user, &example.letter.to_string()))
    });
    reasoned.extend(judged);
    let mut lines = Vec::new();
    for conversation in &reasoned {
        serde_json::to_writer(&mut lines, conversation)?;
        lines.push(b'\n');
    }
    write_atomic(&args.output, &lines)?;
    outln!(
        "wrote {count} questions with reasoning and {} judge examples to {}",
        reasoned.len() - count,
        args.output.display()
    )?;
    Ok(Status::Done)
}

/// The rationale, if it leads to the correct answer.
fn right_rationale(question: &Question) -> Option<Rationale> {
    let rationale = rationale_in_prompt(&question.question)?;
    (question.answer.trim() == rationale.answer.to_string()).then_some(rationale)
}

/// Whether `index` is in an evenly spaced subset with a fraction `share` of all indices.
fn falls_within(index: usize, share: f64) -> bool {
    let until = |count: usize| (count as f64 * share).floor();
    until(index + 1) > until(index)
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
    fn a_share_of_the_questions_is_spaced_evenly() {
        let count = |share: f64| (0..10).filter(|&index| falls_within(index, share)).count();
        assert_eq!([0.0, 0.25, 0.5, 0.6, 1.0].map(count), [0, 2, 5, 6, 10]);
        let halves: Vec<bool> = (0..4).map(|index| falls_within(index, 0.5)).collect();
        assert_eq!(halves, [false, true, false, true]);
    }
}
