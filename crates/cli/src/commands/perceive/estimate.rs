//! What captions of a model in this process will take, told before it is loaded.

use std::path::Path;

use anyhow::Context;
use embodied_r_perception::perceive::Plan;
use embodied_r_policy::{Group, ModelConfig, Placement, gguf};
use embodied_r_vision::{Processor, VisionConfig};

use crate::device::peak_flops_per_s;

/// Share of the peak that the products reach.
const REACHED: f64 = 0.6;

/// Words of the instructions and the question, in tokens.
const WORDS: usize = 300;

/// Tokens of a caption.
const CAPTION: usize = 100;

/// Bytes in a gigabyte.
const GB: f64 = 1e9;

/// A size that is assumed where no video can be read.
const PICTURE: (u32, u32) = (640, 480);

/// Prints memory and time to standard error.
pub(super) fn tell(
    model: &Path,
    plan: &Plan,
    placement: &Placement,
    cache_bytes: usize,
    ranks: usize,
) -> anyhow::Result<()> {
    let decoder = ModelConfig::of_model(model)?;
    let vision = VisionConfig::of_model(model)?;
    let (width, height) = plan.picture.unwrap_or(PICTURE);
    let grid = Processor::of_model(model)?.image_grid((width, height))?;
    let tokens = grid.tokens(vision.spatial_merge_size);
    let parameters = (decoder.parameter_count() + vision.parameter_count()) as f64;
    let (weights, format) = match stored(model)? {
        Some(bytes) => (bytes as f64, "GGUF"),
        None => (parameters * placement.format.bits() / 8.0, placement.format.name()),
    };
    // The tower is whole on each rank.
    let of_tower = vision.parameter_count() as f64 / parameters;
    let weights = weights * (of_tower + (1.0 - of_tower) / ranks as f64);
    let working = grid.patches() * 4 * (vision.hidden_size + vision.intermediate_size);
    let memory = weights + (cache_bytes + working * size_of::<f32>()) as f64;
    let billions = parameters / 1e9;
    let (memory, cache) = (memory / GB, cache_bytes as f64 / GB);
    let each = if ranks > 1 { " on each rank" } else { "" };
    eprintln!(
        "model: {billions:.2} billion weights in {format}, {:.1} GB; with keys, values and pictures of \
         up to {cache:.1} GB about {memory:.1} GB{each}",
        weights / GB
    );
    let caption =
        Group { prompt: vec![0; 2 * tokens + WORDS], completions: vec![vec![0; CAPTION]] };
    let flop = vision.flops(grid) + decoder.forward_flops(&[caption]);
    let Plan { questions, videos, frames, .. } = plan;
    let peak = peak_flops_per_s(&placement.device, placement.format)?;
    let time = peak.map(|peak| {
        let seconds = flop / (REACHED * peak);
        let all = duration(seconds * *frames as f64);
        format!("; about {seconds:.1} s each, {all} in all")
    });
    eprintln!(
        "work: {questions} questions about {videos} videos, at most {frames} frames of {width} × \
         {height} ({tokens} tokens){}",
        time.unwrap_or_default()
    );
    Ok(())
}

/// Bytes of the weights of a model in GGUF files, which stay as they are.
fn stored(model: &Path) -> anyhow::Result<Option<u64>> {
    let Some(decoder) = gguf::find(model)? else { return Ok(None) };
    let mut bytes = 0;
    for file in std::iter::once(decoder).chain(gguf::find_mmproj(model)?) {
        let length = std::fs::metadata(&file).map(|file| file.len());
        bytes += length.with_context(|| format!("cannot read `{}`", file.display()))?;
    }
    Ok(Some(bytes))
}

fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use embodied_r_policy::{BlockFormat, WeightFormat};

    #[test]
    fn a_weight_takes_the_bits_of_its_block() {
        assert_eq!(WeightFormat::Blocks(BlockFormat::Q8_0).bits(), 8.5);
        assert_eq!(WeightFormat::Blocks(BlockFormat::Q4K).bits(), 4.5);
    }

    #[test]
    fn times_are_told_in_what_fits_them() {
        assert_eq!([duration(9.4), duration(600.0), duration(9000.0)], ["9 s", "10 min", "2.5 h"]);
    }
}
