use std::fs;
use std::path::{Path, PathBuf};

/// A small random vision-language model, and what `transformers` makes of pictures with it
/// (`scripts/parity/make_vision_fixtures.py`).
#[derive(Debug, Clone, Copy)]
pub enum VisionModel {
    /// In the form of the checkpoints on the hub.
    Flat,
    /// As `transformers` 5 writes it.
    Nested,
    /// As llama.cpp has it, with the same numbers as [`Self::Flat`].
    Gguf,
}

impl VisionModel {
    /// Where its files lie.
    pub fn folder(self) -> PathBuf {
        let name = match self {
            Self::Flat => "flat",
            Self::Nested => "nested",
            Self::Gguf => "gguf",
        };
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/vision/tests/fixtures").join(name)
    }

    /// Copies it into a new folder.
    ///
    /// # Panics
    /// The folder is there already or cannot be written.
    pub fn write(self, to: &Path) {
        fs::create_dir(to).expect("a new folder");
        for entry in fs::read_dir(self.folder()).expect("the fixture is a folder") {
            let entry = entry.expect("the fixture can be read");
            fs::copy(entry.path(), to.join(entry.file_name())).expect("a file can be written");
        }
    }
}
