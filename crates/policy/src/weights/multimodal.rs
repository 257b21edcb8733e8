//! What a vision-language checkpoint holds around its decoder, so that a trained decoder is written back into it.

use std::collections::HashMap;
use std::path::Path;

use candle_core::Tensor;

use super::file::WeightFile;
use super::names::{canonical, is_vision};
use super::write::{Item, SaveOptions, Share, save_items};
use crate::atomic;
use crate::config::CONFIG_FILE;
use crate::error::{Error, Result};

/// How images become the vision tower's input, by the files of the different versions of `transformers`.
const PROCESSOR_FILES: [&str; 3] =
    ["preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json"];

/// All of a vision-language checkpoint but its decoder's numbers and its tokenizer.
///
/// The vision tower stays in the mapped files: it takes no memory, and it goes into a new checkpoint byte for byte.
pub(crate) struct Multimodal {
    files: Vec<WeightFile>,
    /// The decoder's tensors: what the files call each canonical name.
    names: HashMap<String, String>,
    /// `config.json` and the processor's files.
    texts: Vec<(&'static str, Vec<u8>)>,
}

impl Multimodal {
    /// What lies around the decoder in `files` of the folder `dir`; none if they have no vision tower.
    pub(crate) fn find(dir: &Path, files: &[WeightFile]) -> Result<Option<Self>> {
        let all = || files.iter().flat_map(WeightFile::iter).map(|(name, _)| name);
        if !all().any(is_vision) {
            return Ok(None);
        }
        let names = all().filter_map(|name| Some((canonical(name)?, name.to_owned()))).collect();
        let mut texts = Vec::new();
        for name in std::iter::once(CONFIG_FILE).chain(PROCESSOR_FILES) {
            let path = dir.join(name);
            if path.is_file() {
                texts.push((name, std::fs::read(&path).map_err(Error::io("read", &path))?));
            }
        }
        Ok(Some(Self { files: files.to_vec(), names, texts }))
    }

    /// Writes the checkpoint with other numbers of the decoder, given by canonical name.
    pub(crate) fn save<'a>(
        &'a self,
        dir: &Path,
        decoder: impl Iterator<Item = (&'a str, &'a Tensor)>,
        options: &SaveOptions,
        share: Share,
    ) -> Result<()> {
        for (name, bytes) in self.texts.iter().filter(|_| share.is_first()) {
            atomic::write(&dir.join(name), bytes)?;
        }
        let decoder = decoder.map(|(name, tensor)| {
            let stored = self.names.get(name).map_or(name, String::as_str);
            (stored, Item::Numbers(tensor))
        });
        let vision = self.files.iter().flat_map(|file| {
            let vision = file.iter().filter(|(name, _)| is_vision(name));
            vision.map(move |(name, stored)| (name, Item::Bytes(file, stored)))
        });
        save_items(dir, decoder.chain(vision), options, share)
    }
}
