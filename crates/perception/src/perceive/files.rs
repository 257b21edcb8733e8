//! The data files of a run, each with its log and its summary.

use std::collections::BTreeMap;

use embodied_r_data::{Progress, Question};
use serde_json::{Map, Value};

use super::input::{self, Input, file_name};
use super::log::{CaptionLog, ExpectedSettings};
use super::options::PerceiveOptions;
use super::replica;
use super::summary::PerceiveSummary;
use crate::captioner;
use crate::error::Result;

/// One data file in progress.
pub(super) struct File {
    pub(super) input: Input,
    pub(super) log: CaptionLog,
    pub(super) summary: PerceiveSummary,
}

/// Opens the data files and their logs.
pub(super) fn open(
    options: &PerceiveOptions,
    settings: &Map<String, Value>,
    progress: &dyn Progress,
) -> Result<Vec<File>> {
    let mut inputs =
        input::read(&options.data_paths, options.answers.as_deref(), &options.log_dir())?;
    if let Some(shard) = options.shard {
        input::retain_shard(&mut inputs, shard);
    }
    if let Some(replica) = options.replica {
        input::retain_part(&mut inputs, replica.index(), replica.count());
    }
    let open = |input: Input| {
        let expected = ExpectedSettings::Exactly(settings, options.changed_settings);
        let mut log = CaptionLog::open(&input.log, expected, progress)?;
        import_others(&mut log, &input.questions, (options, settings), progress)?;
        let is_finished = |question: &&Question| log.finished(question).is_some();
        let summary = PerceiveSummary {
            data_path: input.data_path.clone(),
            output: options.output_dir().join(file_name(&input.output)),
            log: options.output_dir().join(file_name(&input.log)),
            questions: input.questions.len(),
            unanswered: input.unanswered,
            already_finished: input.questions.iter().filter(is_finished).count(),
            finished: 0,
            failed: 0,
            unsupported: BTreeMap::new(),
            missing_videos: 0,
            refused: 0,
            over_budget: 0,
            interrupted: 0,
            faults: BTreeMap::new(),
        };
        Ok(File { input, log, summary })
    };
    inputs.into_iter().map(open).collect()
}

/// Writes a file's prompts, and its log in the order of the questions.
pub(super) fn close(file: File) -> Result<PerceiveSummary> {
    let File { input, log, summary } = file;
    write(&input, log)?;
    Ok(summary)
}

/// Writes the prompts of the finished questions, and the log in the questions' order.
pub(super) fn write(input: &Input, log: CaptionLog) -> Result<()> {
    let prompts = input.questions.iter().filter_map(|question| {
        let (captions, settings) = log.captions(question)?;
        let style = captioner::style(settings);
        Some(input::perceived(question, captioner::prompt(captions, &question.question, style)))
    });
    input::write(&input.output, &prompts.collect::<Vec<_>>())?;
    log.close(&input.questions)
}

/// Imports results of `questions` from the data file's other logs, which may be written concurrently.
fn import_others(
    log: &mut CaptionLog,
    questions: &[Question],
    (options, settings): (&PerceiveOptions, &Map<String, Value>),
    progress: &dyn Progress,
) -> Result<()> {
    let (output_dir, own) = (options.output_dir(), options.log_dir());
    let mut others = replica::folders(&output_dir)?;
    others.push(output_dir);
    for other in others.into_iter().filter(|other| *other != own) {
        let path = other.join(file_name(log.path()));
        log.import_from(&path, questions, (settings, options.changed_settings), progress)?;
    }
    Ok(())
}
