//! `embodied-r rewards`.

use std::sync::Arc;
use std::time::Duration;

use embodied_r_data::Progress as _;
use embodied_r_dist::ProcessGroup;
use embodied_r_grpo::rewards::judge::{ReferenceJudge, ReferenceModel};
use embodied_r_openai::{ApiKey, ClientOptions};
use embodied_r_policy::Policy;
use embodied_r_policy::tokenizer::Tokenizer;
use embodied_r_rewards::accuracy::Solution;
use embodied_r_rewards::http_judge::{HttpJudge, HttpJudgeOptions};
use embodied_r_rewards::outputs::{self, Output, Scorecard};
use embodied_r_rewards::service::client_options;
use embodied_r_rewards::{Error, Judge};

use crate::args::rewards::{JudgeArgs, RewardsArgs, RewardsCommand, ScoreArgs};
use crate::exit::{self, Status, Usage};
use crate::hub;
use crate::output::{out, outln};
use crate::progress::Bar;

const API_KEY_ENV: &str = "OPENAI_API_KEY";
/// Timeout of a response, which is a few tokens long.
const JUDGE_TIMEOUT: Duration = Duration::from_secs(60);

/// Score saved outputs with the trainer's rewards.
pub(crate) fn run(args: RewardsArgs) -> anyhow::Result<Status> {
    match args.command {
        RewardsCommand::Score(args) => score(args),
    }
}

fn score(args: ScoreArgs) -> anyhow::Result<Status> {
    let judge = judge(args.judge)?;
    let judged = judge.is_some();
    let outputs = outputs::read(&args.file).map_err(explain)?;
    let cards = outputs::score(&outputs, judge).map_err(explain)?;
    if args.json {
        for card in &cards {
            outln!("{}", serde_json::to_string(card)?)?;
        }
    } else {
        out!("{}", table(&cards))?;
    }
    // Numeric questions have no consistency reward; for a letter it is absent only if the judge failed.
    let unjudged = |(output, card): &(&Output, &Scorecard)| {
        let solution = Solution::parse(&output.solution);
        card.consistency.is_none() && !matches!(solution, Some(Solution::Number(_)))
    };
    let unjudged = outputs.iter().zip(&cards).filter(unjudged).count();
    if judged && unjudged > 0 {
        let message = format!("the judge failed on {unjudged} of {} completions", outputs.len());
        Bar::default().warn(&message);
        return Ok(Status::Partial);
    }
    Ok(Status::Done)
}

fn judge(args: JudgeArgs) -> anyhow::Result<Option<Box<dyn Judge>>> {
    let Some(model) = args.judge_model else {
        return Ok(None);
    };
    if args.judge_base_url.is_empty() {
        return local_judge(&model).map(Some);
    }
    let client = ClientOptions {
        api_key: ApiKey::from_env(args.judge_api_key_env.as_deref().unwrap_or(API_KEY_ENV)),
        ..client_options(args.judge_base_url, JUDGE_TIMEOUT)
    };
    match HttpJudge::new(HttpJudgeOptions::new(client, model)) {
        Ok(judge) => Ok(Some(Box::new(judge))),
        Err(error) => Err(Usage(error.to_string()).into()),
    }
}

/// The trainer's in-process judge with `model` in place of the reference model.
fn local_judge(model: &str) -> anyhow::Result<Box<dyn Judge>> {
    let dir = hub::decoder(model, None)?;
    let tokenizer = Arc::new(Tokenizer::from_dir(&dir)?);
    let model = Arc::new(ReferenceModel::new(Policy::load(&dir)?));
    Ok(Box::new(ReferenceJudge::new(model, tokenizer, ProcessGroup::default())))
}

/// Adds hints.
fn explain(error: Error) -> anyhow::Error {
    match &error {
        Error::Json { .. } | Error::Field { .. } | Error::NoRecords { .. } => exit::hint(
            error.to_string(),
            "records need `question`, `answer` and `content`, or `question`, `solution` and \
             `completion`",
        ),
        _ => error.into(),
    }
}

/// One line per output, then the means.
fn table(cards: &[Scorecard]) -> String {
    let mut text = format!(
        "{:>4} {:>8} {:>6} {:>11} {:>6}  why\n",
        "#", "accuracy", "format", "consistency", "answer"
    );
    for (index, card) in cards.iter().enumerate() {
        let why = [
            ("accuracy", &card.deductions.accuracy),
            ("format", &card.deductions.format),
            ("consistency", &card.deductions.consistency),
        ];
        let why: Vec<String> = why
            .iter()
            .filter_map(|(name, why)| why.as_ref().map(|why| format!("{name}: {why}")))
            .collect();
        let line = format!(
            "{:>4} {:>8} {:>6} {:>11} {:>6}  {}",
            index + 1,
            number(card.accuracy, 2),
            number(card.format, 2),
            number(card.consistency, 2),
            card.answer.as_deref().unwrap_or("–"),
            why.join("; ")
        );
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text.push_str(&format!(
        "{:>4} {:>8} {:>6} {:>11}\n",
        "mean",
        number(mean(cards, |card| card.accuracy), 3),
        number(mean(cards, |card| card.format), 3),
        number(mean(cards, |card| card.consistency), 3),
    ));
    text
}

fn number(value: Option<f64>, decimals: usize) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.decimals$}"))
}

/// The mean over the outputs that have the score.
fn mean(cards: &[Scorecard], score: impl Fn(&Scorecard) -> Option<f64>) -> Option<f64> {
    let scores: Vec<f64> = cards.iter().filter_map(score).collect();
    (!scores.is_empty()).then(|| scores.iter().sum::<f64>() / scores.len() as f64)
}
