//! Questions whose videos are told in words on the way.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::Context;
use embodied_r_data::question::{Question, read_questions};
use embodied_r_data::question_set::{QuestionSet, read_question_set};
use embodied_r_data::write::write_atomic;

use crate::args::video::VideoArgs;
use crate::exit::{Status, Usage};

/// What a question that still has to be perceived begins with.
const VIDEO: &str = "<video>";

/// Reads questions in any form, says how many are left out, and takes the first `limit`.
pub(crate) fn read(
    path: &Path,
    answers: Option<&Path>,
    limit: Option<usize>,
) -> anyhow::Result<QuestionSet> {
    let mut set = read_question_set(path, answers)?;
    if set.unanswered > 0 {
        eprintln!(
            "{} of {} questions have no published answer and are left out",
            set.unanswered,
            set.unanswered + set.questions.len()
        );
    }
    set.questions.truncate(limit.unwrap_or(usize::MAX));
    set.places.truncate(set.questions.len());
    Ok(set)
}

/// Whether some of the questions still have to be perceived.
pub(crate) fn needed(set: &QuestionSet) -> bool {
    !open(set).is_empty()
}

/// The questions of `set`, those that are not perceived yet turned into prompts that tell the video
/// in words. The captions, which may have cost money, stay beside `output`.
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
    let status = crate::commands::run_words(words)?;
    anyhow::ensure!(
        status == Status::Done,
        "some videos could not be perceived; mend the cause and run the same command again"
    );
    let perceived = read_questions(&save_path.join("questions.json"))?;
    anyhow::ensure!(perceived.len() == open.len(), "perception gave another number of questions");
    for (index, prompt) in open.into_iter().zip(perceived) {
        questions[index].question = prompt.question;
    }
    Ok(questions)
}

/// Places of the questions that are not perceived yet.
fn open(set: &QuestionSet) -> Vec<usize> {
    let is_open = |question: &Question| {
        set.is_unperceived() || question.question.trim_start().starts_with(VIDEO)
    };
    let all = set.questions.iter().enumerate();
    all.filter(|(_, question)| is_open(question)).map(|(index, _)| index).collect()
}

/// The part of a `perceive` command line that says who tells the videos in words.
fn captioner_words(args: &VideoArgs, set: &QuestionSet) -> anyhow::Result<Vec<OsString>> {
    let mut words: Vec<OsString> = Vec::new();
    if let Some(folder) = args.folder_path.clone().or_else(|| videos_beside(set)) {
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
    } else if set.is_unperceived() {
        let path = set.path.display();
        let what = format!(
            "the questions of `{path}` are about videos that nobody has told in words yet; run \
             `embodied-r perceive --data-paths {path}` first and give what it writes, or say here \
             who tells them: `--base-url URL` or `--scenes DIR`"
        );
        return Err(Usage(what).into());
    } else {
        let what = "some questions begin with `<video>`; say who tells the videos in words: \
                    `--base-url URL` or `--scenes DIR`";
        return Err(Usage(what.into()).into());
    }
    Ok(words)
}

/// `videos` beside the file of a benchmark whose records say nothing of folders.
fn videos_beside(set: &QuestionSet) -> Option<PathBuf> {
    let folder = set.path.with_file_name("videos");
    (set.is_unperceived() && folder.is_dir()).then_some(folder)
}
