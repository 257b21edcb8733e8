//! `embodied-r filter`.

mod blind;
mod journal;
mod question;
mod summary;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use embodied_r_data::RecordPlace;
use embodied_r_data::question_set::{QuestionFormat, QuestionSet, read_records};
use embodied_r_eval::blind as rules;
use embodied_r_files::write_json;
use serde_json::Value;

use super::infer::paths::beside;
use super::infer::perceived;
use crate::args::filter::FilterArgs;
use crate::asked::Asked;
use crate::exit::{Status, Usage};
use crate::output::{out, outln};
use crate::progress::Bar;
use blind::BlindModel;
use journal::{FilteredQuestion, Journal};
use question::BlindQuestion;
use summary::{AnswerBias, Summary};

/// Drop questions that a blind model answers correctly.
pub(crate) fn run(args: FilterArgs) -> anyhow::Result<Status> {
    let drop_at = drop_at(&args)?;
    let source = args.questions();
    let annotations = source.annotations(args.direct.reader())?;
    let (set, asked, blind) = match args.direct()? {
        Some(direct) => {
            let direct = direct.with_frames_of(annotations.as_ref());
            // Fails on a text model before the questions are read.
            let blind = BlindModel::new(&args, Some(&direct))?;
            let read = direct.read(&source)?;
            refuse_overwriting(&read.files, &args.output)?;
            let (files, format) = (read.files.clone(), QuestionFormat::Official);
            let asked = blind.lay_out(read)?;
            let questions = asked.questions.clone();
            let set = QuestionSet { files, format, questions, places: Vec::new(), unanswered: 0 };
            (set, Some(asked), Some(blind))
        }
        None => {
            let set = perceived::read(&source)?;
            refuse_overwriting(&set.files, &args.output)?;
            (set, None, None)
        }
    };
    let questions = questions(&set, asked.as_ref())?;
    let blind = blind.map_or_else(|| BlindModel::new(&args, None), Ok)?;
    // Checks the files before the slow loading of the model.
    let mut journal = Journal::open(&beside(&args.output, ".tries.jsonl"), blind.settings()?)?;
    let open: Vec<&BlindQuestion<'_>> =
        questions.iter().filter(|question| !journal.has(question.index, &question.text)).collect();
    if open.len() < questions.len() {
        eprintln!(
            "resuming: {} of {} questions are done",
            questions.len() - open.len(),
            questions.len()
        );
    }
    if !open.is_empty() {
        blind.sample(&open, &Bar::default(), |question, responses| {
            journal.add(question, responses)
        })?;
    }
    let filtered: Vec<FilteredQuestion> =
        questions.iter().filter_map(|question| journal.filtered(question, drop_at)).collect();
    journal.close(&filtered, drop_at)?;
    let summary = Summary::new(&set, questions.len(), &filtered, (args.tries, drop_at));
    write_kept(&set, asked, &filtered, &args.output)?;
    match args.json {
        true => outln!("{}", serde_json::to_string(&summary)?)?,
        false => out!("{}", summary.table(&args.output))?,
    }
    Ok(warn(&summary))
}

/// The multiple-choice questions without their captions, or as they are `asked` with images and videos.
fn questions<'a>(
    set: &'a QuestionSet,
    asked: Option<&'a Asked>,
) -> Result<Vec<BlindQuestion<'a>>, embodied_r_eval::Error> {
    let mut questions = Vec::with_capacity(set.questions.len());
    for (index, question) in set.questions.iter().enumerate() {
        let Some(answer) = rules::solution(question)? else { continue };
        questions.push(BlindQuestion {
            index,
            id: question.id(),
            category: question.category(),
            text: match asked {
                Some(asked) => asked.key(index),
                None => rules::question(question)?.into(),
            },
            seen: asked.and_then(|asked| asked.prompt(index).seen),
            answer,
        });
    }
    Ok(questions)
}

fn drop_at(args: &FilterArgs) -> Result<usize, Usage> {
    let tries = args.tries;
    if args.sampling.temperature == 0.0 && tries > 1 {
        let what = format!(
            "with `--temperature 0` (greedy) all {tries} tries are equal; give `--tries 1`, or a \
             temperature above 0"
        );
        return Err(Usage(what));
    }
    match args.drop_at {
        None => Ok(rules::default_drop_at(tries)),
        Some(k) if k <= tries => Ok(k),
        Some(k) => {
            let what = format!("`--drop-at {k}` exceeds the {tries} tries; give {tries} or less");
            Err(Usage(what))
        }
    }
}

fn refuse_overwriting(data: &[PathBuf], out: &Path) -> Result<(), Usage> {
    let Ok(out) = out.canonicalize() else { return Ok(()) };
    let is_out = |file: &&PathBuf| file.canonicalize().is_ok_and(|file| file == out);
    match data.iter().find(is_out) {
        Some(file) => {
            Err(Usage(format!("`--output` would overwrite the data `{}`", file.display())))
        }
        None => Ok(()),
    }
}

/// Writes the kept records: unchanged, or in this project's format if they are `asked` with images and videos. Questions
/// whose requests failed are kept.
fn write_kept(
    set: &QuestionSet,
    asked: Option<Asked>,
    filtered: &[FilteredQuestion],
    out: &Path,
) -> anyhow::Result<()> {
    let records: Vec<Value> = match asked {
        Some(asked) => {
            let records = asked.into_records().into_iter().map(serde_json::to_value);
            records.collect::<Result<_, _>>()?
        }
        None if set.format == QuestionFormat::Benchmark => {
            set.questions.iter().map(serde_json::to_value).collect::<Result<_, _>>()?
        }
        None => {
            let mut records = HashMap::new();
            for file in &set.files {
                let path: Arc<Path> = file.as_path().into();
                let of_file = read_records(file)?.into_iter();
                records.extend(of_file.map(|(index, fields)| {
                    (RecordPlace { path: path.clone(), index }, Value::Object(fields))
                }));
            }
            set.places.iter().filter_map(|place| records.get(place).cloned()).collect()
        }
    };
    let dropped: HashSet<usize> =
        filtered.iter().filter(|filtered| !filtered.kept).map(|filtered| filtered.index).collect();
    let kept: Vec<&Value> = records
        .iter()
        .enumerate()
        .filter(|(index, _)| !dropped.contains(index))
        .map(|(_, record)| record)
        .collect();
    Ok(write_json(out, &kept)?)
}

/// Prints warnings about the summary, and returns the status.
fn warn(summary: &Summary) -> Status {
    if summary.is_unreadable() {
        eprintln!(
            "warning: most completions name no option; try another `--system-prompt` or a higher \
             `--max-new-tokens`"
        );
    }
    if let Some(AnswerBias { letter, share }) = summary.bias() {
        eprintln!(
            "warning: the model is biased: it answers {letter} in {:.0} % of its tries, so questions \
             with the answer {letter} are dropped for that reason; use another model or a higher \
             `--temperature`",
            100.0 * share
        );
    }
    match summary.failed {
        0 => Status::Done,
        n => {
            eprintln!(
                "hint: {n} questions failed and are kept; run the same command again to retry them"
            );
            Status::Partial
        }
    }
}
