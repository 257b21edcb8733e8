//! `embodied-r sim conversations`.

use embodied_r_data::prompts;
use embodied_r_data::question::{Question, read_questions};
use embodied_r_data::write::write_atomic;
use embodied_r_grpo::random::{permutation, stream};
use embodied_r_sim::{Category, corpus, rationale_in_prompt};
use serde_json::{Value, json};

use crate::args::sim::ConversationsArgs;
use crate::exit::Status;

/// Write conversations for a cold start: questions with reasoning, and the judge's task.
pub(super) fn run(args: ConversationsArgs) -> anyhow::Result<Status> {
    let questions = read_questions(&args.data)?;
    let system = args.system_prompt.as_deref().unwrap_or_else(|| prompts::system_prompt());
    let order = permutation(questions.len(), stream(&[args.seed]));
    let mut reasoned: Vec<Value> = order
        .iter()
        .filter_map(|index| reasoned(&questions[*index], system))
        .take(args.questions)
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
    write_atomic(&args.out, &lines)?;
    println!(
        "{count} questions with reasoning and {} judge's examples in {}",
        reasoned.len() - count,
        args.out.display()
    );
    Ok(Status::Done)
}

/// The question with reasoning, if the captions lead to the right answer.
fn reasoned(question: &Question, system: &str) -> Option<Value> {
    let rationale = rationale_in_prompt(&question.question)?;
    let right = question.answer.trim() == rationale.answer.to_string();
    right.then(|| conversation(system, &question.question, &rationale.completion()))
}

fn conversation(system: &str, user: &str, assistant: &str) -> Value {
    json!({"messages": [
        {"role": "system", "content": system},
        {"role": "user", "content": user},
        {"role": "assistant", "content": assistant},
    ]})
}
