//! An image of all sampled frames, with the key frames outlined.

use std::path::Path;

use embodied_r_video::{self as video, Limits};
use image::imageops::{FilterType, replace, resize};
use image::{Rgb, RgbImage};

use super::Selection;
use super::bitmap_font::{self, write};
use super::selector::{Decision, SampledFrame};
use crate::error::Result;

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
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    let title = format!(
        "{name}: {} frames, {} sampled, {} key frames",
        selection.frames,
        selection.sampled.len(),
        selection.keyframes.len()
    );
    let cells = shown.iter().zip(&images).map(|(frame, image)| Cell {
        image,
        label: label(frame),
        note: short(frame.decision),
        is_outlined: frame.kept,
    });
    Ok(sheet(&title, &cells.collect::<Vec<_>>()))
}

/// A frame on a contact sheet.
#[derive(Debug)]
pub struct Cell<'a> {
    /// The frame; a larger one is shrunk. All of a sheet have the same size.
    pub image: &'a RgbImage,
    /// The first line below it.
    pub label: String,
    /// The second line.
    pub note: &'a str,
    /// Whether its outline and its second line are highlighted.
    pub is_outlined: bool,
}

/// Draws frames in order below a title, six per row. Text is in ASCII; other characters are blank.
#[must_use]
pub fn sheet(title: &str, cells: &[Cell<'_>]) -> RgbImage {
    let (width, height) = cells.first().map_or((SIDE, SIDE), |cell| shrunk(cell.image));
    let (cell_width, cell_height) = (SIDE + 2 * MARGIN, height + LABEL + 2 * MARGIN);
    let rows = (cells.len() as u32).div_ceil(COLUMNS);
    let mut sheet =
        RgbImage::from_pixel(COLUMNS * cell_width, TITLE + rows * cell_height, BACKGROUND);
    write(&mut sheet, (MARGIN, MARGIN), title, TEXT);
    for (position, cell) in (0..).zip(cells) {
        let x = position % COLUMNS * cell_width + MARGIN + (SIDE - width) / 2;
        let y = TITLE + position / COLUMNS * cell_height + MARGIN;
        let (color, text) = if cell.is_outlined { (KEPT, KEPT) } else { (DROPPED, DROPPED_TEXT) };
        outline(&mut sheet, (x, y), (width, height), color);
        match cell.image.dimensions() == (width, height) {
            true => replace(&mut sheet, cell.image, i64::from(x), i64::from(y)),
            false => {
                let small = resize(cell.image, width, height, FilterType::Triangle);
                replace(&mut sheet, &small, i64::from(x), i64::from(y));
            }
        }
        let below = y + height + 6;
        write(&mut sheet, (x, below), &cell.label, TEXT);
        write(&mut sheet, (x, below + bitmap_font::HEIGHT + 3), cell.note, text);
    }
    sheet
}

/// The size of a frame on a sheet.
fn shrunk(image: &RgbImage) -> (u32, u32) {
    let (width, height) = image.dimensions();
    let longer = width.max(height).max(1);
    let scaled = |side: u32| (side * SIDE / longer).max(1);
    if longer <= SIDE { (width, height) } else { (scaled(width), scaled(height)) }
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
    fn large_frames_are_shrunk() {
        let image = RgbImage::from_pixel(400, 200, Rgb([9, 9, 9]));
        let cell = Cell { image: &image, label: "#1".to_owned(), note: "stop", is_outlined: true };
        let drawn = sheet("episode 0", &[cell]);
        assert_eq!(drawn.height(), TITLE + SIDE / 2 + LABEL + 2 * MARGIN);
        assert_eq!(*drawn.get_pixel(MARGIN + SIDE / 2, TITLE + MARGIN + SIDE / 4), Rgb([9, 9, 9]));
        assert_eq!(*drawn.get_pixel(MARGIN - 2, TITLE + MARGIN), KEPT);
    }

    #[test]
    fn sheets_are_stacked_as_wide_as_the_widest() {
        let sheets = [RgbImage::new(3, 5), RgbImage::new(7, 2)];
        assert_eq!(stack(&sheets).dimensions(), (7, 7));
    }
}
