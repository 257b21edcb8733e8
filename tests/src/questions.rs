//! Questions to train on.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

/// Writes `count` questions whose answer is A to `train.json` in `dir`; `text` gives the text of each.
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

/// As [`write_questions`], each of one frame with a lamp.
///
/// # Panics
/// As there.
pub fn write_lamp_questions(dir: &Path, count: usize) {
    let text = |i| format!("Frame 0: Observe: lamp left {i}0\n>\nQuestion: where is the lamp?");
    write_questions(dir, count, text);
}
