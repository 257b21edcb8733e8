//! A model, questions, a reward and settings for runs of several ranks.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::tiny_model;

/// Scores completions by their tokens, so that all groups have spread.
const SCORE: &str = r#"
sed 's/.*"completion_ids":\[\[//; s/\]\].*//; s/\],\[/\n/g' | awk -F, '
    { sum = 0; for (i = 1; i <= NF; i++) sum += $i; scores = scores (NR > 1 ? "," : "") sum % 5 }
    END { print "{\"rewards\": [" scores "]}" }'
"#;

const SETTINGS: &str = r#"
num_generations = 3
generation_batch_size = 9
max_completion_length = 6
learning_rate = 1e-3
warmup_ratio = 0.0
num_train_epochs = 2
dynamic_sample = true
save_steps = 2
reward_weights = { tokens = 1.0 }

[[reward]]
name = "tokens"
command = ["sh", "score.sh"]
"#;

/// Writes a model, seven questions, and settings for four steps of three questions.
pub(crate) fn write(dir: &Path) {
    tiny_model::write(&dir.join("model"));
    let question = |i: usize| {
        json!({
            "Question_id": i,
            "question_category": "object_rel_distance",
            "question": format!("Frame 0: Observe: {}\nQuestion: where?", "lamp left ".repeat(i + 1)),
            "answer": "A",
        })
    };
    let questions: Vec<Value> = (0..7).map(question).collect();
    fs::write(dir.join("train.json"), serde_json::to_vec(&questions).unwrap()).unwrap();
    fs::write(dir.join("score.sh"), SCORE).unwrap();
    fs::write(dir.join("run.toml"), SETTINGS).unwrap();
}
