//! A judge behind an OpenAI-compatible API.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use embodied_r_data::Progress as _;
use embodied_r_files::Journal;
use embodied_r_openai::{
    ApiKey, ChatCompletionMessage, ChatCompletionRequest, Client, ClientOptions,
};
use embodied_r_perception::captioner::{CostTracker, TokenPrices};
use embodied_r_robot::bench::{BenchQuestion, JudgePrompt, Judgement, parse_judgement};
use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};
use serde_json::{Map, json};

use crate::args::robot::bench::JudgeArgs;
use crate::exit::{self, Usage};
use crate::interrupt::{interrupted, on_interrupt};
use crate::journal;
use crate::output::outln;
use crate::progress::Bar;

const API_KEY_ENV: &str = "OPENAI_API_KEY";
const TIMEOUT: Duration = Duration::from_secs(300);
/// Requests per question until a reply has the form that is asked for.
const ATTEMPTS: usize = 2;

/// A judge behind an API.
pub(super) struct RemoteJudge {
    client: Client,
    model: String,
    temperature: f64,
    concurrency: usize,
    prices: Option<TokenPrices>,
    max_cost: Option<f64>,
    folder: PathBuf,
}

/// A reply of the judge, a line of `judge.jsonl`.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Reply {
    /// The question's index.
    index: usize,
    /// The user message, which a resumed run compares.
    prompt: String,
    /// The reply.
    reply: String,
    /// What it says; `None` in another form than asked for.
    judgement: Option<Judgement>,
}

impl RemoteJudge {
    /// The judge of the options; `None` without a server. Nothing is sent yet.
    ///
    /// # Errors
    /// A base URL is not one.
    pub(super) fn new(args: &JudgeArgs, folder: &Path) -> anyhow::Result<Option<Self>> {
        let Some(model) = args.judge_model.clone() else { return Ok(None) };
        let client = Client::new(&ClientOptions {
            api_key: ApiKey::from_env(args.judge_api_key_env.as_deref().unwrap_or(API_KEY_ENV)),
            concurrency: args.judge_concurrency,
            timeout: args.judge_timeout_s.unwrap_or(TIMEOUT),
            max_retries: args.judge_max_retries,
            ..ClientOptions::new(&args.judge_base_url)
        });
        let prices = args.price_in.zip(args.price_out);
        Ok(Some(Self {
            client: client.map_err(|error| Usage(error.to_string()))?,
            model,
            temperature: args.judge_temperature,
            concurrency: args.judge_concurrency,
            prices: prices.map(|(prompt, completion)| TokenPrices { prompt, completion }),
            max_cost: args.max_cost,
            folder: folder.to_owned(),
        }))
    }

    /// The judge's name.
    pub(super) fn name(&self) -> &str {
        &self.model
    }

    /// The scores of the answers, in order; `None` where two replies had another form than asked for. Every reply is kept
    /// in `judge.jsonl`, from which an interrupted run resumes.
    ///
    /// # Errors
    /// The servers fail, the budget is used up, the run is interrupted, or a file cannot be written.
    pub(super) fn scores(
        &self,
        questions: &[BenchQuestion],
        answers: &[String],
    ) -> anyhow::Result<Vec<Option<u8>>> {
        let prompts: Vec<JudgePrompt> = questions
            .iter()
            .zip(answers)
            .map(|(question, answer)| {
                JudgePrompt::new(&question.question, &question.answer, answer)
            })
            .collect();
        let system = prompts.first().map(|prompt| prompt.system.as_str()).unwrap_or_default();
        let settings = Map::from_iter([
            ("judge_model".to_owned(), json!(self.model)),
            ("temperature".to_owned(), json!(self.temperature)),
            ("instructions".to_owned(), json!(system)),
        ]);
        let (mut journal, replies) =
            journal::open::<Reply>(&self.folder.join("judge.jsonl"), &settings)?;
        let mut scores = vec![None; prompts.len()];
        let latest: HashMap<usize, Reply> =
            replies.into_iter().map(|reply| (reply.index, reply)).collect();
        for (index, prompt) in prompts.iter().enumerate() {
            let kept = latest.get(&index).filter(|reply| reply.prompt == prompt.user);
            scores[index] = kept.and_then(|reply| Some(reply.judgement.as_ref()?.score));
        }
        let open: Vec<usize> =
            (0..prompts.len()).filter(|index| scores[*index].is_none()).collect();
        if open.len() < prompts.len() {
            let done = prompts.len() - open.len();
            eprintln!("resuming: {done} of {} answers are judged already", prompts.len());
        }
        let bar = Bar::default();
        self.judge(&prompts, &open, &mut scores, &mut journal, &bar)?;
        let unread = scores.iter().filter(|score| score.is_none()).count();
        if unread > 0 {
            bar.warn(&format!(
                "{unread} answers have no score: the judge did not reply in the form `Score: N Reason: WHY`; run the \
                 command again to retry"
            ));
        }
        Ok(scores)
    }

    /// Judges the prompts at the indices `open`.
    fn judge(
        &self,
        prompts: &[JudgePrompt],
        open: &[usize],
        scores: &mut [Option<u8>],
        journal: &mut Journal,
        bar: &Bar,
    ) -> anyhow::Result<()> {
        let stop = on_interrupt("waiting for requests in flight")?;
        let usage = self.folder.join("usage.jsonl");
        let cost = CostTracker::open(&usage, self.prices, self.max_cost, bar)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        bar.start("judging", Some(open.len() as u64));
        let has_failed = AtomicBool::new(false);
        let is_over = || stop.load(Ordering::Relaxed) || has_failed.load(Ordering::Relaxed);
        let failure: anyhow::Result<()> = runtime.block_on(async {
            let work =
                open.iter().map(|index| self.replies(*index, &prompts[*index], &cost, &is_over));
            let mut done = futures_util::stream::iter(work).buffer_unordered(self.concurrency);
            let mut failure = None;
            while let Some((replies, error)) = done.next().await {
                for reply in &replies {
                    journal.append(reply)?;
                    scores[reply.index] = reply.judgement.as_ref().map(|it| it.score);
                }
                bar.advance(1);
                if let Some(error) = error {
                    // Requests in flight are finished and kept, and no others are sent.
                    has_failed.store(true, Ordering::Relaxed);
                    failure.get_or_insert(error);
                }
            }
            failure.map_or(Ok(()), Err)
        });
        bar.finish();
        let (now, ever) = cost.totals();
        if let (Some(now), Some(ever)) = (now.cost, ever.cost) {
            outln!("cost of the judge: {now:.4} new; {ever:.4} in total")?;
        }
        failure
    }

    /// The replies about a prompt until one has the form that is asked for, at most [`ATTEMPTS`], and the error that ended
    /// them.
    async fn replies(
        &self,
        index: usize,
        prompt: &JudgePrompt,
        cost: &CostTracker,
        is_over: &impl Fn() -> bool,
    ) -> (Vec<Reply>, Option<anyhow::Error>) {
        let mut replies: Vec<Reply> = Vec::new();
        while replies.len() < ATTEMPTS {
            if is_over() {
                return (replies, Some(interrupted()));
            }
            match self.reply(prompt, cost).await {
                Ok(reply) => {
                    let judgement = parse_judgement(&reply);
                    let is_read = judgement.is_some();
                    replies.push(Reply { index, prompt: prompt.user.clone(), reply, judgement });
                    if is_read {
                        break;
                    }
                }
                Err(error) => return (replies, Some(error)),
            }
        }
        (replies, None)
    }

    async fn reply(&self, prompt: &JudgePrompt, cost: &CostTracker) -> anyhow::Result<String> {
        let messages = vec![
            ChatCompletionMessage::system(&prompt.system),
            ChatCompletionMessage::user(&prompt.user),
        ];
        let request = ChatCompletionRequest {
            temperature: Some(self.temperature),
            ..ChatCompletionRequest::new(&self.model, messages)
        };
        let kept =
            "finished judgements are kept; fix the cause and run the same command again to resume";
        let reserved = cost.reserve(0).await.map_err(|error| {
            let advice = "finished judgements are kept; raise `--max-cost` and run the same command again to resume";
            exit::hint(error.to_string(), advice)
        })?;
        let completion = self
            .client
            .chat(&request)
            .await
            .map_err(|error| exit::hint(format!("the judge fails: {error}"), kept))?;
        reserved.settle(completion.usage)?;
        Ok(completion.text)
    }
}
