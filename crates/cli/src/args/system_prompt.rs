//! The system prompt of commands without settings.

use embodied_r_data::system_prompt::{SystemPrompt, SystemPromptPreset};

/// The system prompt.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct SystemPromptArgs {
    /// System prompt of every question, in place of a preset.
    #[arg(long, value_name = "TEXT")]
    pub(crate) system_prompt: Option<String>,
    /// System prompt by name, as in training; `auto` chooses by what the model is given with a question.
    #[arg(
        long,
        value_enum,
        value_name = "NAME",
        default_value_t,
        conflicts_with = "system_prompt"
    )]
    pub(crate) system_prompt_preset: SystemPromptPresetName,
}

impl SystemPromptArgs {
    /// No system message by default.
    pub(super) fn omit_default(&mut self) {
        if self.system_prompt.is_none() && self.system_prompt_preset == SystemPromptPresetName::Auto
        {
            self.system_prompt_preset = SystemPromptPresetName::None;
        }
    }

    /// The system prompt.
    pub(crate) fn system_prompt(&self) -> SystemPrompt {
        SystemPrompt::new(self.system_prompt.clone(), self.system_prompt_preset.into())
    }
}

/// The name of a system prompt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum SystemPromptPresetName {
    /// By what the model is given.
    #[default]
    Auto,
    /// Captions of a vision-language model.
    Captions,
    /// Captions with bearings and distances, for example of the built-in rooms.
    Bearings,
    /// Frames of a video.
    Frames,
    /// Images.
    Images,
    /// Neither video nor images.
    Text,
    /// Embodied-R's.
    Paper,
    /// No system message.
    None,
}

impl From<SystemPromptPresetName> for SystemPromptPreset {
    fn from(name: SystemPromptPresetName) -> Self {
        match name {
            SystemPromptPresetName::Auto => Self::Auto,
            SystemPromptPresetName::Captions => Self::Captions,
            SystemPromptPresetName::Bearings => Self::Bearings,
            SystemPromptPresetName::Frames => Self::Frames,
            SystemPromptPresetName::Images => Self::Images,
            SystemPromptPresetName::Text => Self::Text,
            SystemPromptPresetName::Paper => Self::Paper,
            SystemPromptPresetName::None => Self::None,
        }
    }
}
