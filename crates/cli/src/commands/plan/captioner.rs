//! Memory of each rank of a captioner: a vision-language model that is split over cards.

use std::path::Path;

use embodied_r_grpo::roofline::fit::USABLE;
use embodied_r_policy::{EngineOptions, ModelConfig, PAGE, PartBytes, WeightFormat};
use embodied_r_vision::{Grid, VisionConfig};
use serde_json::json;

use super::place::card;
use super::shape;
use crate::args::plan::PlanArgs;
use crate::exit::{Status, Usage};
use crate::output::outln;

/// The driver's context and the libraries' kernels and workspaces, and buffers of the collectives.
const CONTEXT: f64 = 1.2e9;

/// Bytes of an activation, and of a number of keys and values: bf16.
const NUMBER: f64 = 2.0;

/// Patches of a picture at the longest side that `perceive` sends, 1280 × 960.
const PICTURE: Grid = Grid { time: 1, height: 68, width: 92 };

/// Tokens of a caption with its prompt: two such pictures, the words and the reply.
const CAPTION: usize = 2 * (68 * 92 / 4) + 400;

/// What a rank holds, in bytes.
struct Parts {
    decoder: f64,
    tower: f64,
    pictures: f64,
    step: f64,
    kv_per_token: f64,
}

/// Prints the memory of each rank and what is left for keys and values.
pub(super) fn run(name: &str, args: &PlanArgs) -> anyhow::Result<Status> {
    let (decoder, vision) = (shape(name)?, tower(name)?);
    let (tp, card) = (args.tp.unwrap_or(1), card(args)?);
    let format = match args.quantize {
        Some(name) => WeightFormat::Blocks(name.into()),
        None => WeightFormat::Bf16,
    };
    let parts = Parts::new(&decoder, &vision, format, tp)?;
    let usable = USABLE * card.memory_bytes as f64;
    let Parts { decoder: weights, tower, pictures, step, kv_per_token } = parts;
    let used = CONTEXT + weights + tower + pictures + step;
    let pages = ((usable - used) / kv_per_token / PAGE as f64).max(0.0) as usize;
    let captions = pages * PAGE / CAPTION;
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
                "pictures": gb(pictures), "step": gb(step),
            },
            "kv_bytes_per_token": kv_per_token,
            "kv_pages": pages,
            "captions_at_once": captions,
            "fits": fits,
        });
        outln!("{}", serde_json::to_string_pretty(&found)?)?;
    } else {
        let billions = (decoder.parameter_count() + vision.parameter_count()) as f64 / 1e9;
        let (sold, card) = (card.sold_gb, card.name);
        outln!("captioner    {name}: {billions:.2} billion numbers in {}", format.name())?;
        outln!("device       {tp} x {card} {sold:.0} GB, {:.1} GB of each to be used", gb(usable))?;
        outln!("memory       {:.1} GB on each rank", gb(used))?;
        for (what, bytes) in [
            ("context", CONTEXT),
            ("decoder", weights),
            ("tower", tower),
            ("pictures", pictures),
            ("step", step),
        ] {
            outln!("             {what:<16} {:>8.2} GB", gb(bytes))?;
        }
        let left = gb(usable - used);
        outln!(
            "left         {left:.1} GB for keys and values, {:.0} kB a token",
            kv_per_token / 1e3
        )?;
        outln!(
            "fits         {pages} pages of {PAGE} tokens: {captions} captions of {CAPTION} at once"
        )?;
    }
    Ok(if fits { Status::Done } else { Status::Partial })
}

impl Parts {
    /// Those of the rank that has most.
    fn new(
        decoder: &ModelConfig,
        vision: &VisionConfig,
        format: WeightFormat,
        tp: usize,
    ) -> anyhow::Result<Self> {
        let part = PartBytes::new(decoder, format, tp).map_err(|error| Usage(error.to_string()))?;
        let EngineOptions { max_num_batched_tokens, max_num_seqs, .. } = EngineOptions::default();
        let batched = (max_num_batched_tokens * part.layer_numbers) as f64 * NUMBER;
        // Of every sequence that decodes, in f32, whole on every rank.
        let logits = (max_num_seqs * decoder.vocab_size * size_of::<f32>()) as f64;
        // The tower is whole on each rank; where some of its rows are no whole blocks, those are bf16, and all count so.
        let bits = match format {
            WeightFormat::Blocks(blocks)
                if blocks.row_bytes(vision.intermediate_size).is_none() =>
            {
                WeightFormat::Bf16.bits()
            }
            other => other.bits(),
        };
        let layers = 4 * vision.hidden_size + 3 * vision.intermediate_size;
        Ok(Self {
            decoder: part.weights as f64,
            tower: vision.parameter_count() as f64 * bits / 8.0,
            pictures: (PICTURE.patches() * layers) as f64 * NUMBER,
            step: batched + 2.0 * logits,
            kv_per_token: part.kv_numbers as f64 * NUMBER,
        })
    }
}

/// The tower's shape, from its files or by its name.
fn tower(name: &str) -> anyhow::Result<VisionConfig> {
    let path = Path::new(name);
    if path.exists() {
        return VisionConfig::of_model(path).map_err(|error| Usage(error.to_string()).into());
    }
    let unknown = || Usage(format!("`{name}` is no vision-language model whose shape is known"));
    VisionConfig::published(name).ok_or_else(|| unknown().into())
}
