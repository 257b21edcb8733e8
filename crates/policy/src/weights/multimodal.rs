//! Saves a trained decoder back into its multimodal checkpoint.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use candle_core::Tensor;
use embodied_r_files::write_in_existing_folder;

use super::file::WeightFile;
use super::names::{canonical, is_encoder, of_encoder};
use super::write::{SaveOptions, TensorSource, WriterRank, save_items};
use crate::config::CONFIG_FILE;
use crate::error::{Error, Result, TensorContext};
use crate::lora::Adapter;

/// Processor files of the different versions of `transformers`.
const PROCESSOR_FILES: [&str; 3] =
    ["preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json"];

/// A multimodal checkpoint without its decoder's weights and its tokenizer.
///
/// A frozen encoder stays in the mapped files, whose pages are released: it takes no memory and is copied unchanged
/// into new checkpoints.
#[derive(Clone)]
pub(crate) struct Multimodal {
    files: Vec<WeightFile>,
    /// The stored names of the decoder's tensors by canonical name.
    names: HashMap<String, String>,
    /// `config.json` and the processor files.
    texts: Vec<(&'static str, Vec<u8>)>,
    /// Tensors of the encoder in place of those in the files, by their stored names.
    trained: HashMap<String, Tensor>,
    /// An adapter of the encoder in the files.
    adapter: Option<Arc<Adapter>>,
}

impl Multimodal {
    /// Opens the checkpoint with the weight files `files` in `dir`, whose decoder has been read; `None` without an
    /// encoder.
    pub(crate) fn find(dir: &Path, files: &[WeightFile]) -> Result<Option<Self>> {
        let all = || files.iter().flat_map(WeightFile::iter).map(|(name, _)| name);
        if !all().any(is_encoder) {
            return Ok(None);
        }
        // The pages of the decoder would count as memory as long as the files are mapped: its weights a second time.
        files.iter().for_each(WeightFile::release);
        let names = all().filter_map(|name| Some((canonical(name)?, name.to_owned()))).collect();
        let mut texts = Vec::new();
        for name in std::iter::once(CONFIG_FILE).chain(PROCESSOR_FILES) {
            let path = dir.join(name);
            if path.is_file() {
                texts.push((name, std::fs::read(&path).map_err(Error::io("read", &path))?));
            }
        }
        let trained = HashMap::new();
        Ok(Some(Self { files: files.to_vec(), names, texts, trained, adapter: None }))
    }

    /// With these tensors of the encoder, by their stored names, in place of those in the files.
    pub(crate) fn with_encoder_tensors(self, trained: HashMap<String, Tensor>) -> Self {
        Self { trained, ..self }
    }

    /// With `adapter` merged into the encoder.
    ///
    /// # Errors
    /// [`Error::Adapter`] if it does not fit the encoder.
    pub(crate) fn with_adapter(self, adapter: Arc<Adapter>) -> Result<Self> {
        let tensors = self.files.iter().flat_map(WeightFile::iter);
        adapter.check_encoder(
            tensors.filter_map(|(name, stored)| Some((of_encoder(name)?, stored.shape.as_slice()))),
        )?;
        Ok(Self { adapter: Some(adapter), ..self })
    }

    /// The tensors of the encoder that the adapter changes, by their stored names.
    fn adapted(&self) -> Result<HashMap<&str, Tensor>> {
        let mut adapted = HashMap::new();
        let Some(adapter) = &self.adapter else { return Ok(adapted) };
        for file in &self.files {
            for (name, stored) in file.iter() {
                let changed = of_encoder(name).filter(|it| adapter.changes_encoder(it));
                let Some(canonical) = changed else { continue };
                let tensor = super::tensor(file, stored).context(format!("read `{name}`"))?;
                adapter.apply_to_encoder(canonical, &tensor)?;
                adapted.insert(name, tensor);
            }
        }
        Ok(adapted)
    }

    /// Saves the checkpoint with new decoder weights, given by canonical name.
    pub(crate) fn save<'a>(
        &'a self,
        dir: &Path,
        decoder: impl Iterator<Item = (&'a str, &'a Tensor)>,
        options: &SaveOptions,
        writer: WriterRank,
    ) -> Result<()> {
        for (name, bytes) in self.texts.iter().filter(|_| writer.is_first()) {
            write_in_existing_folder(&dir.join(name), bytes)?;
        }
        let adapted = self.adapted()?;
        let decoder = decoder.map(|(name, tensor)| {
            let stored = self.names.get(name).map_or(name, String::as_str);
            (stored, TensorSource::Tensor(tensor))
        });
        let encoder = self.files.iter().flat_map(|file| {
            let encoder = file.iter().filter(|(name, _)| is_encoder(name));
            let changed = |name| self.trained.get(name).or_else(|| adapted.get(name));
            encoder.map(move |(name, stored)| match changed(name) {
                Some(tensor) => (name, TensorSource::Tensor(tensor)),
                None => (name, TensorSource::Bytes(file, stored)),
            })
        });
        save_items(dir, decoder.chain(encoder), options, writer)
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::collections::HashMap;

    use candle_core::{Device, Tensor};

    use super::*;
    use crate::weights;

    /// Kilobytes of `path` in this process's memory.
    fn resident(path: &Path) -> usize {
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut lines = maps.lines().skip_while(|line| !line.ends_with(path.to_str().unwrap()));
        let line = lines.find(|line| line.starts_with("Rss:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    #[test]
    fn the_pages_of_a_decoder_that_was_read_are_released() {
        let dir = tempfile::tempdir().unwrap();
        let tensor = Tensor::ones(1 << 20, candle_core::DType::F32, &Device::Cpu).unwrap();
        let tensors =
            ["model.norm.weight", "visual.merger.ln_q.weight"].map(|name| (name, tensor.clone()));
        let path = dir.path().join(weights::SINGLE_FILE);
        candle_core::safetensors::save(&HashMap::from(tensors), &path).unwrap();
        let files = weights::open(dir.path()).unwrap();
        let sum = || -> u64 {
            let bytes = files[0].iter().flat_map(|(_, stored)| files[0].bytes(stored));
            bytes.map(|byte| u64::from(*byte)).sum()
        };
        let read = sum();
        assert!(resident(&path) >= 8 << 10);
        assert!(Multimodal::find(dir.path(), &files).unwrap().is_some());
        assert!(resident(&path) < 1 << 10, "{} kB", resident(&path));
        assert_eq!(sum(), read);
    }
}
