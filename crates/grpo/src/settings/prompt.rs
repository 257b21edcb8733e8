//! The system prompt and the chat template of training.

use embodied_r_data::system_prompt::{SystemPrompt, SystemPromptPreset};
use embodied_r_policy::tokenizer::ChatTemplateKwargs;
use serde::{Deserialize, Serialize};

/// The system prompt of questions. Conversations have their own.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PromptSettings {
    /// System prompt of every question, in place of a preset. Default: that of `system_prompt_preset`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system_prompt: Option<String>,
    /// System prompt by name: `auto` chooses by what the model is given with a question, `captions`, `bearings`, `frames`,
    /// `images` or `text`; `paper` is Embodied-R's. [The texts](#system-prompts). Default: "auto".
    pub system_prompt_preset: SystemPromptPreset,
    /// Variables of the model's chat template, such as `{ enable_thinking = false }` for Qwen3. Default: none.
    #[serde(skip_serializing_if = "ChatTemplateKwargs::is_empty")]
    pub chat_template_kwargs: ChatTemplateKwargs,
}

impl PromptSettings {
    /// The system prompt.
    pub fn system_prompt(&self) -> SystemPrompt {
        SystemPrompt::new(self.system_prompt.clone(), self.system_prompt_preset)
    }
}
