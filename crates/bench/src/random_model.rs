//! Models with random weights.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use embodied_r_data::Progress;
use embodied_r_files::write_json;
use embodied_r_policy::tokenizer::{Placeholders, write_byte_tokenizer};
use embodied_r_policy::weights::{SaveOptions, write_random_with};
use embodied_r_policy::{ModelConfig, WeightDtype};
use embodied_r_vision::VisionConfig;
use indexmap::IndexMap;

use crate::error::Result;
use crate::presets::{Preset, Shape};

const MEGABYTE: u64 = 1_000_000;

/// A model to write: a preset's shape, random weights and a tokenizer of bytes.
#[derive(Debug, Clone)]
pub struct RandomModel {
    shape: Shape,
    dtype: WeightDtype,
}

impl RandomModel {
    /// A model of `preset`, with weights in `dtype` or the preset's own data type; `None` if a published preset has no
    /// published shape.
    #[must_use]
    pub fn new(preset: Preset, dtype: Option<WeightDtype>) -> Option<Self> {
        let shape = preset.shape()?;
        let dtype = dtype.unwrap_or(shape.config.dtype);
        Some(Self { shape, dtype })
    }

    /// Its configuration.
    #[must_use]
    pub fn config(&self) -> &ModelConfig {
        &self.shape.config
    }

    /// The data type of its weights.
    #[must_use]
    pub fn dtype(&self) -> WeightDtype {
        self.dtype
    }

    /// Its parameters, those of a vision tower included.
    #[must_use]
    pub fn parameters(&self) -> usize {
        let tower = self.tower();
        let tower: usize = tower.values().map(|shape| shape.iter().product::<usize>()).sum();
        self.config().parameter_count() + tower
    }

    /// Bytes of its weights.
    #[must_use]
    pub fn weight_bytes(&self) -> u64 {
        (self.parameters() * self.dtype.size_bytes()) as u64
    }

    /// Writes the model in Hugging Face layout to the existing `folder`, and returns how long that took. The same seed
    /// gives the same files. Progress is in megabytes of weights.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn write(&self, folder: &Path, seed: u64, progress: &dyn Progress) -> Result<Duration> {
        let began = Instant::now();
        progress.start("writing MB", Some(self.weight_bytes().div_ceil(MEGABYTE)));
        let written = AtomicU64::new(0);
        let on_bytes = |more: u64| {
            let before = written.fetch_add(more, Ordering::Relaxed);
            progress.advance((before + more) / MEGABYTE - before / MEGABYTE);
        };
        let config = self.config();
        let placeholders = match self.shape.vision {
            Some(_) => Placeholders::Vision,
            None => Placeholders::None,
        };
        write_byte_tokenizer(folder, config.vocab_size, self.shape.first_special, placeholders)?;
        let options = SaveOptions { dtype: self.dtype, ..SaveOptions::default() };
        let vision = self.vision();
        let prefix = vision.as_ref().map_or("model.", |vision| vision.prefixes()[0]);
        let decoder = (config, prefix);
        let made = write_random_with(folder, decoder, self.tower(), seed, &options, &on_bytes);
        progress.finish();
        made?;
        if let Some((vision, fields)) = vision.zip(self.shape.vision.clone()) {
            // After the text's special tokens.
            let first = self.shape.first_special + 3;
            let config = ModelConfig { dtype: self.dtype, ..config.clone() };
            for (name, file) in vision.model_files(config.to_json(), fields, first) {
                write_json(&folder.join(name), &file)?;
            }
        }
        Ok(began.elapsed())
    }

    /// The tensors of the vision tower by name, if there is one.
    fn tower(&self) -> IndexMap<String, Vec<usize>> {
        let Some(vision) = self.vision() else { return IndexMap::new() };
        let [_, prefix] = vision.prefixes();
        let shapes = vision.tensor_shapes().into_iter();
        shapes.map(|(name, shape)| (format!("{prefix}{name}"), shape)).collect()
    }

    fn vision(&self) -> Option<VisionConfig> {
        serde_json::from_value(self.shape.vision.clone()?).ok()
    }
}
