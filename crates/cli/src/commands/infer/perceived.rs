//! Captions the videos of questions on the fly.

use std::path::{Path, PathBuf};

use anyhow::Context;
use embodied_r_data::captions::ORIGINAL_QUESTION;
use embodied_r_data::data_files::named;
use embodied_r_data::question::{Question, read_questions};
use embodied_r_data::question_set::QuestionSet;
use embodied_r_files::write_atomic;
use embodied_r_perception::perceive::video_path;
use serde_json::Value;

use super::paths::beside;
use crate::args;
use crate::args::model::WeightArgs;
use crate::args::perceive::PerceiveArgs;
use crate::args::perceive::backend::Backend;
use crate::args::video::VideoArgs;
use crate::asked::report_unanswered;
use crate::commands::perceive;
use crate::exit::{self, Status, Usage};
use crate::media;
use crate::questions::{QuestionSource, Reader};

/// Placeholder at the start of a question whose video is not captioned yet.
const VIDEO: &str = "<video>";

/// Reads the questions in any supported format; reports dropped ones. Refuses files without questions, and those in which a
/// question occurs twice.
pub(crate) fn read(source: &QuestionSource) -> anyhow::Result<QuestionSet> {
    let QuestionSource { data, answers, limit, .. } = source;
    let mut set = match source.annotations(Reader::Text)? {
        Some(annotations) => annotations.read_text()?,
        None => QuestionSet::read(data, answers.as_deref())?,
    };
    set.reject_duplicates()?;
    if set.questions.is_empty() {
        let path = set.files.into_iter().next().unwrap_or_default();
        return Err(embodied_r_data::Error::EmptyQuestionFile { path }.into());
    }
    report_unanswered(&set);
    set.questions.truncate(limit.unwrap_or(usize::MAX));
    set.places.truncate(set.questions.len());
    Ok(set)
}

/// [`read`] for a model that reads text: warns if questions have images or videos, which it does not see.
pub(crate) fn read_text(source: &QuestionSource) -> anyhow::Result<QuestionSet> {
    if let Some(annotations) = source.annotations(Reader::Text)? {
        annotations.require_videos()?;
    }
    let set = read(source).map_err(|error| {
        use embodied_r_data::Error::{Json, UnknownFormat};
        let is_other = matches!(error.downcast_ref(), Some(Json { .. } | UnknownFormat { .. }));
        match is_other && media::has_known_format(&source.data) {
            true => {
                exit::hint(error.to_string(), "a vision-language model reads it with `--direct`")
            }
            false => error,
        }
    })?;
    let unseen = set.questions.iter().filter(|question| has_unseen_media(question)).count();
    if unseen > 0 {
        eprintln!(
            "warning: {unseen} of {} questions have images or videos, which a vision-language model sees with `--direct` \
             only",
            set.questions.len()
        );
    }
    Ok(set)
}

/// Whether a question without captions has images or a list of videos.
fn has_unseen_media(question: &Question) -> bool {
    let has = |field: &str| match question.extra.get(field) {
        None | Some(Value::Null) => false,
        Some(Value::Array(media)) => !media.is_empty(),
        Some(_) => true,
    };
    (has("images") || has("videos")) && !question.has_captions()
}

/// Question sets, some of whose questions may need captions, and the options of `perceive` to make them.
pub(crate) struct CaptioningPlan {
    sets: Vec<QuestionSet>,
    /// The questions of each set that need captions: their indices, and what `perceive` reads.
    uncaptioned: Vec<Vec<(usize, Question)>>,
    /// `None` if no question needs captions.
    perceive: Option<PerceiveArgs>,
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
        let perceive = match sets.iter().find(needs) {
            Some(set) if !is_given => return Err(no_captioner(set).into()),
            Some(_) => Some(perceive_args(args, weights)?),
            None => None,
        };
        let uncaptioned =
            sets.iter().map(|set| uncaptioned(set, args)).collect::<anyhow::Result<_>>()?;
        Ok(Self { sets, uncaptioned, perceive })
    }

    /// Whether some questions need captions.
    pub(crate) fn is_needed(&self) -> bool {
        self.perceive.is_some()
    }

    /// The questions of each set, with captions added where they are missing. The captions, which may have a cost, are
    /// kept in `folder`; an interrupted run resumes from it.
    ///
    /// # Errors
    /// Captioning fails, also of some questions only.
    pub(crate) fn run(self, folder: &Path) -> anyhow::Result<Vec<Vec<Question>>> {
        let Some(mut args) = self.perceive else {
            return Ok(self.sets.into_iter().map(|set| set.questions).collect());
        };
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot create `{}`", folder.display()))?;
        let prompts = folder.join("prompts");
        args.data.output = prompts.clone();
        args.data.data.clear();
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
            args.data.data.push(input);
        }
        let status = perceive::run(args)?;
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
                let original = std::mem::replace(&mut questions[index].question, prompt.question);
                questions[index].extra.insert(ORIGINAL_QUESTION.to_owned(), original.into());
            }
            all.push(questions);
        }
        Ok(all)
    }
}

/// Whether a question needs captions. If a captioner `is_given`, questions of `preprocess` do too, which otherwise are
/// answered from their text alone.
fn is_uncaptioned(set: &QuestionSet, question: &Question, is_given: bool) -> bool {
    let is_preprocessed = || question.videos.is_some() && !question.has_captions();
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
            match video_path(&question, args.video_dir.as_deref(), &set.places[index].path) {
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
    let files = named(&set.files);
    let what = match set.is_raw() {
        true => format!("the questions of {files} are about videos without captions"),
        false => format!("some questions of {files} start with `{VIDEO}` and have no captions"),
    };
    let paths: Vec<String> = set.files.iter().map(|file| file.display().to_string()).collect();
    let paths = paths.join(" ");
    Usage(format!(
        "{what}; run `embodied-r perceive --data {paths}` first and use its output, or give a captioner here: \
         `--captioner MODEL`, with `--captioner-base-url URL` if it is on a server, or `--scenes DIR`"
    ))
}

/// The options of `perceive` with this captioner; `weights` are those of a local one.
fn perceive_args(args: &VideoArgs, weights: &WeightArgs) -> anyhow::Result<PerceiveArgs> {
    let VideoArgs { video_dir, captioner, key_frames } = args;
    let mut perceive = args::perceive_args()?;
    perceive.video_dir = video_dir.clone();
    perceive.key_frames = key_frames.clone();
    // The captions are those of the given options; responses to other ones stay in the cache.
    perceive.redo_changed = true;
    perceive.scene.scenes = captioner.scenes.clone();
    perceive.model.captioner = captioner.captioner.clone();
    perceive.model.max_tokens = captioner.caption_tokens;
    perceive.model.cache = captioner.cache.clone();
    perceive.openai.base_url = captioner.captioner_base_url.clone();
    perceive.local.weights = weights.clone();
    perceive.local.max_pixels = captioner.max_pixels;
    let is_remote = !captioner.captioner_base_url.is_empty();
    perceive.backend = match captioner.scenes {
        Some(_) => Backend::Scene,
        None if is_remote => Backend::Openai,
        None => Backend::Local,
    };
    if is_remote && captioner.max_pixels.is_some() {
        let what = "`--max-pixels` belongs to a local captioner, but with `--captioner-base-url` it is on a server";
        return Err(Usage(what.into()).into());
    }
    Ok(perceive)
}

/// The folder of the captions for the answers in `output`.
pub(crate) fn folder(output: &Path) -> PathBuf {
    beside(output, ".perceived")
}
