//! The captioner behind an API, and what it has cost.

use std::time::Duration;

use embodied_r_openai::{ApiKey, ClientOptions};
use embodied_r_perception::Error;
use embodied_r_perception::captioner::{OpenAi, OpenAiOptions, Prices, Refused, Totals};
use embodied_r_perception::perceive::Options;

use crate::args::perceive::OpenAiArgs;
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

/// The captioner as the arguments describe it.
pub(super) fn open(args: OpenAiArgs, options: &Options, bar: &Bar) -> anyhow::Result<OpenAi> {
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
    let place = options.place();
    let captioner = OpenAiOptions {
        client,
        model: args.model_path.unwrap_or_else(|| MODEL.to_owned()),
        temperature: args.temperature,
        max_tokens: args.max_tokens,
        cache: args.cache.unwrap_or_else(|| place.join(CACHE)),
        usage: place.join(USAGE),
        prices: prices.map(|(prompt, completion)| Prices { prompt, completion }),
        max_cost: args.max_cost,
        refused: match args.retry_refused {
            true => Refused::AskAgain,
            false => Refused::Keep,
        },
    };
    OpenAi::open(captioner, bar).map_err(|error| match error {
        Error::Chat(error) => Usage(error.to_string()).into(),
        other => other.into(),
    })
}

/// Prints what the replies took.
pub(super) fn report(captioner: &OpenAi, options: &Options) -> anyhow::Result<()> {
    let (now, ever) = captioner.totals();
    let from_cache = captioner.from_cache();
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
