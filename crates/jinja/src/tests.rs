mod expressions;
mod hostile;
mod statements;

use serde_json::{Value, json};

use super::{Template, TemplateFault};

/// Renders a template for a conversation, with the variables that `transformers` gives and these.
fn render(source: &str, messages: &Value, variables: &Value) -> Result<String, TemplateFault> {
    let own = json!({"add_generation_prompt": true, "tools": null, "documents": null,
        "bos_token": "<s>", "eos_token": "<|im_end|>", "messages": messages});
    let all: Vec<(&str, &Value)> = [variables, &own]
        .into_iter()
        .filter_map(Value::as_object)
        .flatten()
        .map(|(name, value)| (name.as_str(), value))
        .collect();
    Template::parse(source)?.render(&all, messages.as_array().map_or(0, Vec::len))
}

fn conversation() -> Value {
    json!([
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "  Where?\n"},
        {"role": "assistant", "content": "There \"é\" <b>."},
    ])
}
