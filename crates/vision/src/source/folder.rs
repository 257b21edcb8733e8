//! A vision encoder in a folder of Hugging Face's layout.

use std::path::{Path, PathBuf};

use candle_core::Tensor;
use embodied_r_kernels::memory;
use embodied_r_kernels::weight::Weight;
use embodied_r_policy::WeightPlacement;
use embodied_r_policy::config::CONFIG_FILE;
use embodied_r_policy::weights::EncoderTensors;

use crate::config::{self, ImageTokens, VisionConfig};
use crate::error::{Error, Result};
use crate::family::Family;
use crate::layout::{PATCHES, POSITIONS, TowerPart, patches_shape};
use crate::linear::Linear;
use crate::processor::{self, Settings, VideoRules};
use crate::tower_weights::TowerWeights;

/// A model's folder.
pub(crate) struct Folder {
    dir: PathBuf,
    /// The folder of the weights: `dir`, or that of an adapter of its model.
    weights: PathBuf,
}

impl Folder {
    pub(super) fn new(dir: &Path, weights: &Path) -> Self {
        Self { dir: dir.to_owned(), weights: weights.to_owned() }
    }

    /// Whether the model has a vision tower and an image processor.
    pub(super) fn is_whole(&self) -> bool {
        let settings =
            self.config().map(|(config, _)| self.settings(&config.family().video_rules()));
        matches!(settings, Ok(Ok(_) | Err(Error::NoVideoProcessor { .. })))
    }

    /// What the family's video processor does. A folder without a configuration has the default family.
    pub(super) fn video_rules(&self) -> Result<VideoRules> {
        match self.dir.join(CONFIG_FILE).exists() {
            true => Ok(self.config()?.0.family().video_rules()),
            false => Ok(Family::default().get().video_rules()),
        }
    }

    pub(super) fn config(&self) -> Result<(VisionConfig, ImageTokens)> {
        let path = self.dir.join(CONFIG_FILE);
        let bytes = std::fs::read(&path).map_err(Error::io("read", &path))?;
        let json = |source| Error::Json { path: path.clone(), source };
        config::of_json(&serde_json::from_slice(&bytes).map_err(json)?, &path)
    }

    pub(super) fn settings(&self, rules: &VideoRules) -> Result<(Settings, Settings)> {
        let none = || Error::NoProcessor { dir: self.dir.clone() };
        processor::of_folder(&self.dir, rules)?.ok_or_else(none)
    }

    pub(super) fn weights(&self, placement: &WeightPlacement) -> Result<FolderWeights> {
        let placement = placement.clone();
        let tensors = tower_tensors(&self.weights, &self.config()?.0)?;
        Ok(FolderWeights { tensors, placement })
    }
}

/// The tensors of the tower of `config` in the folder `dir`.
///
/// # Errors
/// A file cannot be read, or has other tensors of a tower, too.
pub(crate) fn tower_tensors(dir: &Path, config: &VisionConfig) -> Result<EncoderTensors> {
    let (tensors, known) = (EncoderTensors::open(dir)?, config.tensor_shapes());
    tensors.check_names(|name| known.contains_key(name))?;
    Ok(tensors)
}

/// A folder's tensors. A matrix whose rows are not a multiple of the quantization block is held in bf16.
pub(super) struct FolderWeights {
    tensors: EncoderTensors,
    placement: WeightPlacement,
}

impl FolderWeights {
    fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        Ok(self.tensors.tensor(name, shape)?)
    }
}

impl TowerWeights for FolderWeights {
    fn patches(&self, config: &VisionConfig) -> Result<Weight> {
        let patches = self.tensor(PATCHES, &patches_shape(config))?;
        let patches = memory::reshape(&patches, (config.hidden_size, config.patch_elements()))?;
        Ok(self.placement.matrix(&patches)?)
    }

    fn check(&self, part: &TowerPart, config: &VisionConfig) -> Result<()> {
        let tensors = part.tensors(config);
        Ok(tensors.iter().try_for_each(|(name, shape)| self.tensors.check(name, shape))?)
    }

    fn vector(&self, name: &str, width: usize) -> Result<Tensor> {
        Ok(self.placement.vector(&self.tensor(name, &[width])?)?)
    }

    fn positions(&self, side: usize, hidden_size: usize) -> Result<Tensor> {
        let positions = self.tensor(POSITIONS, &[side * side, hidden_size])?;
        Ok(self.placement.vector(&positions)?)
    }

    fn linear(&self, name: &str, outputs: usize, inputs: usize) -> Result<Linear> {
        let weight = self.tensor(&format!("{name}.weight"), &[outputs, inputs])?;
        let bias = self.tensor(&format!("{name}.bias"), &[outputs])?;
        Ok(Linear::new(self.placement.matrix(&weight)?, self.placement.vector(&bias)?))
    }

    /// Stored as one fused matrix.
    fn qkv(&self, name: &str, width: usize) -> Result<[Linear; 3]> {
        let weight = self.tensor(&format!("{name}.weight"), &[3 * width, width])?;
        let bias = self.tensor(&format!("{name}.bias"), &[3 * width])?;
        let part = |index: usize| -> Result<Linear> {
            let rows = index * width..(index + 1) * width;
            let weight = self.placement.matrix(&memory::rows(&weight, rows.clone())?)?;
            Ok(Linear::new(weight, self.placement.vector(&memory::rows(&bias, rows)?)?))
        };
        Ok([part(0)?, part(1)?, part(2)?])
    }
}
