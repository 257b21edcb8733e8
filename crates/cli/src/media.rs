//! Reads questions with images and videos for a vision-language model.

mod distinct;
mod sources;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use embodied_r_data::data_files::named;
use embodied_r_data::multimodal::{
    Columns, MediaFile, MediaUse, ReadOptions, Sample, SampleSet, Video,
};
use embodied_r_data::{DataFiles, Progress, Question, RecordPlace};
use embodied_r_dist::ProcessGroup;
use embodied_r_grpo::data::samples::LaidOutSample;
use embodied_r_grpo::settings::{FrameUse, MediaSettings};
use embodied_r_media::sampled_video::FrameSelection;
use embodied_r_media::source::{ImageSource, ReadError};
use embodied_r_media::table::{ImageTable, share};
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
    /// The records left out as bad ones: place and reason.
    pub(crate) skipped: Vec<(RecordPlace, String)>,
}

impl LaidOut {
    /// A warning that records are left out, if some are.
    pub(crate) fn warning(&self) -> Option<String> {
        left_out_warning(&self.skipped)
    }
}

/// A warning that the records `skipped` (place and reason) are left out, if there are any.
pub(crate) fn left_out_warning(skipped: &[(RecordPlace, String)]) -> Option<String> {
    let (place, reason) = skipped.first()?;
    let mut files: Vec<PathBuf> =
        skipped.iter().map(|(place, _)| place.path.to_path_buf()).collect();
    files.dedup();
    let (reason, files) = (located(place, reason), named(&files));
    Some(match skipped.len() {
        1 => format!("left out 1 bad record of {files}: {reason}"),
        count => format!("left out {count} bad records of {files}, for example: {reason}"),
    })
}

/// `reason` with the record that it is about, unless it names it already.
fn located(place: &RecordPlace, reason: &str) -> String {
    let record = place.to_string();
    if reason.contains(&record) { reason.to_owned() } else { format!("{record}: {reason}") }
}

/// Reads the questions of all files, with their images and videos for a model that sees them.
///
/// # Errors
/// A file cannot be read, or a record is bad and bad ones are not to be skipped.
pub(crate) fn read(
    data: &DataFiles,
    settings: &MediaSettings,
    media: MediaUse,
) -> anyhow::Result<SampleSet> {
    Ok(SampleSet::read(data, &read_options(settings, media)?)?)
}

/// Whether records of the files have one of the formats of questions with images.
pub(crate) fn has_known_format(data: &DataFiles) -> bool {
    let options =
        ReadOptions { media: MediaUse::Ignored, skip_bad_records: true, ..Default::default() };
    SampleSet::read(data, &options).is_ok()
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

/// Whether questions have captions.
///
/// # Errors
/// A file cannot be read.
pub(crate) fn is_captioned(data: &DataFiles, settings: &MediaSettings) -> anyhow::Result<bool> {
    let set = read(data, settings, MediaUse::Ignored)?;
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
    let mut bad = |place: RecordPlace, reason: String| match settings.skip_bad_records {
        true => {
            skipped.push((place, reason));
            Ok(())
        }
        false => {
            let what = located(&place, &reason);
            let hint = "fix the record, or leave bad ones out with `--skip-bad-records`";
            Err(exit::hint(what, hint))
        }
    };
    let (mut kept, mut media) = (Vec::new(), DistinctMedia::default());
    for (sample, place) in set.samples.into_iter().zip(set.places) {
        match media.add(&sample, &reader) {
            Ok(sources) => kept.push(Kept { place, sample, sources }),
            Err(error) => bad(place, error.to_string())?,
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
    for Kept { place, sample, sources } in kept {
        let of = |sources: &Range<usize>| -> Result<Vec<ImageLayout>, String> {
            let layout = |layout: &Result<ImageLayout, ReadError>| match layout {
                Ok(layout) => Ok(*layout),
                Err(error) => Err(error.to_string()),
            };
            layouts[sources.clone()].iter().map(layout).collect()
        };
        match sources.iter().map(of).collect::<Result<Vec<_>, _>>() {
            Ok(mut laid_out) => {
                let videos = laid_out.split_off(sample.media.images.len());
                samples.push(LaidOutSample { sample, images: laid_out.concat(), videos });
            }
            Err(reason) => bad(place, reason)?,
        }
    }
    Ok(LaidOut { samples, skipped })
}

/// A sample whose media have sources.
struct Kept {
    /// Of its record.
    place: RecordPlace,
    sample: Sample,
    /// The sources of each image, and then of each video.
    sources: Vec<Range<usize>>,
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
