//! `embodied-r infer`.

mod journal;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::Context;
use embodied_r_data::question::{Question, read_questions};
use embodied_r_data::write::write_atomic;
use journal::Journal;

use crate::answer::Answerer;
use crate::args::infer::InferArgs;
use crate::args::model::ModelArgs;
use crate::exit::{Status, Usage};
use crate::output::outln;
use crate::progress::Bar;

/// What a question that still has to be perceived begins with.
const VIDEO: &str = "<video>";

/// Answer a file of questions.
pub(crate) fn run(args: InferArgs) -> anyhow::Result<Status> {
    let mut questions = read_questions(&args.input)?;
    questions.truncate(args.limit.unwrap_or(usize::MAX));
    let n = questions.len();
    let unperceived = questions.iter().filter(|q| q.question.trim_start().starts_with(VIDEO));
    if unperceived.count() > 0 {
        perceive(&args, &mut questions)?;
    }
    answer_file(questions, None, &args.model, &args.output)?;
    outln!("{n} answers in {}", args.output.display())?;
    Ok(Status::Done)
}

/// Answers the questions and writes them with their answers; goes on where an earlier run with the
/// same settings was cut short.
pub(super) fn answer_file(
    mut questions: Vec<Question>,
    limit: Option<usize>,
    model: &ModelArgs,
    output: &Path,
) -> anyhow::Result<()> {
    questions.truncate(limit.unwrap_or(usize::MAX));
    // Loading takes long: what is wrong with the paths is found before.
    let mut journal = Journal::open(&journal_path(output), &format!("{model:?}"))?;
    let open: Vec<(usize, &str)> = questions
        .iter()
        .enumerate()
        .filter(|(index, question)| !journal.has(*index, &question.question))
        .map(|(index, question)| (index, question.question.as_str()))
        .collect();
    if open.len() < questions.len() {
        eprintln!("{} of {} are answered already", questions.len() - open.len(), questions.len());
    }
    if !open.is_empty() {
        let answerer = Answerer::load(model)?;
        answerer.answer(&open, &Bar::default(), |index, content| {
            journal.add(index, &questions[index].question, content)
        })?;
    }
    for (index, question) in questions.iter_mut().enumerate() {
        question.content = journal.take(index);
    }
    let json = serde_json::to_vec_pretty(&questions)?;
    write_atomic(output, &json)?;
    journal.remove()
}

fn journal_path(output: &Path) -> PathBuf {
    beside(output, ".partial.jsonl")
}

/// A path beside `output`, with `ending` behind its name.
fn beside(output: &Path, ending: &str) -> PathBuf {
    let mut name = output.file_name().unwrap_or_default().to_owned();
    name.push(ending);
    output.with_file_name(name)
}

/// Turns the questions that begin with `<video>` into prompts that tell the video in words. The
/// captions, which may have cost money, stay beside the output.
fn perceive(args: &InferArgs, questions: &mut [Question]) -> anyhow::Result<()> {
    let captioner = captioner_words(args)?;
    let folder = beside(&args.output, ".perceived");
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot create `{}`", folder.display()))?;
    let open: Vec<usize> = (0..questions.len())
        .filter(|i| questions[*i].question.trim_start().starts_with(VIDEO))
        .collect();
    let asked: Vec<Question> = open
        .iter()
        .map(|i| {
            let mut question = questions[*i].clone();
            let text = question.question.trim_start().trim_start_matches(VIDEO);
            question.question = text.trim_start().to_owned();
            question
        })
        .collect();
    let input = folder.join("questions.json");
    write_atomic(&input, &serde_json::to_vec(&asked)?)?;
    let save_path = folder.join("prompts");
    let mut words = vec![
        "perceive".into(),
        "--data-paths".into(),
        input.into_os_string(),
        "--save-path".into(),
        save_path.clone().into_os_string(),
    ];
    words.extend(captioner);
    let status = super::run_words(words)?;
    anyhow::ensure!(
        status == Status::Done,
        "some videos could not be perceived; mend the cause and run the same command again"
    );
    let perceived = read_questions(&save_path.join("questions.json"))?;
    anyhow::ensure!(perceived.len() == open.len(), "perception gave another number of questions");
    for (index, prompt) in open.into_iter().zip(perceived) {
        questions[index].question = prompt.question;
    }
    Ok(())
}

/// The part of a `perceive` command line that says who tells the videos in words.
fn captioner_words(args: &InferArgs) -> anyhow::Result<Vec<OsString>> {
    let mut words: Vec<OsString> = Vec::new();
    if let Some(folder) = &args.folder_path {
        words.extend(["--folder-path".into(), folder.into()]);
    }
    if let Some(scenes) = &args.scenes {
        words.extend(["--backend".into(), "scene".into(), "--scenes".into(), scenes.into()]);
    } else if !args.base_url.is_empty() {
        words.extend(["--backend".into(), "openai".into(), "--base-url".into()]);
        words.extend(args.base_url.iter().map(OsString::from));
        if let Some(name) = &args.captioner {
            words.extend(["--model-path".into(), name.into()]);
        }
    } else {
        let what = "some questions begin with `<video>`; say who tells the videos in words: \
                    `--base-url URL` or `--scenes DIR`";
        return Err(Usage(what.into()).into());
    }
    Ok(words)
}
