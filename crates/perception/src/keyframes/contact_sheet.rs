//! An image of all sampled frames, with the key frames outlined.

use std::path::Path;

use image::imageops::replace;
use image::{Rgb, RgbImage};

use super::Selection;
use super::bitmap_font::{self, write};
use super::selector::{Decision, SampledFrame};
use crate::error::Result;
use crate::video::{self, Limits};

/// Width of the sheet, in frames.
const COLUMNS: u32 = 6;
/// The longer side of a frame on the sheet, in pixels.
const SIDE: u32 = 200;
/// Pixels around a frame.
const MARGIN: u32 = 6;
/// Pixels below a frame, for its label.
const LABEL: u32 = 2 * bitmap_font::HEIGHT + 8;
/// Pixels above a video's frames, for its name.
const TITLE: u32 = bitmap_font::HEIGHT + 12;
/// Above this number of sampled frames only the key frames are drawn.
const MAX_FRAMES: usize = 300;

const BACKGROUND: Rgb<u8> = Rgb([24, 24, 27]);
const TEXT: Rgb<u8> = Rgb([228, 228, 231]);
const KEPT: Rgb<u8> = Rgb([74, 222, 128]);
const DROPPED: Rgb<u8> = Rgb([82, 82, 91]);
const DROPPED_TEXT: Rgb<u8> = Rgb([161, 161, 170]);

/// Draws the sampled frames of the video at `path` in order, each with its index, timestamp, overlap and
/// decision, within `limits`. For very long videos only the key frames are drawn.
///
/// # Errors
/// Those of [`video::frames`].
pub fn draw(path: &Path, selection: &Selection, limits: &Limits) -> Result<RgbImage> {
    let all = selection.sampled.len() <= MAX_FRAMES;
    let shown: Vec<&SampledFrame> =
        selection.sampled.iter().filter(|frame| all || frame.kept).collect();
    let indices: Vec<usize> = shown.iter().map(|frame| frame.index).collect();
    let images = video::frames(path, &indices, Some(SIDE), limits)?;
    let (width, height) = images.first().map_or((SIDE, SIDE), RgbImage::dimensions);
    let (cell_width, cell_height) = (SIDE + 2 * MARGIN, height + LABEL + 2 * MARGIN);
    let rows = (shown.len() as u32).div_ceil(COLUMNS);
    let mut sheet =
        RgbImage::from_pixel(COLUMNS * cell_width, TITLE + rows * cell_height, BACKGROUND);
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    let title = format!(
        "{name}: {} frames, {} sampled, {} key frames",
        selection.frames,
        selection.sampled.len(),
        selection.keyframes.len()
    );
    write(&mut sheet, (MARGIN, MARGIN), &title, TEXT);
    for (position, (frame, image)) in (0..).zip(shown.iter().zip(&images)) {
        let x = position % COLUMNS * cell_width + MARGIN + (SIDE - width) / 2;
        let y = TITLE + position / COLUMNS * cell_height + MARGIN;
        let (color, text) = if frame.kept { (KEPT, KEPT) } else { (DROPPED, DROPPED_TEXT) };
        outline(&mut sheet, (x, y), (width, height), color);
        replace(&mut sheet, image, i64::from(x), i64::from(y));
        let below = y + height + 6;
        write(&mut sheet, (x, below), &label(frame), TEXT);
        let decision = short(frame.decision);
        write(&mut sheet, (x, below + bitmap_font::HEIGHT + 3), decision, text);
    }
    Ok(sheet)
}

/// Stacks several sheets vertically.
#[must_use]
pub fn stack(sheets: &[RgbImage]) -> RgbImage {
    let width = sheets.iter().map(RgbImage::width).max().unwrap_or(1);
    let height = sheets.iter().map(RgbImage::height).sum::<u32>().max(1);
    let mut all = RgbImage::from_pixel(width, height, BACKGROUND);
    let mut top = 0;
    for sheet in sheets {
        replace(&mut all, sheet, 0, top);
        top += i64::from(sheet.height());
    }
    all
}

fn label(frame: &SampledFrame) -> String {
    let overlap = frame.overlap.map(|share| format!(" {:.0}%", 100.0 * share));
    format!("#{} {:.1}s{}", frame.index, frame.time_s, overlap.unwrap_or_default())
}

fn short(decision: Decision) -> &'static str {
    match decision {
        Decision::First => "kept: first",
        Decision::Last => "kept: last",
        Decision::LowOverlap => "kept: low overlap",
        Decision::FewMatches => "kept: few matches",
        Decision::NoHomography => "kept: no homography",
        Decision::FilledUp => "kept: evenly spaced",
        Decision::Redundant => "redundant",
        Decision::Replaced => "replaced",
        Decision::Subsampled => "subsampled",
    }
}

/// An outline, three pixels wide, around the area at `(x, y)`.
fn outline(sheet: &mut RgbImage, (x, y): (u32, u32), (width, height): (u32, u32), color: Rgb<u8>) {
    for row in y - 3..y + height + 3 {
        for column in x - 3..x + width + 3 {
            sheet.put_pixel(column, row, color);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{KeyFrameOptions, select};
    use super::*;
    use embodied_r_video::clips;

    #[test]
    fn key_frames_are_outlined_and_the_others_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = clips::still(folder.path(), "still.mp4", 75);
        let selection = select(&path, &KeyFrameOptions::default()).unwrap();
        let sheet = draw(&path, &selection, &Limits::default()).unwrap();
        let (cell_width, cell_height) = (SIDE + 2 * MARGIN, 150 + LABEL + 2 * MARGIN);
        assert_eq!(sheet.dimensions(), (6 * cell_width, TITLE + 2 * cell_height));
        for (position, frame) in (0..).zip(&selection.sampled) {
            let x = position % COLUMNS * cell_width + MARGIN - 2;
            let y = TITLE + position / COLUMNS * cell_height + MARGIN - 2;
            let color = if frame.kept { KEPT } else { DROPPED };
            assert_eq!(*sheet.get_pixel(x, y), color, "frame {}", frame.index);
        }
    }

    #[test]
    fn sheets_are_stacked_as_wide_as_the_widest() {
        let sheets = [RgbImage::new(3, 5), RgbImage::new(7, 2)];
        assert_eq!(stack(&sheets).dimensions(), (7, 7));
    }
}
