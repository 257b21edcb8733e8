use std::fs;
use std::path::{Path, PathBuf};

/// A small random vision-language model, with the outputs of `transformers` for images
/// (`scripts/parity/make_vision_fixtures.py`).
#[derive(Debug, Clone, Copy)]
pub enum VisionModel {
    /// In the layout of the checkpoints on the hub.
    Flat,
    /// In the layout that `transformers` 5 writes.
    Nested,
    /// In llama.cpp's format, with the weights of [`Self::Flat`].
    Gguf,
    /// Qwen3-VL, with outputs for images alone. The others are Qwen2.5-VL.
    Qwen3Vl,
}

impl VisionModel {
    /// The folder of its files.
    pub fn folder(self) -> PathBuf {
        let name = match self {
            Self::Flat => "flat",
            Self::Nested => "nested",
            Self::Gguf => "gguf",
            Self::Qwen3Vl => "qwen3_vl",
        };
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/vision/tests/fixtures").join(name)
    }

    /// Copies the model into the new folder `to`.
    ///
    /// # Panics
    /// The folder exists already or cannot be written.
    pub fn write(self, to: &Path) {
        fs::create_dir(to).expect("a new folder");
        for entry in fs::read_dir(self.folder()).expect("the fixture is a folder") {
            let entry = entry.expect("the fixture can be read");
            fs::copy(entry.path(), to.join(entry.file_name())).expect("a file can be written");
        }
    }
}
