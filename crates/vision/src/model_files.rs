//! The configuration files of a new vision-language model.

use serde_json::{Value, json};

use crate::config::VisionConfig;
use crate::processor::{IMAGE_FILE, ProcessorFiles, VIDEO_FILE};

impl VisionConfig {
    /// The files of a model of this tower's family, besides its tokenizer and weights: `config.json`, made of that of its
    /// `decoder` and the `vision_config` that this is read from, and those of its processor. The tokens of the start and
    /// the end of an image, of an image and of a video have the ids from `first_token` on.
    #[must_use]
    pub fn model_files(
        &self,
        decoder: Value,
        vision: Value,
        first_token: u32,
    ) -> Vec<(&'static str, Value)> {
        let mut config = self.family().model_config(decoder, vision);
        for (offset, name) in (0..).zip(["vision_start", "vision_end", "image", "video"]) {
            config[format!("{name}_token_id")] = json!(first_token + offset);
        }
        let mut files = vec![("config.json", config)];
        let ProcessorFiles { images, videos } = self.family().processor_files();
        files.push((IMAGE_FILE, images));
        files.extend(videos.map(|videos| (VIDEO_FILE, videos)));
        files
    }

    /// How the names of the decoder's and of the tower's tensors begin in a checkpoint of this tower's family.
    #[must_use]
    pub fn prefixes(&self) -> [&'static str; 2] {
        self.family().prefixes()
    }
}
