//! Memory per rank of a captioner: a vision-language model with tensor parallelism.

use embodied_r_grpo::estimate::roofline::fit::USABLE;
use embodied_r_policy::{EngineOptions, ModelConfig, PAGE_SIZE, ShardBytes, WeightFormat};
use embodied_r_vision::{Grid, VisionConfig};
use serde_json::json;

use super::hardware::card;
use super::shape::{shape, tower};
use crate::args::plan::PlanArgs;
use crate::exit::{Status, Usage};
use crate::output::outln;

/// CUDA context, kernels and workspaces of the libraries, and communication buffers.
const CONTEXT: f64 = 1.2e9;

/// Bytes of an activation and of a KV cache entry: bf16.
const BF16_BYTES: f64 = 2.0;

/// Patches of an image of `perceive`'s default size, 1280 × 960.
const IMAGE: Grid = Grid { time: 1, height: 68, width: 92 };

/// Tokens of a caption with its prompt: two such images, the instructions and the response.
const CAPTION: usize = 2 * (68 * 92 / 4) + 400;

/// Memory of a rank, in bytes.
struct RankMemory {
    decoder: f64,
    tower: f64,
    images: f64,
    step: f64,
    kv_per_token: f64,
}

/// Prints the memory of each rank and the size of its KV cache.
pub(super) fn run(name: &str, args: &PlanArgs) -> anyhow::Result<Status> {
    let (decoder, vision) = (shape(name)?, tower(name)?);
    let (tp, card) = (args.tp.unwrap_or(1), card(args)?);
    let format = match args.quantize {
        Some(name) => WeightFormat::Blocks(name.into()),
        None => WeightFormat::Bf16,
    };
    let parts = RankMemory::new(&decoder, &vision, format, tp)?;
    let usable = USABLE * card.memory_bytes as f64;
    let RankMemory { decoder: weights, tower, images, step, kv_per_token } = parts;
    let used = CONTEXT + weights + tower + images + step;
    let pages = ((usable - used) / kv_per_token / PAGE_SIZE as f64).max(0.0) as usize;
    let captions = pages * PAGE_SIZE / CAPTION;
    let fits = captions > 0;
    let gb = |bytes: f64| bytes / 1e9;
    if args.json {
        let found = json!({
            "captioner": name,
            "tp": tp,
            "weights": format.name(),
            "card": card.name,
            "usable_gb": gb(usable),
            "memory_gb": {
                "context": gb(CONTEXT), "decoder": gb(weights), "tower": gb(tower),
                "pictures": gb(images), "step": gb(step),
            },
            "kv_bytes_per_token": kv_per_token,
            "kv_pages": pages,
            "captions_at_once": captions,
            "fits": fits,
        });
        outln!("{}", serde_json::to_string_pretty(&found)?)?;
    } else {
        let billions = (decoder.parameter_count() + vision.parameter_count()) as f64 / 1e9;
        let (sold, card) = (card.nominal_gb, card.name);
        outln!("captioner    {name}: {billions:.2} B parameters in {}", format.name())?;
        outln!("device       {tp} x {card} {sold:.0} GB, {:.1} GB of each usable", gb(usable))?;
        outln!("memory       {:.1} GB per rank", gb(used))?;
        for (what, bytes) in [
            ("CUDA context", CONTEXT),
            ("decoder", weights),
            ("vision encoder", tower),
            ("image activations", images),
            ("step activations", step),
        ] {
            outln!("             {what:<17} {:>8.2} GB", gb(bytes))?;
        }
        let left = gb(usable - used);
        outln!("KV cache     {left:.1} GB, {:.0} kB per token", kv_per_token / 1e3)?;
        outln!(
            "capacity     {pages} pages of {PAGE_SIZE} tokens: {captions} concurrent captions of {CAPTION} tokens"
        )?;
    }
    Ok(if fits { Status::Done } else { Status::Partial })
}

impl RankMemory {
    /// The memory of the rank that needs most.
    fn new(
        decoder: &ModelConfig,
        vision: &VisionConfig,
        format: WeightFormat,
        tp: usize,
    ) -> anyhow::Result<Self> {
        let part =
            ShardBytes::new(decoder, format, tp).map_err(|error| Usage(error.to_string()))?;
        let EngineOptions { max_num_batched_tokens, max_num_seqs, .. } = EngineOptions::default();
        let batched = (max_num_batched_tokens * part.layer_elements_per_token) as f64 * BF16_BYTES;
        // Of every decoding sequence, in f32, replicated on every rank.
        let logits = (max_num_seqs * decoder.vocab_size * size_of::<f32>()) as f64;
        let layers = 4 * vision.hidden_size + 3 * vision.intermediate_size;
        Ok(Self {
            decoder: part.weights as f64,
            // Replicated.
            tower: vision.weight_bytes(format) as f64,
            images: (IMAGE.patches() * layers) as f64 * BF16_BYTES,
            step: batched + 2.0 * logits,
            kv_per_token: part.kv_elements_per_token as f64 * BF16_BYTES,
        })
    }
}
