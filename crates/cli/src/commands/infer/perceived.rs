//! Captions the videos of questions on the fly.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::Context;
use embodied_r_data::question::{Question, read_questions};
use embodied_r_data::question_set::{QuestionSet, read_question_set};
use embodied_r_data::write::write_atomic;

use crate::args::video::VideoArgs;
use crate::exit::{Status, Usage};

/// Placeholder at the start of a question whose video is not captioned yet.
const VIDEO: &str = "<video>";

/// Reads the first `limit` questions in any supported format; reports dropped ones.
pub(crate) fn read(
    path: &Path,
    answers: Option<&Path>,
    limit: Option<usize>,
) -> anyhow::Result<QuestionSet> {
    let mut set = read_question_set(path, answers)?;
    if set.unanswered > 0 {
        eprintln!(
            "skipping {} of {} questions without a published answer",
            set.unanswered,
            set.unanswered + set.questions.len()
        );
    }
    set.questions.truncate(limit.unwrap_or(usize::MAX));
    set.record_indices.truncate(set.questions.len());
    Ok(set)
}

/// Whether some questions need captions.
pub(crate) fn needed(set: &QuestionSet) -> bool {
    !open(set).is_empty()
}

/// The questions of `set`, with captions added where they are missing. The captions, which may have a cost, are kept
/// next to `output`.
pub(crate) fn questions(
    set: QuestionSet,
    args: &VideoArgs,
    output: &Path,
) -> anyhow::Result<Vec<Question>> {
    let open = open(&set);
    if open.is_empty() {
        return Ok(set.questions);
    }
    let captioner = captioner_words(args, &set)?;
    let folder = super::beside(output, ".perceived");
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot create `{}`", folder.display()))?;
    let mut questions = set.questions;
    let uncaptioned: Vec<Question> = open
        .iter()
        .map(|i| {
            let mut question = questions[*i].clone();
            let text = question.question.trim_start().trim_start_matches(VIDEO);
            question.question = text.trim_start().to_owned();
            question
        })
        .collect();
    let input = folder.join("questions.json");
    write_atomic(&input, &serde_json::to_vec(&uncaptioned)?)?;
    let save_path = folder.join("prompts");
    let mut words = vec![
        "perceive".into(),
        "--data".into(),
        input.into_os_string(),
        "--output".into(),
        save_path.clone().into_os_string(),
    ];
    words.extend(captioner);
    let status = crate::commands::run_words(words)?;
    anyhow::ensure!(
        status == Status::Done,
        "some videos could not be captioned; fix the cause and run the same command again to resume"
    );
    let perceived = read_questions(&save_path.join("questions.json"))?;
    anyhow::ensure!(
        perceived.len() == open.len(),
        "`perceive` returned a different number of questions"
    );
    for (index, prompt) in open.into_iter().zip(perceived) {
        questions[index].question = prompt.question;
    }
    Ok(questions)
}

/// Indices of the questions without captions.
fn open(set: &QuestionSet) -> Vec<usize> {
    let is_open =
        |question: &Question| set.is_raw() || question.question.trim_start().starts_with(VIDEO);
    let all = set.questions.iter().enumerate();
    all.filter(|(_, question)| is_open(question)).map(|(index, _)| index).collect()
}

/// The captioner's arguments of a `perceive` command line.
fn captioner_words(args: &VideoArgs, set: &QuestionSet) -> anyhow::Result<Vec<OsString>> {
    let mut words: Vec<OsString> = Vec::new();
    if let Some(folder) = args.video_dir.clone().or_else(|| videos_beside(set)) {
        words.extend(["--video-dir".into(), folder.into()]);
    }
    if let Some(scenes) = &args.scenes {
        words.extend(["--backend".into(), "scene".into(), "--scenes".into(), scenes.into()]);
    } else if !args.base_url.is_empty() {
        words.extend(["--backend".into(), "openai".into(), "--base-url".into()]);
        words.extend(args.base_url.iter().map(OsString::from));
        if let Some(name) = &args.captioner {
            words.extend(["--captioner".into(), name.into()]);
        }
    } else if set.is_raw() {
        let path = set.path.display();
        let what = format!(
            "the questions of `{path}` are about videos without captions; run `embodied-r perceive \
             --data {path}` first and use its output, or give a captioner here: `--base-url URL` \
             or `--scenes DIR`"
        );
        return Err(Usage(what).into());
    } else {
        let what = "some questions start with `<video>`: give a captioner, `--base-url URL` or \
                    `--scenes DIR`";
        return Err(Usage(what.into()).into());
    }
    Ok(words)
}

/// The folder `videos` next to a benchmark file whose records name no folders.
fn videos_beside(set: &QuestionSet) -> Option<PathBuf> {
    let folder = set.path.with_file_name("videos");
    (set.is_raw() && folder.is_dir()).then_some(folder)
}
