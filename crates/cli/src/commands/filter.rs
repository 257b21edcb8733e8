//! `embodied-r filter`.

mod blind;
mod journal;
mod summary;

use std::path::Path;

use embodied_r_data::question_set::QuestionSet;
use embodied_r_data::write::write_atomic;
use embodied_r_eval::blind as rules;
use serde_json::Value;

use super::infer::{beside, perceived};
use crate::args::filter::FilterArgs;
use crate::exit::{self, Status, Usage};
use crate::output::{out, outln};
use crate::progress::Bar;
use blind::Blind;
use journal::{Journal, Tried};
use summary::{Favourite, Summary};

/// Drop questions that a blind model answers right.
pub(crate) fn run(args: FilterArgs) -> anyhow::Result<Status> {
    let drop_at = drop_at(&args)?;
    let set = perceived::read(&args.data, args.answers.as_deref(), args.limit)?;
    refuse_overwriting(&set.path, &args.out)?;
    let asked = questions(&set)?;
    let blind = Blind::new(&args)?;
    // Loading a model takes long: what is wrong with the files is found before.
    let mut journal = Journal::open(&beside(&args.out, ".tries.jsonl"), blind.settings()?)?;
    let open: Vec<&Asked<'_>> =
        asked.iter().filter(|question| !journal.has(question.index, question.text)).collect();
    if open.len() < asked.len() {
        eprintln!("{} of {} are asked already", asked.len() - open.len(), asked.len());
    }
    if !open.is_empty() {
        blind.ask(&open, &Bar::default(), |question, replies| journal.add(question, replies))?;
    }
    let tried: Vec<Tried> =
        asked.iter().filter_map(|question| journal.tried(question, drop_at)).collect();
    journal.close(&tried, drop_at)?;
    write_kept(&set, &tried, &args.out)?;
    let summary = Summary::new(&set, asked.len(), &tried, (args.tries, drop_at));
    match args.json {
        true => outln!("{}", serde_json::to_string(&summary)?)?,
        false => out!("{}", summary.table(&args.out))?,
    }
    Ok(told(&summary))
}

/// A question that is asked.
pub(super) struct Asked<'a> {
    /// Its place among the questions of the set.
    pub(super) index: usize,
    pub(super) id: String,
    pub(super) category: &'a str,
    /// What the blind model reads.
    pub(super) text: &'a str,
    /// The right option.
    pub(super) answer: char,
}

/// The questions with options, as a blind model reads them.
fn questions(set: &QuestionSet) -> Result<Vec<Asked<'_>>, embodied_r_eval::Error> {
    let mut asked = Vec::with_capacity(set.questions.len());
    for (index, question) in set.questions.iter().enumerate() {
        let Some(answer) = rules::solution(question)? else { continue };
        asked.push(Asked {
            index,
            id: question.id(),
            category: &question.question_category,
            text: rules::question(question)?,
            answer,
        });
    }
    Ok(asked)
}

fn drop_at(args: &FilterArgs) -> Result<usize, Usage> {
    let tries = args.tries;
    if args.drawing.temperature == 0.0 && tries > 1 {
        let what = format!(
            "`--temperature 0` answers alike in each of {tries} tries; give `--tries 1`, or a \
             temperature above 0"
        );
        return Err(Usage(what));
    }
    match args.drop_at {
        None => Ok(rules::default_drop_at(tries)),
        Some(k) if k <= tries => Ok(k),
        Some(k) => {
            let what =
                format!("`--drop-at {k}` is never reached in {tries} tries, take {tries} or less");
            Err(Usage(what))
        }
    }
}

fn refuse_overwriting(data: &Path, out: &Path) -> Result<(), Usage> {
    let same =
        out.canonicalize().is_ok_and(|out| data.canonicalize().is_ok_and(|data| data == out));
    match same {
        true => Err(Usage(format!("`--out` would overwrite the data `{}`", data.display()))),
        false => Ok(()),
    }
}

/// Writes the records that are kept, each as it stands in the data. What could not be asked is kept.
fn write_kept(set: &QuestionSet, tried: &[Tried], out: &Path) -> anyhow::Result<()> {
    let text = std::fs::read(&set.path).map_err(embodied_r_data::Error::io("read", &set.path))?;
    let records: Vec<Value> = serde_json::from_slice(&text)?;
    let dropped: std::collections::HashSet<usize> =
        tried.iter().filter(|tried| !tried.kept).map(|tried| tried.index).collect();
    let kept: Vec<&Value> = set
        .places
        .iter()
        .enumerate()
        .filter(|(index, _)| !dropped.contains(index))
        .filter_map(|(_, place)| records.get(*place))
        .collect();
    let mut json = serde_json::to_vec_pretty(&kept)?;
    json.push(b'\n');
    Ok(write_atomic(out, &json)?)
}

/// Says on standard error what the reader of the summary should not miss.
fn told(summary: &Summary) -> Status {
    if summary.is_unreadable() {
        eprintln!(
            "warning: the model named no option in most of its tries; `--system-prompt` or \
             `--max-new-tokens` may mend that"
        );
    }
    if let Some(Favourite { letter, share }) = summary.habit() {
        eprintln!(
            "warning: the model named {letter} in {:.0} % of its tries, so that questions whose \
             answer is {letter} are dropped for that alone; take another model, or a higher \
             `--temperature`",
            100.0 * share
        );
    }
    match summary.failed {
        0 => Status::Done,
        n => {
            eprintln!(
                "hint: {n} questions could not be asked and are kept; the same command again asks them"
            );
            Status::Partial
        }
    }
}

/// Adds advice to a fault of the API.
fn explain(error: embodied_r_openai::Error) -> anyhow::Error {
    match &error {
        embodied_r_openai::Error::Status { status: 401 | 403, .. } => {
            exit::hint(error.to_string(), "`--api-key-env NAME` says which variable holds the key")
        }
        embodied_r_openai::Error::NoBaseUrl | embodied_r_openai::Error::BadBaseUrl { .. } => {
            Usage(error.to_string()).into()
        }
        _ => error.into(),
    }
}
