//! `embodied-r infer`.

mod journal;
pub(super) mod paths;
pub(super) mod perceived;

use std::path::Path;

use embodied_r_files::write_atomic;
pub(super) use journal::Journal;
use serde_json::json;

use crate::args::infer::InferArgs;
use crate::asked::{Asked, BatchPrompt};
use crate::direct::Direct;
use crate::exit::{self, Status};
use crate::output::outln;
use crate::progress::Bar;
use crate::reasoner::Reasoner;
use paths::beside;
use perceived::CaptioningPlan;

/// Answer a file of questions.
pub(crate) fn run(mut args: InferArgs) -> anyhow::Result<Status> {
    let annotations = args.questions().annotations(args.direct.reader())?;
    let decoding = &mut args.reasoner.model.decoding;
    *decoding = decoding.clone().with_prompt(annotations.as_ref().map(|of| of.prompt));
    let direct = args.video.direct(&args.direct)?;
    let (asked, reasoner) = match direct {
        Some(direct) => seen(&args, &direct.with_frames_of(annotations.as_ref()))?,
        None => captioned(&args)?,
    };
    let asked = match &annotations {
        Some(annotations) => asked.of_annotations(annotations)?,
        None => asked,
    };
    let n = asked.questions.len();
    let (skipped, journal) = answer_file(asked, &reasoner, &args.output)?;
    journal.remove()?;
    let remark = match skipped {
        0 => String::new(),
        skipped => {
            format!("; {skipped} of {n} questions exceed the context length: `content` is absent")
        }
    };
    outln!("wrote {} answers to {}{remark}", n - skipped, args.output.display())?;
    Ok(Status::Done)
}

/// The questions as text with captions, and the model.
fn captioned(args: &InferArgs) -> anyhow::Result<(Asked, Reasoner)> {
    let set = perceived::read_text(&args.questions())?;
    let captioning = CaptioningPlan::new(vec![set], &args.video, &args.reasoner.model.weights)?;
    // Fails on a missing model before the slow captioning.
    let reasoner = Reasoner::new(&args.reasoner, None)?;
    let questions = captioning.run(&perceived::folder(&args.output))?.concat();
    Ok((Asked::text(questions), reasoner))
}

/// The questions with images and videos, and the model that sees them.
fn seen(args: &InferArgs, direct: &Direct) -> anyhow::Result<(Asked, Reasoner)> {
    // Fails on a text model before the questions are read.
    let reasoner = Reasoner::new(&args.reasoner, Some(direct))?;
    let set = direct.read(&args.questions())?;
    Ok((reasoner.lay_out(set)?, reasoner))
}

/// Answers the questions and writes them with their answers; resumes an interrupted run with the same settings. Returns
/// the number of questions that exceed the context length, which have no answer, and the journal, which is beside `output`
/// and is to be removed.
pub(super) fn answer_file(
    asked: Asked,
    reasoner: &Reasoner,
    output: &Path,
) -> anyhow::Result<(usize, Journal)> {
    let (completions, journal) = sample(&asked, reasoner, 1, output)?;
    let skipped = completions.iter().filter(|of| of.is_empty()).count();
    let video_pixels = if reasoner.is_local() { asked.video_pixels() } else { Vec::new() };
    let mut questions = asked.into_records();
    for (question, completions) in questions.iter_mut().zip(completions) {
        question.content = completions.into_iter().next();
    }
    for (question, of_videos) in questions.iter_mut().zip(video_pixels) {
        if let Some(of_videos) = of_videos {
            question.extra.insert("video_pixels".to_owned(), json!(of_videos));
        }
    }
    let json = serde_json::to_vec_pretty(&questions)?;
    write_atomic(output, &json)?;
    Ok((skipped, journal))
}

/// Samples completions of each question; resumes an interrupted run with the same settings. The journal is beside
/// `output` and is to be removed once that is complete. A question that exceeds the context length has no completions.
///
/// # Errors
/// No question fits into the context, another process writes `output`, or as [`Reasoner::sample_all`].
pub(super) fn sample(
    asked: &Asked,
    reasoner: &Reasoner,
    samples: usize,
    output: &Path,
) -> anyhow::Result<(Vec<Vec<String>>, Journal)> {
    // Checks the paths before the slow loading.
    let mut settings = reasoner.settings()?;
    settings.insert("samples".to_owned(), json!(samples));
    let mut journal = Journal::open(&beside(output, ".partial.jsonl"), &settings)?;
    let questions = &asked.questions;
    let open: Vec<BatchPrompt<'_>> = (0..questions.len())
        .filter(|index| !journal.has(*index, &asked.key(*index)))
        .map(|index| asked.prompt(index))
        .collect();
    if open.len() < questions.len() {
        eprintln!(
            "resuming: {} of {} questions are answered already",
            questions.len() - open.len(),
            questions.len()
        );
    }
    if !open.is_empty() {
        reasoner.sample_all(&open, samples, &Bar::default(), |position, completions| {
            let index = open[position].index;
            journal.add(index, &asked.key(index), completions)
        })?;
    }
    let take = |index| journal.take(index).unwrap_or_default();
    let completions: Vec<Vec<String>> = (0..questions.len()).map(take).collect();
    if completions.iter().all(Vec::is_empty) && !questions.is_empty() {
        // It would refuse the settings that the error advises.
        journal.remove()?;
        return Err(exit::hint(
            format!(
                "none of the {} questions fits into the context length of the model",
                questions.len()
            ),
            match asked.seen {
                Some(_) => {
                    "show fewer or smaller frames (`--frames uniform=8`, `--max-pixels`), or choose a model with a longer context"
                }
                None => {
                    "caption fewer frames (`perceive --max-frames`), or choose a model with a longer context"
                }
            },
        ));
    }
    Ok((completions, journal))
}
