//! `--direct`: a vision-language model answers from images and video frames itself.

use std::path::Path;
use std::sync::Arc;

use embodied_r_data::data_files::named;
use embodied_r_data::multimodal::{
    MediaFile, MediaUse, Part, Sample, SampleSet, Video, sample_of_question,
};
use embodied_r_data::progress::Silent;
use embodied_r_data::question_set::QuestionSet;
use embodied_r_data::{DataFiles, Error as DataError, Progress as _, Question, RecordPlace};
use embodied_r_dist::ProcessGroup;
use embodied_r_grpo::settings::{FrameUse, MediaSettings, VisionSettings};
use embodied_r_media::reader::MediaReader;
use embodied_r_media::sampled_video::{FramePlan, FrameSelection};
use embodied_r_media::store::{ImageStore, StoreOptions};
use embodied_r_media::table::ImageTable;
use embodied_r_policy::{Prompt, WeightPlacement};
use embodied_r_video::Limits;
use embodied_r_vision::{Frames, Processor, VisionProcessor, is_vision_language_model};
use serde_json::{Map, Value, json};

use crate::args::direct::{DirectArgs, MediaLimits, ViewArgs};
use crate::asked::{Asked, report_unanswered};
use crate::exit::{self, Usage};
use crate::media;
use crate::progress::Bar;
use crate::questions::{Annotations, QuestionSource, Reader};
use crate::run_images::image_table;

/// Bytes of decoded frames in memory that wait to be encoded; what is beyond is decoded twice.
const KEPT_FRAMES: usize = 1 << 30;

/// The model whose image processor limits the pixels of images for servers. A server resizes them as its model needs.
const SERVER_PROCESSOR: &str = "Qwen/Qwen2.5-VL-7B-Instruct";

/// What to do about a video with too many tokens.
pub(crate) const FEWER_TOKENS: &str =
    "show fewer or smaller frames (`--frames uniform=8`, `--max-pixels`)";

/// How a model sees the images and videos of the questions.
#[derive(Debug, Clone)]
pub(crate) struct Direct {
    media: MediaSettings,
    vision: VisionSettings,
    /// Whether the options say which frames of videos are shown.
    selects_frames: bool,
}

impl Direct {
    /// That of the options; `None` without `--direct`.
    ///
    /// # Errors
    /// The frames of videos are invalid.
    pub(crate) fn new(args: &DirectArgs, limits: MediaLimits) -> Result<Option<Self>, Usage> {
        if !args.direct {
            return Ok(None);
        }
        let Self { media, vision, selects_frames } = Self::of_view(&args.view, limits)?;
        let media = MediaSettings {
            columns: args.columns.clone(),
            image_dir: args.image_dir.clone(),
            skip_bad_records: args.skip_bad_records,
            ..media
        };
        Ok(Some(Self { media, vision, selects_frames }))
    }

    /// For videos and images that no file of questions names.
    ///
    /// # Errors
    /// The frames of videos are invalid.
    pub(crate) fn of_view(args: &ViewArgs, limits: MediaLimits) -> Result<Self, Usage> {
        let defaults = MediaSettings::default();
        let selected =
            FrameSelection::from_options(args.frames.as_deref(), args.fps, limits.max_frames)
                .map_err(|error| Usage(format!("the frames of videos: {error}")))?;
        let media = MediaSettings {
            direct: Some(true),
            video_dir: limits.video_dir,
            frames: match selected {
                Some(selected) => selected.to_string(),
                None => defaults.frames,
            },
            frame_use: args.frame_use.map_or(defaults.frame_use, Into::into),
            ..defaults
        };
        let vision = VisionSettings {
            max_pixels: limits.max_pixels,
            min_pixels: args.min_pixels,
            video_pixels: args.video_pixels.unwrap_or_default().into(),
            ..VisionSettings::default()
        };
        Ok(Self { media, vision, selects_frames: selected.is_some() })
    }

    /// The settings that completions depend on, by name.
    pub(crate) fn settings(&self) -> Map<String, Value> {
        Map::from_iter([
            ("direct".to_owned(), json!(true)),
            ("frames".to_owned(), json!(self.media.frames)),
            ("frame_use".to_owned(), json!(self.media.frame_use)),
            ("min_pixels".to_owned(), json!(self.vision.min_pixels)),
            ("max_pixels".to_owned(), json!(self.vision.max_pixels)),
            ("video_pixels".to_owned(), json!(self.vision.video_pixels)),
        ])
    }

    /// The selected frames of the video at `path` as the model sees them: one video, or separate images.
    ///
    /// # Errors
    /// The video is missing or broken, or `limits` end its decoding.
    pub(crate) fn frames_of(
        &self,
        path: &Path,
        processor: &Processor,
        limits: &Limits,
    ) -> anyhow::Result<Vec<Frames>> {
        let selection: FrameSelection = self.media.frames.parse()?;
        let plan = FramePlan::of_file(path, &selection, processor, limits)?;
        let video = plan.decode(self.media.frame_use, processor, limits)?;
        Ok(match self.media.frame_use {
            FrameUse::Video => vec![Frames::Video(video)],
            FrameUse::Images => video.frames.into_iter().map(Frames::Image).collect(),
        })
    }

    /// Checks that the model in `folder` sees; `name` is what the user calls it.
    ///
    /// # Errors
    /// It is a text model.
    pub(crate) fn check_model(&self, folder: &Path, name: &str) -> Result<(), Usage> {
        match is_vision_language_model(folder) {
            true => Ok(()),
            false => Err(Usage(format!(
                "`--direct`: `{name}` is a text model; choose a vision-language model such as Qwen2.5-VL, or leave out \
                 `--direct`"
            ))),
        }
    }

    /// The first questions of `source` with their images and videos: any format of questions with images, or that of a
    /// benchmark. Files are looked up, but not read.
    ///
    /// # Errors
    /// A file cannot be read, or a record is bad and bad ones are not to be left out.
    pub(crate) fn read(&self, source: &QuestionSource) -> anyhow::Result<SampleSet> {
        let QuestionSource { data, answers, limit, .. } = source;
        let mut set = match source.annotations(Reader::Vision)? {
            Some(annotations) => {
                annotations.read(&media::read_options(&self.media, MediaUse::Required)?)?
            }
            None => self.read_files(data, answers.as_deref())?,
        };
        set.reject_duplicates()?;
        set.samples.truncate(limit.unwrap_or(usize::MAX));
        set.places.truncate(set.samples.len());
        Ok(set)
    }

    fn read_files(&self, data: &DataFiles, answers: Option<&Path>) -> anyhow::Result<SampleSet> {
        Ok(match QuestionSet::read(data, answers) {
            Ok(set) if set.is_raw() => self.of_benchmark(set)?,
            Err(error) if answers.is_some() => return Err(error.into()),
            Err(error) => media::read(data, &self.media, MediaUse::Required)
                .map_err(|other| of_benchmark_or(error, other))?,
            Ok(_) => media::read(data, &self.media, MediaUse::Required)?,
        })
    }

    /// The same with the frames that the benchmark's layout selects, unless the options selected some.
    #[must_use]
    pub(crate) fn with_frames_of(mut self, annotations: Option<&Annotations>) -> Self {
        let frames = annotations.and_then(Annotations::frames);
        if let Some(frames) = frames.filter(|_| !self.selects_frames) {
            self.media.frames = frames.to_owned();
        }
        self
    }

    /// The same, but records with a missing or broken image or video are left out.
    #[must_use]
    pub(crate) fn skipping_bad_records(mut self) -> Self {
        self.media.skip_bad_records = true;
        self
    }

    /// Which frames of videos are shown, as `--frames` takes them.
    pub(crate) fn frames(&self) -> &str {
        &self.media.frames
    }

    /// The embeddings of the images of `table`, encoded when a prompt needs them by the vision encoder in `folder`, each
    /// once as far as memory allows.
    pub(crate) fn image_store(
        &self,
        table: &Arc<ImageTable>,
        folder: &Path,
        placement: &WeightPlacement,
    ) -> ImageStore {
        let options = StoreOptions {
            model: folder.to_owned(),
            format: placement.format,
            device: placement.device.clone(),
            memory_bytes: (self.vision.image_cache_gb * 1e9) as usize,
            disk: None,
        };
        ImageStore::new(table.clone(), options)
    }

    /// An empty table for the images of the model in `folder`, which keeps decoded frames until they are encoded.
    ///
    /// # Errors
    /// It is a text model.
    pub(crate) fn image_table(&self, folder: &Path) -> anyhow::Result<ImageTable> {
        Ok(image_table(folder, &self.vision)?.keep_frames(KEPT_FRAMES))
    }

    /// The same for a model on a server, which gets the frames of a video as separate images: no other form is known to
    /// all servers.
    #[must_use]
    pub(crate) fn on_server(&self) -> Self {
        let media = MediaSettings { frame_use: FrameUse::Images, ..self.media.clone() };
        Self { media, ..self.clone() }
    }

    /// An empty table for the images of a model on a server, with the limits on pixels of [`SERVER_PROCESSOR`].
    pub(crate) fn server_image_table(&self) -> Option<ImageTable> {
        let processor = VisionProcessor::published(SERVER_PROCESSOR)?;
        Some(ImageTable::new(processor.with_pixels(self.vision.pixels())))
    }

    /// How the images and videos of the questions are read.
    ///
    /// # Errors
    /// The frames of videos are invalid.
    pub(crate) fn reader(&self, processor: &Processor) -> Result<MediaReader, Usage> {
        Ok(MediaReader::new(media::frame_options(&self.media)?, processor))
    }

    fn of_benchmark(&self, set: QuestionSet) -> anyhow::Result<SampleSet> {
        report_unanswered(&set);
        let options = media::read_options(&self.media, MediaUse::Required)?;
        let mut found = SampleSet::empty(set.files);
        for (question, place) in set.questions.iter().zip(set.places) {
            match sample_of_question(question, &place, &options) {
                Ok(sample) => {
                    found.samples.push(sample);
                    found.places.push(place);
                }
                Err(error) if self.media.skip_bad_records => {
                    found.skipped.push((place, error.to_string()));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(found)
    }

    /// Decodes the images and videos of `set` once, into an empty `table`; warns about records that are left out.
    ///
    /// # Errors
    /// An image or a video is broken and bad records are not to be left out, or no question is left.
    pub(crate) fn lay_out(&self, set: SampleSet, mut table: ImageTable) -> anyhow::Result<Asked> {
        let files = named(&set.files);
        let bar = Bar::default();
        let found = media::lay_out(set, &mut table, &self.media, &ProcessGroup::default(), &bar)?;
        if let Some(warning) = found.warning() {
            bar.warn(&warning);
        }
        if found.samples.is_empty() {
            let what = format!("{files} has no usable questions");
            return Err(exit::hint(what, "see the reasons above"));
        }
        Ok(Asked::seen(found.samples, table))
    }

    /// The question `text` about the video at `path`, decoded for a model in `folder`.
    ///
    /// # Errors
    /// The video is missing or broken.
    pub(crate) fn lay_out_video(
        &self,
        path: &Path,
        text: &str,
        folder: &Path,
    ) -> anyhow::Result<Asked> {
        let mut table = self.image_table(folder)?;
        // What is wrong with a record is returned.
        let settings = MediaSettings { skip_bad_records: true, ..self.media.clone() };
        let found = media::lay_out(
            about_video(path, text),
            &mut table,
            &settings,
            &ProcessGroup::default(),
            &Silent,
        )?;
        match found.skipped.first() {
            Some((_, reason)) => anyhow::bail!("cannot show `{}`: {reason}", path.display()),
            None => Ok(Asked::seen(found.samples, table)),
        }
    }
}

/// What is wrong if a model without `--direct` is to see.
pub(crate) fn not_given() -> Usage {
    Usage("the model sees images with `--direct` only".into())
}

/// What is wrong with a file that is no question set (`error`) and cannot be read with its images (`other`): of a
/// benchmark's own format, the former.
fn of_benchmark_or(error: DataError, other: anyhow::Error) -> anyhow::Error {
    let is_unknown =
        matches!(other.downcast_ref::<DataError>(), Some(DataError::UnknownFormat { .. }));
    match (is_unknown, error) {
        (false, _) | (true, DataError::Json { .. } | DataError::UnknownFormat { .. }) => other,
        (true, error) => error.into(),
    }
}

/// The question `text` about the video at `path`.
fn about_video(path: &Path, text: &str) -> SampleSet {
    let question = Question { question: text.to_owned(), ..Question::default() };
    let mut sample = Sample::from_text(question);
    if let Some(message) = sample.messages.first_mut() {
        message.content.insert(0, Part::Video);
    }
    sample.media.videos.push(Video::File(MediaFile::Path(path.to_owned())));
    SampleSet {
        samples: vec![sample],
        places: vec![RecordPlace { path: path.into(), index: 0 }],
        ..SampleSet::empty(vec![path.to_owned()])
    }
}

/// The prompt with the embeddings of its images; those of `coming`, the prompt after it, are decoded meanwhile.
///
/// # Errors
/// An image has changed since it was added, or cannot be encoded.
pub(crate) fn embedded(
    prompt: &Prompt,
    coming: Option<&Prompt>,
    store: &ImageStore,
) -> embodied_r_inference::Result<Prompt> {
    let failed = |error| embodied_r_policy::Error::Image { source: Box::new(error) };
    store.prepare_before([prompt], coming).map_err(failed)?;
    Ok(prompt.embedded(Some(store))?)
}
