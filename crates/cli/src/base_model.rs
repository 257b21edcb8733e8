//! The small base models embedded in the program.

use std::path::Path;

use embodied_r_files::write_atomic;

/// A model's files by name; `pretrain.json` records how they were made.
type Files = &'static [(&'static str, &'static [u8])];

macro_rules! files {
    ($folder:literal: $($name:literal),+) => {
        &[$(($name, include_bytes!(concat!("../", $folder, "/", $name)))),+]
    };
}

/// The files of a vision-language model.
macro_rules! vision_files {
    ($folder:literal) => {
        files!($folder: "config.json", "generation_config.json", "model.safetensors", "preprocessor_config.json",
            "pretrain.json", "tokenizer.json", "tokenizer_config.json")
    };
}

/// A bundled base model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BaseModel {
    /// Reads text.
    Text,
    /// Reads text and sees images.
    Vision,
    /// Sees images of the simulated robot arm.
    Arm,
}

impl BaseModel {
    fn files(self) -> Files {
        match self {
            Self::Text => {
                files!("base": "config.json", "generation_config.json", "model.safetensors", "pretrain.json",
                "tokenizer.json", "tokenizer_config.json")
            }
            Self::Vision => vision_files!("base/vision"),
            Self::Arm => vision_files!("base/arm"),
        }
    }

    /// Writes the model into `dir`.
    pub(crate) fn unpack(self, dir: &Path) -> anyhow::Result<()> {
        std::fs::create_dir_all(dir).map_err(embodied_r_files::Error::io("create", dir))?;
        for (name, bytes) in self.files() {
            write_atomic(&dir.join(name), bytes)?;
        }
        Ok(())
    }
}
