//! Reads questions with images and videos for a vision-language model.

mod distinct;
mod sources;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use embodied_r_data::multimodal::{
    Columns, MediaFile, MediaUse, ReadOptions, Sample, SampleSet, Video, read_samples,
};
use embodied_r_data::{Progress, Question};
use embodied_r_grpo::data::samples::LaidOutSample;
use embodied_r_grpo::images::table::{ImageSource, ImageTable, ReadError, share};
use embodied_r_grpo::process_group::ProcessGroup;
use embodied_r_grpo::settings::{FrameUse, MediaSettings};
use embodied_r_perception::sampled_video::FrameSelection;
use embodied_r_vision::{ImageLayout, Processor};

use crate::exit::{self, Usage};
use distinct::DistinctMedia;
use sources::{FrameOf, FramesOf, ImageOf, RecentFrames, SeparateFrames, VideoOf};

/// Bytes of the frames of videos that are decoded again for one of their images, and kept for the others; beyond, one video
/// for each thread.
const RECENT_FRAMES: usize = 1 << 27;

/// The questions of a file, with the layouts of their images.
pub(crate) struct LaidOut {
    pub(crate) samples: Vec<LaidOutSample>,
    /// The records left out as bad ones: index and reason.
    pub(crate) skipped: Vec<(usize, String)>,
}

impl LaidOut {
    /// A warning that records of `path` are left out, if some are.
    pub(crate) fn warning(&self, path: &Path) -> Option<String> {
        left_out_warning(&self.skipped, path)
    }
}

/// A warning that the records `skipped` (index and reason) of `path` are left out, if there are any.
pub(crate) fn left_out_warning(skipped: &[(usize, String)], path: &Path) -> Option<String> {
    let (index, reason) = skipped.first()?;
    let (reason, path) = (located(*index, reason, path), path.display());
    Some(match skipped.len() {
        1 => format!("left out 1 bad record of `{path}`: {reason}"),
        count => format!("left out {count} bad records of `{path}`, for example: {reason}"),
    })
}

/// `reason` with the record that it is about, unless it names it already.
fn located(index: usize, reason: &str, path: &Path) -> String {
    let record = format!("record {} of `{}`", index + 1, path.display());
    if reason.contains(&record) { reason.to_owned() } else { format!("{record}: {reason}") }
}

/// Reads the questions of `path`, with their images and videos for a model that sees them.
///
/// # Errors
/// The file cannot be read, or a record is bad and bad ones are not to be skipped.
pub(crate) fn read(
    path: &Path,
    settings: &MediaSettings,
    media: MediaUse,
) -> anyhow::Result<SampleSet> {
    Ok(read_samples(path, &read_options(settings, media)?)?)
}

/// Whether records of the file have one of the formats of questions with images.
pub(crate) fn has_known_format(path: &Path) -> bool {
    let options =
        ReadOptions { media: MediaUse::Ignored, skip_bad_records: true, ..Default::default() };
    read_samples(path, &options).is_ok()
}

/// How question files are read.
///
/// # Errors
/// The columns are invalid.
pub(crate) fn read_options(
    settings: &MediaSettings,
    media: MediaUse,
) -> anyhow::Result<ReadOptions> {
    let columns = settings.columns.as_deref().map(str::parse::<Columns>).transpose()?;
    Ok(ReadOptions {
        columns: columns.unwrap_or_default(),
        image_dir: settings.image_dir.clone(),
        video_dir: settings.video_dir.clone(),
        skip_bad_records: settings.skip_bad_records,
        media,
    })
}

/// Whether the questions of `path` have captions.
///
/// # Errors
/// The file cannot be read.
pub(crate) fn is_captioned(path: &Path, settings: &MediaSettings) -> anyhow::Result<bool> {
    let set = read(path, settings, MediaUse::Ignored)?;
    Ok(set.questions().any(Question::has_captions))
}

/// Decodes the images and videos of all samples once into `table`, a share on each rank; samples with a broken one are an
/// error, or left out.
///
/// # Errors
/// An image or a video is broken; the error names the record. A rank is lost.
pub(crate) fn lay_out(
    set: SampleSet,
    table: &mut ImageTable,
    settings: &MediaSettings,
    process_group: &ProcessGroup,
    bar: &dyn Progress,
) -> anyhow::Result<LaidOut> {
    let reader = MediaReader::new(settings, table.processor().processor())?;
    let mut skipped = set.skipped;
    let mut bad = |index: usize, reason: String| match settings.skip_bad_records {
        true => {
            skipped.push((index, reason));
            Ok(())
        }
        false => {
            let what = located(index, &reason, &set.path);
            let hint = "fix the record, or leave bad ones out with `--skip-bad-records`";
            Err(exit::hint(what, hint))
        }
    };
    let (mut kept, mut media) = (Vec::new(), DistinctMedia::default());
    for (sample, index) in set.samples.into_iter().zip(set.record_indices) {
        match media.add(&sample, &reader) {
            Ok(places) => kept.push(Kept { index, sample, places }),
            Err(error) => bad(index, error.to_string())?,
        }
    }
    let sources = media.sources();
    process_group.enter("reading images");
    bar.start("reading images", Some(share(sources.len(), process_group).len() as u64));
    let on_read = || {
        bar.advance(1);
        process_group.heartbeat();
    };
    let layouts = table.add_shared(sources, process_group, &on_read)?;
    bar.finish();
    let mut samples = Vec::with_capacity(kept.len());
    for Kept { index, sample, places } in kept {
        let of = |places: &Range<usize>| -> Result<Vec<ImageLayout>, String> {
            let layout = |layout: &Result<ImageLayout, ReadError>| match layout {
                Ok(layout) => Ok(*layout),
                Err(error) => Err(error.to_string()),
            };
            layouts[places.clone()].iter().map(layout).collect()
        };
        match places.iter().map(of).collect::<Result<Vec<_>, _>>() {
            Ok(mut laid_out) => {
                let videos = laid_out.split_off(sample.media.images.len());
                samples.push(LaidOutSample { sample, images: laid_out.concat(), videos });
            }
            Err(reason) => bad(index, reason)?,
        }
    }
    Ok(LaidOut { samples, skipped })
}

/// A sample whose media have sources.
struct Kept {
    /// Of its record.
    index: usize,
    sample: Sample,
    /// The sources of each image, and then of each video.
    places: Vec<Range<usize>>,
}

/// How media become images.
#[derive(Debug, Clone)]
pub(crate) struct MediaReader {
    selection: FrameSelection,
    frame_use: FrameUse,
    processor: Processor,
    recent: Arc<RecentFrames>,
}

/// The sources of an image or a video. Frames that are separate images are decoded once if each is read once.
pub(crate) type Sources = Vec<Arc<dyn ImageSource>>;

impl MediaReader {
    /// Reads media as the settings say, for a model with this processor.
    ///
    /// # Errors
    /// The frames of videos are invalid.
    pub(crate) fn new(settings: &MediaSettings, processor: &Processor) -> Result<Self, Usage> {
        let selection =
            settings.frames.parse().map_err(|error| Usage(format!("`frames`: {error}")))?;
        let recent = Arc::new(RecentFrames::new(RECENT_FRAMES, rayon::current_num_threads()));
        let (frame_use, processor) = (settings.frame_use, processor.clone());
        Ok(Self { selection, frame_use, processor, recent })
    }

    /// The source of an image.
    pub(crate) fn image(&self, file: &MediaFile) -> Sources {
        vec![Arc::new(ImageOf(file.clone()))]
    }

    /// The sources of a video.
    ///
    /// # Errors
    /// Its frames are to be separate images, but the file is missing or broken.
    pub(crate) fn video(&self, video: &Video) -> anyhow::Result<Sources> {
        Ok(match (video, self.frame_use) {
            (Video::Frames { frames, .. }, FrameUse::Images) => {
                frames.iter().flat_map(|frame| self.image(frame)).collect()
            }
            (Video::Frames { frames, fps }, FrameUse::Video) => {
                let none =
                    || anyhow::anyhow!("a video of frames needs `fps`, the frames per second");
                let fps = fps.ok_or_else(none)?;
                vec![Arc::new(FramesOf { frames: frames.clone(), fps })]
            }
            (Video::File(file), FrameUse::Video) => vec![Arc::new(self.file(file.clone()))],
            (Video::File(file), FrameUse::Images) => {
                let video = self.file(file.clone());
                let plan = video.plan().map_err(anyhow::Error::from_boxed)?;
                let frames = plan.indices().len();
                let video = Arc::new(SeparateFrames::new(video, &self.recent));
                let frame = |index| -> Arc<dyn ImageSource> {
                    Arc::new(FrameOf { video: video.clone(), index })
                };
                (0..frames).map(frame).collect()
            }
        })
    }

    fn file(&self, file: MediaFile) -> VideoOf {
        VideoOf { file, selection: self.selection, processor: self.processor.clone() }
    }
}

/// The folder of a run's image embeddings.
pub(crate) fn image_cache(output: &Path) -> PathBuf {
    output.join("image_cache")
}
