//! The captioner that asks a model, and what it has cost.

use std::sync::Arc;
use std::time::Duration;

use embodied_r_data::Progress;
use embodied_r_openai::{ApiKey, ClientOptions};
use embodied_r_perception::Error;
use embodied_r_perception::captioner::{
    ChatModel, LocalModel, LocalOptions, ModelCaptions, ModelOptions, Prices, Refused, Remote,
    Totals,
};
use embodied_r_perception::perceive::{Options, Plan};

use embodied_r_policy::{EngineOptions, Placement, TensorParallel, hub};
use embodied_r_vision::VisionOptions;
use serde::{Deserialize, Serialize};

use super::estimate;
use crate::args::perceive::{LocalArgs, OpenAiArgs, VisionModelArgs};
use crate::exit::Usage;
use crate::output::outln;
use crate::progress::Bar;

/// The model of the paper.
const MODEL: &str = "Qwen/Qwen2.5-VL-72B-Instruct";
/// Where vLLM listens unless told otherwise.
const BASE_URL: &str = "http://localhost:8000/v1";
const API_KEY_ENV: &str = "OPENAI_API_KEY";
const TIMEOUT: Duration = Duration::from_secs(300);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_RETRIES: u32 = 5;
/// The folder of kept replies, and the file of their tokens, in the folder of the outputs.
const CACHE: &str = "cache";
const USAGE: &str = "usage.jsonl";

/// The captioner that asks servers.
pub(super) fn remote(
    asked: VisionModelArgs,
    args: OpenAiArgs,
    options: &Options,
    bar: &Bar,
) -> anyhow::Result<ModelCaptions<Remote>> {
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
    let remote = Remote::new(&client).map_err(|error| match error {
        Error::Chat(error) => anyhow::Error::from(Usage(error.to_string())),
        other => other.into(),
    })?;
    let model = ModelOptions {
        prices: prices.map(|(prompt, completion)| Prices { prompt, completion }),
        max_cost: args.max_cost,
        refused: match args.retry_refused {
            true => Refused::AskAgain,
            false => Refused::Keep,
        },
        ..asked_as(asked, options)
    };
    Ok(ModelCaptions::open(remote, model, bar)?)
}

/// The captioner that asks a model in this process, or the one that `ranks` hold together; none on all but the first of
/// them, once that one is done. Whether memory and time are told is for `telling`.
pub(super) fn local(
    asked: VisionModelArgs,
    args: &LocalArgs,
    options: &Options,
    (placement, ranks): (&Placement, &TensorParallel),
    (telling, progress): (Telling, &dyn Progress),
) -> anyhow::Result<Option<ModelCaptions<LocalModel>>> {
    let missing = || Usage("`--backend local` needs `--model-path`, the model's folder".into());
    let name = asked.model_path.clone().ok_or_else(missing)?;
    let folder = hub::resolve(&name, None)?;
    let local = LocalOptions {
        vision: VisionOptions { placement: placement.clone(), max_pixels: args.max_pixels },
        kv_cache_bytes: (args.kv_cache_gb * 1e9) as usize,
        engine: EngineOptions { max_num_seqs: args.max_num_seqs, ..EngineOptions::default() },
        ..LocalOptions::default()
    };
    // What is wrong with the data is found before the weights are read.
    let plan = Plan::new(options).map_err(super::explain)?;
    if telling == Telling::Estimate {
        let cache_bytes = local.kv_cache_bytes + local.gallery_bytes;
        estimate::tell(&folder, &plan, placement, cache_bytes, ranks.size())?;
    }
    match LocalModel::over_ranks(&folder, &local, ranks)? {
        None => Ok(None),
        Some(model) => Ok(Some(ModelCaptions::open(model, asked_as(asked, options), progress)?)),
    }
}

/// Whether the estimate is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Telling {
    Estimate,
    Nothing,
}

/// What the replies of a run took.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Taken {
    now: Totals,
    ever: Totals,
    from_cache: u64,
}

impl Taken {
    pub(super) fn of<M: ChatModel>(captioner: &ModelCaptions<M>) -> Self {
        let (now, ever) = captioner.totals();
        Self { now, ever, from_cache: captioner.from_cache() }
    }

    /// That of this run and `other` together, which began at the same time.
    pub(super) fn with(self, other: &Self) -> Self {
        Self {
            now: self.now.with(&other.now),
            // Either knows what there was before both.
            ever: self.ever.with(&other.now),
            from_cache: self.from_cache + other.from_cache,
        }
    }
}

fn asked_as(asked: VisionModelArgs, options: &Options) -> ModelOptions {
    let place = options.place();
    ModelOptions {
        model: asked.model_path.unwrap_or_else(|| MODEL.to_owned()),
        concurrency: options.concurrency,
        temperature: asked.temperature,
        max_tokens: asked.max_tokens,
        cache: asked.cache.unwrap_or_else(|| place.join(CACHE)),
        usage: place.join(USAGE),
        prices: None,
        max_cost: None,
        refused: Refused::Keep,
        stop: Arc::clone(&options.stop),
    }
}

/// Prints what the replies took.
pub(super) fn report(taken: &Taken, options: &Options) -> anyhow::Result<()> {
    let Taken { now, ever, from_cache } = *taken;
    if now.replies + from_cache == 0 {
        return Ok(());
    }
    outln!(
        "replies: {} now and {from_cache} from the cache; {} in all",
        now.replies,
        ever.replies
    )?;
    outln!("tokens: {} now; {} in all", tokens(&now), tokens(&ever))?;
    if let (Some(now), Some(ever)) = (now.cost, ever.cost) {
        outln!("cost: {now:.4} now; {ever:.4} in all")?;
    }
    if ever.unreported > 0 {
        let n = ever.unreported;
        outln!("  {n} of the replies came without a count of tokens, which the sums lack")?;
    }
    outln!("  counted in {}", options.place().join(USAGE).display())?;
    Ok(())
}

fn tokens(totals: &Totals) -> String {
    format!("{} in and {} out", totals.prompt_tokens, totals.completion_tokens)
}
