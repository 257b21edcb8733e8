//! Questions with the layouts of their images and videos.

use std::ops::Range;

use embodied_r_data::multimodal::{Sample, SampleSet};
use embodied_r_data::{Progress, RecordPlace};
use embodied_r_dist::ProcessGroup;
use embodied_r_vision::ImageLayout;

use crate::distinct::DistinctMedia;
use crate::error::{Error, Result};
use crate::reader::{FrameOptions, MediaReader};
pub use crate::skipped::left_out_warning;
use crate::source::ReadError;
use crate::table::{ImageTable, share};

/// A question with the layouts of its images and videos.
#[derive(Debug, Clone)]
pub struct LaidOutSample {
    /// The question.
    pub sample: Sample,
    /// The layout of each of its images.
    pub images: Vec<ImageLayout>,
    /// The layouts of each of its videos: one of a video, or those of its frames as separate images.
    pub videos: Vec<Vec<ImageLayout>>,
}

/// The questions of a file, with the layouts of their images.
#[derive(Debug)]
pub struct LaidOut {
    /// The questions.
    pub samples: Vec<LaidOutSample>,
    /// The records left out as bad ones: place and reason.
    pub skipped: Vec<(RecordPlace, String)>,
}

impl LaidOut {
    /// A warning that records are left out, if some are.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        left_out_warning(&self.skipped)
    }
}

/// How questions are laid out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LayOutOptions {
    /// How the model sees videos.
    pub frames: FrameOptions,
    /// What happens to records with a missing or broken image or video.
    pub bad_records: BadRecords,
}

/// What happens to records with a missing or broken image or video.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadRecords {
    /// The first one is an error.
    Reject,
    /// They are left out.
    Skip,
}

/// A sample whose media have sources.
struct Kept {
    /// Of its record.
    place: RecordPlace,
    sample: Sample,
    /// The sources of each image, and then of each video.
    sources: Vec<Range<usize>>,
}

/// Decodes the images and videos of all samples once into `table`, a share on each rank; samples with a broken one are an
/// error, or left out.
///
/// # Errors
/// [`Error::BadRecord`] if an image or a video is broken. A rank is lost.
pub fn lay_out(
    set: SampleSet,
    table: &mut ImageTable,
    options: LayOutOptions,
    process_group: &ProcessGroup,
    bar: &dyn Progress,
) -> Result<LaidOut> {
    let reader = MediaReader::new(options.frames, table.processor().processor());
    let mut skipped = set.skipped;
    let mut bad = |place: RecordPlace, reason: String| match options.bad_records {
        BadRecords::Skip => {
            skipped.push((place, reason));
            Ok(())
        }
        BadRecords::Reject => Err(Error::BadRecord { place, reason }),
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
                Ok(layout) => Ok(layout.clone()),
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
