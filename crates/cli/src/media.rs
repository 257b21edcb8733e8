//! Reads questions with images and videos for a vision-language model, as the settings say.

use std::path::{Path, PathBuf};

use embodied_r_data::multimodal::{Columns, MediaUse, ReadOptions, SampleSet};
use embodied_r_data::{DataFiles, Progress, Question};
use embodied_r_dist::ProcessGroup;
use embodied_r_grpo::settings::MediaSettings;
use embodied_r_media::Error;
use embodied_r_media::laid_out::{self, BadRecords, LaidOut, LayOutOptions};
use embodied_r_media::reader::FrameOptions;
use embodied_r_media::table::ImageTable;

use crate::exit::{self, Usage};

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

/// How a model sees videos.
///
/// # Errors
/// The frames of videos are invalid.
pub(crate) fn frame_options(settings: &MediaSettings) -> Result<FrameOptions, Usage> {
    let selection = settings.frames.parse().map_err(|error| Usage(format!("`frames`: {error}")))?;
    Ok(FrameOptions { selection, frame_use: settings.frame_use })
}

/// [`laid_out::lay_out`] as the settings say.
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
    let bad_records = match settings.skip_bad_records {
        true => BadRecords::Skip,
        false => BadRecords::Reject,
    };
    let options = LayOutOptions { frames: frame_options(settings)?, bad_records };
    let found = laid_out::lay_out(set, table, options, process_group, bar);
    found.map_err(|error| match error {
        Error::BadRecord { .. } => exit::hint(
            error.to_string(),
            "fix the record, or leave bad ones out with `--skip-bad-records`",
        ),
        error => error.into(),
    })
}

/// The folder of a run's image embeddings.
pub(crate) fn image_cache(output: &Path) -> PathBuf {
    output.join("image_cache")
}
