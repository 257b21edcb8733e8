//! Which questions a command reads: those of question files, or of a benchmark in its own layout.

use std::path::{Path, PathBuf};

use embodied_r_data::multimodal::{MediaUse, ReadOptions, SampleSet};
use embodied_r_data::question_set::{QuestionFormat, QuestionSet};
use embodied_r_data::{DataFiles, Question, VideoFolders, find_video};
use embodied_r_eval::Benchmark;
use embodied_r_eval::benchmark::Layout;
use embodied_r_eval::layout::AnnotationFiles;
use embodied_r_eval::own_prompt::EMBODIED_R_PROMPT;

use crate::exit::Usage;

/// Which questions are read.
#[derive(Debug, Clone)]
pub(crate) struct QuestionSource {
    /// The files.
    pub(crate) data: DataFiles,
    /// EgoSchema's answer file.
    pub(crate) answers: Option<PathBuf>,
    /// Number of questions from the start.
    pub(crate) limit: Option<usize>,
    /// The benchmark that they may be of.
    pub(crate) benchmark: Option<&'static Benchmark>,
    /// Its prompt; `None` for the default one.
    pub(crate) prompt: Option<String>,
}

/// Who reads the questions: it decides the default prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reader {
    /// A vision-language model, which sees images and videos; it gets the benchmark's own prompt.
    Vision,
    /// A text model, which reads captions, or nothing beside the question; it gets this program's prompt.
    Text,
}

/// A benchmark's questions in its own layout.
#[derive(Debug, Clone)]
pub(crate) struct Annotations {
    files: AnnotationFiles,
    layout: &'static Layout,
    limit: usize,
    /// The prompt.
    pub(crate) prompt: &'static str,
}

impl QuestionSource {
    /// Question files.
    pub(crate) fn files(data: DataFiles) -> Self {
        Self { data, answers: None, limit: None, benchmark: None, prompt: None }
    }

    /// The benchmark's questions in its own layout; `None` if `--data` has question files.
    ///
    /// # Errors
    /// The benchmark has no such prompt, or a folder has neither its files nor question files.
    pub(crate) fn annotations(&self, reader: Reader) -> anyhow::Result<Option<Annotations>> {
        let Some((benchmark, layout)) = self.benchmark.and_then(|it| Some((it, it.layout?))) else {
            return match &self.prompt {
                Some(name) => Err(Usage(format!(
                    "`--prompt {name}` needs the `--benchmark` whose prompt it is"
                ))
                .into()),
                None => Ok(None),
            };
        };
        let prompt = prompt(benchmark, layout, self.prompt.as_deref(), reader)?;
        let Some(files) = self.annotation_files(layout)? else { return Ok(None) };
        let limit = self.limit.unwrap_or(usize::MAX);
        Ok(Some(Annotations { files, layout, limit, prompt }))
    }

    fn annotation_files(&self, layout: &Layout) -> anyhow::Result<Option<AnnotationFiles>> {
        let [path] = self.data.paths() else { return Ok(None) };
        if path.is_file() && !AnnotationFiles::has_name(layout, path) {
            return Ok(None);
        }
        match AnnotationFiles::find(layout, path) {
            Ok(files) => Ok(Some(files)),
            Err(_) if QuestionSet::read(&self.data, None).is_ok() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl Annotations {
    /// The questions, with images and videos as the options say.
    ///
    /// # Errors
    /// A file cannot be read, or a record is not as the layout says.
    pub(crate) fn read(&self, options: &ReadOptions) -> anyhow::Result<SampleSet> {
        Ok(self.files.read(self.layout, self.prompt, options, self.limit)?)
    }

    /// The questions as text.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(crate) fn read_text(&self) -> anyhow::Result<QuestionSet> {
        let options = ReadOptions { media: MediaUse::Ignored, ..ReadOptions::default() };
        let SampleSet { files, samples, places, .. } = self.read(&options)?;
        let questions = samples.into_iter().map(|sample| sample.question).collect();
        Ok(QuestionSet {
            files,
            format: QuestionFormat::Benchmark,
            questions,
            places,
            unanswered: 0,
        })
    }

    /// The questions as text for a captioner, with the paths of their videos as far as they are there.
    ///
    /// # Errors
    /// As [`Self::read`], or the questions are about images.
    pub(crate) fn captioned_questions(
        &self,
        video_dir: Option<&Path>,
    ) -> anyhow::Result<Vec<Question>> {
        self.require_videos()?;
        let mut questions = self.read_text()?.questions;
        let folders = VideoFolders { video_dir, image_dir: None, beside: &self.files.folder };
        for question in &mut questions {
            let found =
                find_video(question.videos.as_deref(), question.video_id.as_deref(), folders);
            if let Some(path) = found {
                question.videos = Some(std::path::absolute(path)?.to_string_lossy().into_owned());
            }
        }
        Ok(questions)
    }

    /// # Errors
    /// The questions are about images, which have no captions.
    pub(crate) fn require_videos(&self) -> Result<(), Usage> {
        match self.frames() {
            Some(_) => Ok(()),
            None => {
                let what = "the benchmark has images, which are not captioned: a vision-language model answers with `--direct`";
                Err(Usage(what.into()))
            }
        }
    }

    /// The digest of its files, as [`AnnotationFiles::sha256`].
    ///
    /// # Errors
    /// A file cannot be read.
    pub(crate) fn sha256(&self) -> anyhow::Result<String> {
        Ok(self.files.sha256()?)
    }

    /// The rule that selects frames of its videos by default; `None` for images.
    pub(crate) fn frames(&self) -> Option<&'static str> {
        self.layout.frames.first().copied()
    }
}

fn prompt(
    benchmark: &Benchmark,
    layout: &'static Layout,
    name: Option<&str>,
    reader: Reader,
) -> Result<&'static str, Usage> {
    let name = match (name, reader) {
        (Some(name), _) => name,
        (None, Reader::Text) => EMBODIED_R_PROMPT,
        (None, Reader::Vision) => layout.prompts.first().copied().unwrap_or(EMBODIED_R_PROMPT),
    };
    layout.prompts.iter().copied().find(|&known| known == name).ok_or_else(|| {
        let known = layout.prompts.join("`, `");
        Usage(format!("`{}` has no prompt `{name}`; its prompts are `{known}`", benchmark.name))
    })
}
