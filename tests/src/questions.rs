//! Questions to train on.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

/// Writes `count` questions with the answer A to `train.json` in `dir`. `text` returns the text of the i-th question.
///
/// # Panics
/// The file cannot be written.
pub fn write_questions(dir: &Path, count: usize, text: impl Fn(usize) -> String) {
    let question = |i: usize| {
        json!({
            "Question_id": i,
            "question_category": "object_rel_distance",
            "question": text(i),
            "answer": "A",
        })
    };
    let questions: Vec<Value> = (0..count).map(question).collect();
    fs::write(dir.join("train.json"), json!(questions).to_string()).expect("a folder to write to");
}

/// [`write_questions`] about a lamp in one frame each.
///
/// # Panics
/// The file cannot be written.
pub fn write_lamp_questions(dir: &Path, count: usize) {
    let text = |i| format!("Frame 0: Observe: lamp left {i}0\n>\nQuestion: where is the lamp?");
    write_questions(dir, count, text);
}
