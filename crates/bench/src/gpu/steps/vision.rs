//! The vision encoder.

use embodied_r_data::progress::Silent;
use embodied_r_kernels::{WeightPlacement, weight::WeightFormat};
use embodied_r_policy::TensorParallel;
use embodied_r_vision::{PixelOptions, VisionOptions};

use super::facts::Facts;
use super::{Options, model};
use crate::caption::{self, Frames};
use crate::error::{Error, Result};
use crate::presets::Preset;
use crate::random_model::RandomModel;

/// See [`crate::gpu::Step::Vision`].
pub(super) fn run(options: &Options<'_>, facts: &mut Facts<'_>) -> Result<()> {
    let (preset, frames) = match options.is_small {
        true => (Preset::ShapeV, Frames { count: 2, size: (112, 112), new: 2, runs: 1 }),
        false => (Preset::Qwen25Vl3bTower, Frames { count: 16, size: (640, 480), new: 4, runs: 3 }),
    };
    let folder = tempfile::tempdir().map_err(Error::Output)?;
    let random = RandomModel::new(preset, None).ok_or(Error::NoShape)?;
    random.write(folder.path(), 0, &Silent)?;
    facts.text("model", preset.name())?;
    let (width, height) = frames.size;
    facts.text("work", format!("{} frames of {width} × {height}", frames.count))?;
    let placement = WeightPlacement { format: WeightFormat::Bf16, device: options.device.clone() };
    let vision = VisionOptions { placement, pixels: PixelOptions::default() };
    let ranks = TensorParallel::single_rank();
    model::metrics(&caption::run(folder.path(), &frames, &vision, &ranks)?, facts)
}
