//! Captions the videos of questions on the fly.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::Context;
use embodied_r_data::question::{Question, read_questions};
use embodied_r_data::question_set::{QuestionSet, read_question_set};
use embodied_r_files::write_atomic;
use embodied_r_perception::perceive::{ORIGINAL_QUESTION, video_path};

use super::paths::beside;
use crate::args;
use crate::args::model::WeightArgs;
use crate::args::video::VideoArgs;
use crate::commands::perceive;
use crate::exit::{self, Status, Usage};

/// Placeholder at the start of a question whose video is not captioned yet.
const VIDEO: &str = "<video>";

/// Reads the first `limit` questions in any supported format; reports dropped ones. Refuses files without questions, and
/// those in which a question occurs twice.
pub(crate) fn read(
    path: &Path,
    answers: Option<&Path>,
    limit: Option<usize>,
) -> anyhow::Result<QuestionSet> {
    let mut set = read_question_set(path, answers)?;
    set.reject_duplicates()?;
    if set.questions.is_empty() {
        return Err(embodied_r_data::Error::EmptyQuestionFile { path: set.path }.into());
    }
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

/// Question sets, some of whose questions may need captions, and the arguments of `perceive` to make them.
pub(crate) struct CaptioningPlan {
    sets: Vec<QuestionSet>,
    /// The questions of each set that need captions: their indices, and what `perceive` reads.
    uncaptioned: Vec<Vec<(usize, Question)>>,
    captioner: Vec<OsString>,
}

impl CaptioningPlan {
    /// Checks that every question has captions, or a captioner and a video. `weights` are those of a local captioner.
    ///
    /// # Errors
    /// Questions need captions, but there is no captioner, or a model has no video to caption.
    pub(crate) fn new(
        sets: Vec<QuestionSet>,
        args: &VideoArgs,
        weights: &WeightArgs,
    ) -> anyhow::Result<Self> {
        let is_given = args.captioner.is_given();
        let needs = |set: &&QuestionSet| {
            set.questions.iter().any(|question| is_uncaptioned(set, question, is_given))
        };
        let captioner = match sets.iter().find(needs) {
            Some(set) if !is_given => return Err(no_captioner(set).into()),
            Some(_) => captioner_words(args, weights)?,
            None => Vec::new(),
        };
        let uncaptioned =
            sets.iter().map(|set| uncaptioned(set, args)).collect::<anyhow::Result<_>>()?;
        Ok(Self { sets, uncaptioned, captioner })
    }

    /// Whether some questions need captions.
    pub(crate) fn is_needed(&self) -> bool {
        self.uncaptioned.iter().any(|questions| !questions.is_empty())
    }

    /// The questions of each set, with captions added where they are missing. The captions, which may have a cost, are
    /// kept in `folder`; an interrupted run resumes from it.
    ///
    /// # Errors
    /// Captioning fails, also of some questions only.
    pub(crate) fn run(self, folder: &Path) -> anyhow::Result<Vec<Vec<Question>>> {
        if !self.is_needed() {
            return Ok(self.sets.into_iter().map(|set| set.questions).collect());
        }
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot create `{}`", folder.display()))?;
        let prompts = folder.join("prompts");
        // The captions are those of the given options; responses to other ones stay in the cache.
        let mut words: Vec<OsString> =
            vec!["perceive".into(), "--redo-changed".into(), "--output".into()];
        words.extend([prompts.clone().into_os_string(), "--data".into()]);
        let is_single = self.sets.len() == 1;
        let name = |set: usize| match is_single {
            true => "questions.json".to_owned(),
            false => format!("fold-{set}.json"),
        };
        for (set, questions) in self.uncaptioned.iter().enumerate() {
            let questions: Vec<&Question> =
                questions.iter().map(|(_, question)| question).collect();
            let input = folder.join(name(set));
            write_atomic(&input, &serde_json::to_vec(&questions)?)?;
            words.push(input.into_os_string());
        }
        words.extend(self.captioner);
        let status = perceive::run(args::perceive_args(words)?)?;
        if status != Status::Done {
            return Err(exit::hint(
                "some videos could not be captioned",
                "finished captions are kept; fix the cause and run the same command again to resume",
            ));
        }
        let mut all = Vec::with_capacity(self.sets.len());
        for (index, (set, uncaptioned)) in self.sets.into_iter().zip(self.uncaptioned).enumerate() {
            let perceived = read_questions(&prompts.join(name(index)))?;
            anyhow::ensure!(
                perceived.len() == uncaptioned.len(),
                "`perceive` returned a different number of questions"
            );
            let mut questions = set.questions;
            for ((index, _), prompt) in uncaptioned.into_iter().zip(perceived) {
                questions[index].question = prompt.question;
            }
            all.push(questions);
        }
        Ok(all)
    }
}

/// Whether a question needs captions. If a captioner `is_given`, questions of `preprocess` do too, which otherwise are
/// answered from their text alone.
fn is_uncaptioned(set: &QuestionSet, question: &Question, is_given: bool) -> bool {
    let is_preprocessed =
        || question.videos.is_some() && !question.extra.contains_key(ORIGINAL_QUESTION);
    set.is_raw()
        || question.question.trim_start().starts_with(VIDEO)
        || (is_given && is_preprocessed())
}

/// The questions without captions, with the paths of their videos, since `perceive` reads them from another folder.
fn uncaptioned(set: &QuestionSet, args: &VideoArgs) -> anyhow::Result<Vec<(usize, Question)>> {
    let all = set.questions.iter().enumerate();
    all.filter(|(_, question)| is_uncaptioned(set, question, args.captioner.is_given()))
        .map(|(index, question)| {
            let mut question = question.clone();
            let text = question.question.trim_start().trim_start_matches(VIDEO);
            question.question = text.trim_start().to_owned();
            match video_path(&question, args.video_dir.as_deref(), &set.path) {
                Ok(video) => question.videos = Some(video.to_string_lossy().into_owned()),
                // Annotations may describe a scene without its video.
                Err(_) if args.captioner.scenes.is_some() => {}
                Err(error) => {
                    let message = format!("question `{}`: {error}", question.id());
                    return Err(exit::hint(
                        message,
                        "give the directory of the videos with `--video-dir`",
                    ));
                }
            }
            Ok((index, question))
        })
        .collect()
}

fn no_captioner(set: &QuestionSet) -> Usage {
    let path = set.path.display();
    let what = match set.is_raw() {
        true => format!("the questions of `{path}` are about videos without captions"),
        false => format!("some questions of `{path}` start with `{VIDEO}` and have no captions"),
    };
    Usage(format!(
        "{what}; run `embodied-r perceive --data {path}` first and use its output, or give a captioner here: \
         `--captioner MODEL`, with `--captioner-base-url URL` if it is on a server, or `--scenes DIR`"
    ))
}

/// The captioner's arguments of a `perceive` command line.
fn captioner_words(args: &VideoArgs, weights: &WeightArgs) -> Result<Vec<OsString>, Usage> {
    let VideoArgs { video_dir, captioner, key_frames } = args;
    let mut words = Words::default();
    words.option("--video-dir", video_dir.as_deref());
    words.option("--threshold", Some(key_frames.threshold.to_string()));
    words.option("--min-frames", Some(key_frames.min_frames.to_string()));
    words.option("--max-frames", Some(key_frames.max_frames.to_string()));
    if let Some(scenes) = &captioner.scenes {
        words.option("--backend", Some("scene"));
        words.option("--scenes", Some(scenes));
        return Ok(words.0);
    }
    words.option("--captioner", captioner.captioner.as_ref());
    words.option("--max-tokens", captioner.caption_tokens.map(|n| n.to_string()));
    words.option("--cache", captioner.cache.as_ref());
    if captioner.captioner_base_url.is_empty() {
        words.option("--backend", Some("local"));
        words.option("--max-pixels", captioner.max_pixels.map(|n| n.to_string()));
        words.option("--device", Some(weights.device.name()));
        words.option("--precision", weights.precision.map(|precision| precision.name()));
        words.option("--quantize", weights.quantize.map(|format| format.name()));
        return Ok(words.0);
    }
    if captioner.max_pixels.is_some() {
        let what = "`--max-pixels` belongs to a local captioner, but with `--captioner-base-url` it is on a server";
        return Err(Usage(what.into()));
    }
    words.option("--backend", Some("openai"));
    words.0.push("--base-url".into());
    words.0.extend(captioner.captioner_base_url.iter().map(OsString::from));
    Ok(words.0)
}

/// Arguments of a command line.
#[derive(Default)]
struct Words(Vec<OsString>);

impl Words {
    /// Adds an option if it has a value.
    fn option(&mut self, name: &str, value: Option<impl AsRef<std::ffi::OsStr>>) {
        if let Some(value) = value {
            self.0.extend([name.into(), value.as_ref().to_owned()]);
        }
    }
}

/// The folder of the captions for the answers in `output`.
pub(crate) fn folder(output: &Path) -> PathBuf {
    beside(output, ".perceived")
}
