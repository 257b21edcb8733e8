//! The system prompt of a question, chosen by what the model is given.
//!
//! ```
//! use embodied_r_data::Question;
//! use embodied_r_data::system_prompt::{Given, SystemPrompt, SystemPromptPreset};
//!
//! let question = Question { question: "How many chairs?".to_owned(), ..Question::default() };
//! let given = Given::of_question(&question);
//! assert_eq!(given, Given::Text);
//! assert_eq!(SystemPrompt::default().text(given), Some(SystemPromptPreset::Text.text(given)));
//! let own = SystemPrompt::new(Some("Be brief.".to_owned()), SystemPromptPreset::Auto);
//! assert_eq!(own.text(given), Some("Be brief."));
//! assert_eq!(SystemPrompt::new(None, SystemPromptPreset::None).text(given), None);
//! ```

use serde::{Deserialize, Serialize};

use crate::captions::is_captioned;
use crate::multimodal::Sample;
use crate::prompts::BEARINGS;
use crate::question::Question;

/// What a model is given to answer a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Given {
    /// Captions with bearings and distances, for example of the built-in rooms.
    Bearings,
    /// Captions of a vision-language model.
    Captions,
    /// Frames of a video.
    Frames,
    /// Images.
    Images,
    /// Text only.
    Text,
}

impl Given {
    /// What a prompt of text has.
    pub fn of_text(text: &str) -> Self {
        match (text.contains(BEARINGS), is_captioned(text)) {
            (true, _) => Self::Bearings,
            (false, true) => Self::Captions,
            (false, false) => Self::Text,
        }
    }

    /// What a model that reads text is given with a question.
    pub fn of_question(question: &Question) -> Self {
        match Self::of_text(&question.question) {
            Self::Text if question.has_captions() => Self::Captions,
            given => given,
        }
    }

    /// What a model that sees is given with a question.
    pub fn of_sample(sample: &Sample) -> Self {
        match (sample.media.videos.is_empty(), sample.media.images.is_empty()) {
            (false, _) => Self::Frames,
            (true, false) => Self::Images,
            (true, true) => Self::of_question(&sample.question),
        }
    }
}

/// The name of a system prompt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SystemPromptPreset {
    /// Chosen for each question by what the model is given.
    #[default]
    Auto,
    /// For captions of a vision-language model.
    Captions,
    /// For captions with bearings and distances; the bundled base models are pretrained with it.
    Bearings,
    /// For frames of a video.
    Frames,
    /// For images.
    Images,
    /// For questions without video or images.
    Text,
    /// Embodied-R's, as far as it is published: DeepSeek-R1-Zero's, and that the answer follows from the reasoning.
    Paper,
    /// No system message; a chat template may have one of its own.
    None,
}

/// A system prompt that asks for reasoning and an answer in tags, after what the model is given.
macro_rules! reasoned {
    ($given:literal) => {
        concat!(
            $given,
            " First reason between <think> and </think>, then give only the final answer between <answer> and </answer>. The \
             answer must follow from the reasoning."
        )
    };
}

impl SystemPromptPreset {
    /// All, in the order of the documentation.
    pub const ALL: [Self; 8] = [
        Self::Auto,
        Self::Captions,
        Self::Bearings,
        Self::Frames,
        Self::Images,
        Self::Text,
        Self::Paper,
        Self::None,
    ];

    /// The system prompt for a question with which the model is `given` this; empty for [`Self::None`].
    pub fn text(self, given: Given) -> &'static str {
        match self {
            Self::Auto => Self::of(given).text(given),
            Self::Captions => reasoned!(
                "You answer questions about a video. You are given captions of its key frames, in time order."
            ),
            // The bundled base models have seen exactly this text in pretraining.
            Self::Bearings => {
                reasoned!("You answer questions about a video that is told in words.")
            }
            Self::Frames => {
                reasoned!(
                    "You answer questions about a video. You see frames of it, in time order."
                )
            }
            Self::Images => reasoned!("You answer questions about images."),
            Self::Text => reasoned!("You answer questions."),
            Self::Paper => {
                "A conversation between User and Assistant. The user asks a question, and the Assistant solves it. The \
                 assistant first thinks about the reasoning process in the mind and then provides the user with the \
                 answer. The reasoning process and answer are enclosed within <think> </think> and <answer> </answer> \
                 tags, respectively, i.e., <think> reasoning process here </think> \n<answer> answer here </answer>. \
                 Ensure that your answer is consistent with and directly derived from your thinking process, maintaining \
                 logical coherence between the two sections. User: . Assistant:"
            }
            Self::None => "",
        }
    }

    fn of(given: Given) -> Self {
        match given {
            Given::Bearings => Self::Bearings,
            Given::Captions => Self::Captions,
            Given::Frames => Self::Frames,
            Given::Images => Self::Images,
            Given::Text => Self::Text,
        }
    }
}

/// The system prompt of a run. It is written as the user's text or the preset's name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum SystemPrompt {
    /// The user's own, for every question.
    Own(String),
    /// A preset.
    Preset(SystemPromptPreset),
}

impl Default for SystemPrompt {
    fn default() -> Self {
        Self::Preset(SystemPromptPreset::Auto)
    }
}

impl SystemPrompt {
    /// The user's `own` text, or else the `preset`.
    pub fn new(own: Option<String>, preset: SystemPromptPreset) -> Self {
        own.map_or(Self::Preset(preset), Self::Own)
    }

    /// Its text for a question with which the model is `given` this; `None` for no system message.
    pub fn text(&self, given: Given) -> Option<&str> {
        match self {
            Self::Own(text) => Some(text),
            Self::Preset(SystemPromptPreset::None) => None,
            Self::Preset(preset) => Some(preset.text(given)),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::multimodal::{Media, MediaFile, Video};
    use crate::prompts::{CaptionStyle, FrameText, perceived_prompt};

    fn captioned(style: CaptionStyle) -> Question {
        let frame = FrameText { action: None, view: "a lamp".to_owned() };
        let question = perceived_prompt(&[frame], "Question: Where?", style);
        Question { question, ..Question::default() }
    }

    #[test]
    fn the_preset_follows_from_what_the_model_is_given() {
        let text = Question { question: "How many?".to_owned(), ..Question::default() };
        let mut own = text.clone();
        own.extra.insert("original_question".to_owned(), json!("How many?"));
        for (question, given) in [
            (captioned(CaptionStyle::Bearings), Given::Bearings),
            (captioned(CaptionStyle::Prose), Given::Captions),
            (own, Given::Captions),
            (text, Given::Text),
        ] {
            assert_eq!(Given::of_question(&question), given);
        }
        let file = || MediaFile::Path("a".into());
        let of = |images, videos| {
            Given::of_sample(&Sample {
                media: Media { images, videos },
                ..Sample::from_text(captioned(CaptionStyle::Bearings))
            })
        };
        assert_eq!(of(vec![file()], vec![Video::File(file())]), Given::Frames);
        assert_eq!(of(vec![file()], vec![]), Given::Images);
        assert_eq!(of(vec![], vec![]), Given::Bearings);
    }

    #[test]
    fn only_captions_are_said_to_be_told_in_words() {
        let auto = SystemPrompt::default();
        let says = |given, text: &str| auto.text(given).unwrap().contains(text);
        assert!(says(Given::Bearings, "told in words") && says(Given::Captions, "captions"));
        for given in [Given::Frames, Given::Images, Given::Text] {
            assert!(!says(given, "told in words") && !says(given, "captions"), "{given:?}");
        }
        assert!(!says(Given::Images, "video") && !says(Given::Text, "video"));
    }

    #[test]
    fn every_preset_names_all_four_tags() {
        let has_text = |preset: &SystemPromptPreset| *preset != SystemPromptPreset::None;
        for preset in SystemPromptPreset::ALL.into_iter().filter(has_text) {
            for tag in ["<think>", "</think>", "<answer>", "</answer>"] {
                assert!(preset.text(Given::Text).contains(tag), "{preset:?}: {tag}");
            }
        }
    }

    #[test]
    fn a_preset_is_the_same_whatever_is_given_and_an_own_text_overrides_it() {
        let frames = SystemPrompt::new(None, SystemPromptPreset::Bearings);
        assert_eq!(frames.text(Given::Frames), frames.text(Given::Bearings));
        let own = SystemPrompt::new(Some("x".to_owned()), SystemPromptPreset::Paper);
        assert_eq!(own.text(Given::Frames), Some("x"));
        let written = [own, frames].map(|prompt| serde_json::to_value(prompt).unwrap());
        assert_eq!(written, [json!("x"), json!("bearings")]);
    }
}
