//! `embodied-r keyframes`.

mod print;
mod videos;

use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::time::Duration;

use embodied_r_data::Progress;
use embodied_r_files::write_atomic;
use embodied_r_keyframes::compare::{FrameFeatures, compare};
use embodied_r_keyframes::{Error, KeyFrameOptions, Selection, contact_sheet, select_within};
use embodied_r_video::{self as video, Limits, TimeLimit};
use embodied_r_vision::image_file;
use image::{ImageFormat, RgbImage, imageops};

use crate::args::keyframes::KeyframesArgs;
use crate::exit::{Status, Usage};
use crate::progress::Bar;

/// Select the key frames of videos and explain the selection.
pub(crate) fn run(args: KeyframesArgs) -> anyhow::Result<Status> {
    if let Some([a, b]) = args.pair.as_deref() {
        let comparison = compare(&features(a)?, &features(b)?);
        match args.json {
            true => print::pair_json(&comparison)?,
            false => print::pair(a, b, &comparison)?,
        }
        return Ok(Status::Done);
    }
    let options = KeyFrameOptions {
        threshold: args.threshold,
        min_frames: args.min_frames,
        max_frames: args.max_frames,
        time_limit: args
            .time_limit
            .map_or(TimeLimit::ByLength, |seconds| TimeLimit::At(Duration::from_secs(seconds))),
    };
    options.check().map_err(|fault| Usage(fault.to_string()))?;
    let sheet = args.contact_sheet.as_deref();
    if let Some(path) = sheet
        && !path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("png"))
    {
        let path = path.display();
        anyhow::bail!(Usage(format!("`{path}` must be a PNG file: use the extension `.png`")));
    }
    let videos = videos::found(&args.videos)?;
    let bar = Bar::default();
    if videos.len() > 1 {
        bar.start("key frames", Some(videos.len() as u64));
    }
    let mut sheets = Vec::new();
    let mut status = Status::Done;
    let select = |path: &PathBuf| select_key_frames(path, &options, sheet.is_some());
    videos::for_each(&videos, select, |path, result| {
        bar.message(&path.display().to_string());
        match result {
            Ok((selection, drawn)) => {
                sheets.extend(drawn);
                match args.json {
                    true => print::selection_json(path, &selection)?,
                    false => print::selection(path, &selection, &options)?,
                }
            }
            // Without FFmpeg, all videos would fail.
            Err(error @ Error::Video(video::Error::FfmpegMissing { .. })) => {
                return Err(error.into());
            }
            Err(error) => {
                status = Status::Partial;
                match args.json {
                    true => print::error_json(path, &error)?,
                    false => print::error(&error),
                }
            }
        }
        bar.advance(1);
        Ok(())
    })?;
    bar.finish();
    if let Some(path) = sheet
        && !sheets.is_empty()
    {
        write_sheet(path, &sheets)?;
    }
    Ok(status)
}

/// The features of an image file.
fn features(path: &Path) -> Result<FrameFeatures, embodied_r_vision::Error> {
    Ok(FrameFeatures::extract(&imageops::grayscale(&image_file::read(path)?)))
}

/// Selects the key frames of a video, and draws their contact sheet if requested.
fn select_key_frames(
    path: &Path,
    options: &KeyFrameOptions,
    with_sheet: bool,
) -> Result<(Selection, Option<RgbImage>), Error> {
    // One time limit for both passes.
    let limits = Limits::new(options.time_limit).started();
    let selection = select_within(path, options, &limits)?;
    let sheet = with_sheet.then(|| contact_sheet::draw(path, &selection, &limits)).transpose()?;
    Ok((selection, sheet))
}

fn write_sheet(path: &Path, sheets: &[RgbImage]) -> anyhow::Result<()> {
    let mut png = Cursor::new(Vec::new());
    contact_sheet::stack(sheets).write_to(&mut png, ImageFormat::Png)?;
    write_atomic(path, png.get_ref())?;
    Ok(())
}
