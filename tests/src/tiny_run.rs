//! A model, questions, a reward and settings for runs on several ranks.

use std::fs;
use std::path::Path;

use crate::{tiny_model, write_questions};

/// Scores completions by their tokens; one in four groups of three has zero variance.
const SCORE: &str = r#"
sed 's/.*"completion_ids":\[\[//; s/\]\].*//; s/\],\[/\n/g' | awk -F, '
    { sum = 0; for (i = 1; i <= NF; i++) sum += $i; scores = scores (NR > 1 ? "," : "") sum % 2 }
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
max_tokens_per_batch = 40
reward_weights = { tokens = 1.0 }

[[reward]]
name = "tokens"
command = ["sh", "score.sh"]
"#;

/// Writes a model, seven questions, and settings for four steps of three questions.
///
/// # Panics
/// The folder cannot be written.
pub fn write(dir: &Path) {
    tiny_model::write(&dir.join("model"));
    let text = |i| format!("Frame 0: Observe: {}\nQuestion: where?", "lamp left ".repeat(i + 1));
    write_questions(dir, 7, text);
    fs::write(dir.join("score.sh"), SCORE).expect("a folder to write to");
    fs::write(dir.join("run.toml"), SETTINGS).expect("a folder to write to");
}
