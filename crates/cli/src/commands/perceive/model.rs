//! Captioners behind an API or in this process, and their token usage.

use std::sync::Arc;
use std::time::Duration;

use embodied_r_data::Progress;
use embodied_r_inference::VisionEngineOptions;
use embodied_r_openai::{ApiKey, ClientOptions};
use embodied_r_perception::Error;
use embodied_r_perception::captioner::{
    ChatModel, LocalModel, ModelCaptioner, ModelOptions, RefusalPolicy, RemoteModel, TokenPrices,
    UsageTotals,
};
use embodied_r_perception::perceive::{PerceiveOptions, PerceiveWorkload};

use embodied_r_policy::{EngineOptions, TensorParallel, WeightPlacement};
use embodied_r_vision::{PixelOptions, VisionOptions};
use serde::{Deserialize, Serialize};

use super::estimate;
use super::explain::explain;
use crate::args::perceive::{LocalArgs, OpenAiArgs, VisionModelArgs};
use crate::exit::Usage;
use crate::hub;
use crate::output::outln;
use crate::progress::Bar;

/// The paper's captioner.
const MODEL: &str = "Qwen/Qwen2.5-VL-72B-Instruct";
/// vLLM's default address.
const BASE_URL: &str = "http://localhost:8000/v1";
const API_KEY_ENV: &str = "OPENAI_API_KEY";
const TIMEOUT: Duration = Duration::from_secs(300);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_RETRIES: u32 = 5;
/// The response cache and the token usage log, in the output folder.
const CACHE: &str = "cache";
const USAGE: &str = "usage.jsonl";

/// A captioner behind an API.
pub(super) fn remote(
    model_args: VisionModelArgs,
    args: OpenAiArgs,
    options: &PerceiveOptions,
    bar: &Bar,
) -> anyhow::Result<ModelCaptioner<RemoteModel>> {
    let base_urls = match args.base_url {
        none if none.is_empty() => vec![BASE_URL.to_owned()],
        given => given,
    };
    let timeout = args.timeout_s.unwrap_or(TIMEOUT);
    let client = ClientOptions {
        api_key: ApiKey::from_env(args.api_key_env.as_deref().unwrap_or(API_KEY_ENV)),
        concurrency: options.concurrency,
        timeout,
        connect_timeout: args.connect_timeout_s.unwrap_or(CONNECT_TIMEOUT),
        first_byte_timeout: args.first_byte_timeout_s.unwrap_or(timeout),
        max_retries: args.max_retries.unwrap_or(MAX_RETRIES),
        ..ClientOptions::new(base_urls)
    };
    let prices = args.price_in.zip(args.price_out);
    let remote = RemoteModel::new(&client).map_err(|error| match error {
        Error::Chat(error) => anyhow::Error::from(Usage(error.to_string())),
        other => other.into(),
    })?;
    let model = ModelOptions {
        prices: prices.map(|(prompt, completion)| TokenPrices { prompt, completion }),
        max_cost: args.max_cost,
        refusal_policy: match args.retry_refused {
            true => RefusalPolicy::Retry,
            false => RefusalPolicy::Keep,
        },
        ..model_options(&model_args, options)
    };
    Ok(ModelCaptioner::open(remote, model, bar)?)
}

/// A captioner in this process, or tensor-parallel over ranks.
#[derive(Clone, Copy)]
pub(super) struct LocalCaptioner<'a> {
    pub(super) model: &'a VisionModelArgs,
    pub(super) args: &'a LocalArgs,
    pub(super) placement: &'a WeightPlacement,
    pub(super) ranks: &'a TensorParallel,
    /// Whether to print the estimate.
    pub(super) prints_estimate: bool,
    pub(super) progress: &'a dyn Progress,
}

impl LocalCaptioner<'_> {
    /// Loads the model. Workers other than the first return `None` once it is done.
    pub(super) fn open(
        &self,
        options: &PerceiveOptions,
    ) -> anyhow::Result<Option<ModelCaptioner<LocalModel>>> {
        let Self { args, placement, ranks, .. } = *self;
        let missing =
            || Usage("`--backend local` needs `--captioner`, a vision-language model".into());
        let name = self.model.captioner.clone().ok_or_else(missing)?;
        let folder = hub::with_vision_encoder(&name, None)?;
        let local = VisionEngineOptions {
            vision: VisionOptions {
                placement: placement.clone(),
                pixels: PixelOptions::at_most(args.max_pixels),
            },
            kv_cache_bytes: (args.kv_cache_gb * 1e9) as usize,
            engine: EngineOptions { max_num_seqs: args.max_num_seqs, ..EngineOptions::default() },
            ..VisionEngineOptions::default()
        };
        // Checks the data before the slow loading of the weights.
        let plan = PerceiveWorkload::new(options).map_err(explain)?;
        if self.prints_estimate {
            let cache_bytes = local.kv_cache_bytes + local.image_cache_bytes;
            estimate::print(&folder, &plan, placement, cache_bytes, ranks.world_size())?;
        }
        let Some(model) = LocalModel::load(&folder, &local, ranks)? else { return Ok(None) };
        let captioner =
            ModelCaptioner::open(model, model_options(self.model, options), self.progress)?;
        Ok(Some(captioner))
    }
}

/// Token usage and cost of a run, and of all runs so far.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct UsageReport {
    now: UsageTotals,
    ever: UsageTotals,
    from_cache: u64,
}

impl UsageReport {
    pub(super) fn of<M: ChatModel>(captioner: &ModelCaptioner<M>) -> Self {
        let (now, ever) = captioner.totals();
        Self { now, ever, from_cache: captioner.cache_hits() }
    }

    /// The sum of this run and `other`, which started at the same time.
    pub(super) fn with(self, other: &Self) -> Self {
        Self {
            now: self.now.with(&other.now),
            // Both include the earlier runs.
            ever: self.ever.with(&other.now),
            from_cache: self.from_cache + other.from_cache,
        }
    }
}

fn model_options(args: &VisionModelArgs, options: &PerceiveOptions) -> ModelOptions {
    let folder = options.output_dir();
    ModelOptions {
        model: args.captioner.clone().unwrap_or_else(|| MODEL.to_owned()),
        concurrency: options.concurrency,
        temperature: args.temperature,
        max_tokens: args.max_tokens,
        cache: args.cache.clone().unwrap_or_else(|| folder.join(CACHE)),
        usage: folder.join(USAGE),
        prices: None,
        max_cost: None,
        refusal_policy: RefusalPolicy::Keep,
        stop: Arc::clone(&options.stop),
    }
}

/// Prints the usage.
pub(super) fn report(usage: &UsageReport, options: &PerceiveOptions) -> anyhow::Result<()> {
    let UsageReport { now, ever, from_cache } = *usage;
    if now.completions + from_cache == 0 {
        return Ok(());
    }
    outln!(
        "responses: {} new, {from_cache} cached; {} in total",
        now.completions,
        ever.completions
    )?;
    outln!("tokens: {} new; {} in total", tokens(&now), tokens(&ever))?;
    if let (Some(now), Some(ever)) = (now.cost, ever.cost) {
        outln!("cost: {now:.4} new; {ever:.4} in total")?;
    }
    if ever.unreported > 0 {
        let n = ever.unreported;
        outln!("  {n} responses without token counts are not included")?;
    }
    outln!("  usage log: {}", options.output_dir().join(USAGE).display())?;
    Ok(())
}

fn tokens(totals: &UsageTotals) -> String {
    format!("{} prompt and {} completion", totals.prompt_tokens, totals.completion_tokens)
}
