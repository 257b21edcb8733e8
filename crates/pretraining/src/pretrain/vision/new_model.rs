//! The model before it learns to see: a trained decoder and a random vision encoder.

use std::path::Path;

use embodied_r_files::write_json;
use embodied_r_kernels::memory;
use embodied_r_policy::tokenizer::Tokenizer;
use embodied_r_policy::weights::{SaveOptions, write_random_with};
use embodied_r_policy::{ModelConfig, MropeSections, Policy, Rope, WeightDtype};
use embodied_r_vision::VisionConfig;
use serde_json::{Value, json};

use crate::args::VisionArgs;

/// Placeholder tokens: start, end, image, video.
const PLACEHOLDERS: usize = 4;

/// Writes the model into `out`: the decoder of the text model in `text`, with embeddings for the placeholders, and an
/// encoder with random weights.
pub(super) fn write(text: &Path, out: &Path, args: &VisionArgs, seed: u64) -> anyhow::Result<()> {
    std::fs::create_dir_all(out).map_err(embodied_r_files::Error::io("create", out))?;
    let first = Tokenizer::from_dir(text)?.save_with_placeholders(out)?;
    let decoder = Policy::load(text)?;
    let pairs = decoder.config().head_dim / 2;
    // A quarter of a head's pairs for the time, the rest for height and width, as Qwen2.5-VL.
    let (time, height) = (pairs / 4, pairs * 3 / 8);
    let config = ModelConfig {
        vocab_size: (first as usize + PLACEHOLDERS).max(decoder.config().vocab_size),
        rope: Rope {
            mrope_section: Some(MropeSections::consecutive([time, height, pairs - time - height])),
            ..decoder.config().rope.clone()
        },
        dtype: WeightDtype::F32,
        ..decoder.config().clone()
    };
    let vision = vision_config(args, config.hidden_size);
    let tower: VisionConfig = serde_json::from_value(vision.clone())?;
    let [decoder_prefix, prefix] = tower.prefixes();
    let encoder = tower.tensor_shapes().into_iter();
    let encoder = encoder.map(|(name, shape)| (format!("{prefix}{name}"), shape)).collect();
    let options = SaveOptions::default();
    write_random_with(out, (&config, decoder_prefix), encoder, seed, &options, &|_| {})?;
    for (name, file) in tower.model_files(config.to_json(), vision, first) {
        write_json(&out.join(name), &file)?;
    }
    let model = Policy::load(out)?;
    for (name, learned) in decoder.weights().iter() {
        let Some(weight) = model.weights().get(name) else { continue };
        match weight.dims() == learned.dims() {
            true => memory::overwrite(weight, learned)?,
            false => weight.slice_set(learned, 0, 0)?,
        }
    }
    Ok(model.save(out, &SaveOptions::default())?)
}

/// Copies a vision-language model, to continue its training.
pub(super) fn copy(from: &Path, out: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(out).map_err(embodied_r_files::Error::io("create", out))?;
    Tokenizer::from_dir(from)?.save(out)?;
    Ok(Policy::load(from)?.save(out, &SaveOptions::default())?)
}

/// The `vision_config`: as Qwen2.5-VL's, with full attention in every block.
fn vision_config(args: &VisionArgs, out_hidden_size: usize) -> Value {
    let shape = &args.encoder;
    json!({
        "depth": shape.encoder_depth,
        "hidden_size": shape.encoder_hidden_size,
        "num_heads": shape.encoder_heads,
        "intermediate_size": shape.encoder_intermediate_size,
        "hidden_act": "silu",
        "out_hidden_size": out_hidden_size,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "spatial_patch_size": 14,
        "temporal_patch_size": 2,
        "window_size": 112,
        "tokens_per_second": 2,
        "in_channels": 3,
        "fullatt_block_indexes": (0..shape.encoder_depth).collect::<Vec<_>>(),
        "initializer_range": 0.08,
    })
}
