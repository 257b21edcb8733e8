//! Estimated memory and time of a local captioner, before it is loaded.

use std::path::Path;

use anyhow::Context;
use embodied_r_grpo::estimate::roofline::peak_flops_per_s;
use embodied_r_perception::perceive::PerceiveWorkload;
use embodied_r_policy::{Group, ModelConfig, ShardBytes, WeightPlacement, gguf};
use embodied_r_vision::{Processor, VisionConfig};

/// Assumed utilization: FLOP/s as a fraction of the peak.
const UTILIZATION: f64 = 0.6;

/// Tokens of the instructions and the question.
const PROMPT_TOKENS: usize = 300;

/// Tokens of a caption.
const CAPTION_TOKENS: usize = 100;

/// Bytes per gigabyte.
const GB: f64 = 1e9;

/// Image size assumed if no video can be read.
const DEFAULT_IMAGE_SIZE: (u32, u32) = (640, 480);

/// Prints the estimate to standard error.
pub(super) fn print(
    model: &Path,
    plan: &PerceiveWorkload,
    placement: &WeightPlacement,
    cache_bytes: usize,
    ranks: usize,
) -> anyhow::Result<()> {
    let decoder = ModelConfig::of_model(model)?;
    let vision = VisionConfig::of_model(model)?;
    let (width, height) = plan.image_size.unwrap_or(DEFAULT_IMAGE_SIZE);
    let grid = Processor::of_model(model)?.image_grid((width, height))?;
    let tokens = grid.tokens(vision.spatial_merge_size);
    let parameters = (decoder.parameter_count() + vision.parameter_count()) as f64;
    // The vision encoder is replicated on each rank.
    let (weights, format) = match stored(model)? {
        Some(bytes) => {
            let replicated = vision.parameter_count() as f64 / parameters;
            (bytes as f64 * (replicated + (1.0 - replicated) / ranks as f64), "GGUF")
        }
        None => {
            let shard = ShardBytes::new(&decoder, placement.format, ranks)?.weights;
            let weights = shard + vision.weight_bytes(placement.format);
            (weights as f64, placement.format.name())
        }
    };
    let working = grid.patches() * 4 * (vision.hidden_size + vision.intermediate_size);
    let memory = weights + (cache_bytes + working * size_of::<f32>()) as f64;
    let billions = parameters / 1e9;
    let (memory, cache) = (memory / GB, cache_bytes as f64 / GB);
    let per_rank = if ranks > 1 { " per rank" } else { "" };
    eprintln!(
        "model: {billions:.2} B parameters in {format}, {:.1} GB; with up to {cache:.1} GB of KV and \
         image embedding caches about {memory:.1} GB{per_rank}",
        weights / GB
    );
    let caption = Group {
        prompt: vec![0; 2 * tokens + PROMPT_TOKENS].into(),
        completions: vec![vec![0; CAPTION_TOKENS]],
    };
    let flop = vision.flops(grid) + decoder.forward_flops(&[caption]);
    let PerceiveWorkload { questions, videos, frames, .. } = plan;
    let peak = peak_flops_per_s(&placement.device, placement.format)?;
    let time = peak.map(|peak| {
        let seconds = flop / (UTILIZATION * peak);
        let total = duration(seconds * *frames as f64);
        format!("; about {seconds:.1} s each, {total} in total")
    });
    eprintln!(
        "work: {questions} questions about {videos} videos, at most {frames} frames of {width} × \
         {height} ({tokens} tokens){}",
        time.unwrap_or_default()
    );
    Ok(())
}

/// File size of a GGUF model, whose weights are used in their stored format.
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
    fn a_quantized_weight_has_the_bits_of_its_block_format() {
        assert_eq!(WeightFormat::Blocks(BlockFormat::Q8_0).bits(), 8.5);
        assert_eq!(WeightFormat::Blocks(BlockFormat::Q4K).bits(), 4.5);
    }

    #[test]
    fn durations_have_a_suitable_unit() {
        assert_eq!([duration(9.4), duration(600.0), duration(9000.0)], ["9 s", "10 min", "2.5 h"]);
    }
}
