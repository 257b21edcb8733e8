//! Masks: which pixels of an image are inside the region that a question asks for.

use std::io::Cursor;
use std::ops::Range;

use image::{DynamicImage, ImageReader};
use serde_json::{Value, json};

use crate::pointing::pixel::Pixel;

/// More pixels in a column of a question are no mask: a short text could ask for any amount of memory.
const MAX_PIXELS: usize = 1 << 28;

/// An image of one byte a pixel: the first channel of a mask's file.
///
/// A palette becomes colours first, one bit 0 or 255; Python harnesses take the palette's index there, and 0 or 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mask {
    width: usize,
    height: usize,
    values: Vec<u8>,
}

/// Which values of a mask are inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Inside {
    /// Those whose share of 255 rounds to 1: 128 and more.
    Rounded,
    /// All above 0.
    Positive,
}

impl Inside {
    fn holds(self, value: u8) -> bool {
        match self {
            Self::Rounded => value >= 128,
            Self::Positive => value > 0,
        }
    }
}

impl Mask {
    /// A mask of `width` x `height` values, row by row. `None` if it is empty or their number differs.
    pub(crate) fn new(width: usize, height: usize, values: Vec<u8>) -> Option<Self> {
        let count = width.checked_mul(height)?;
        (count > 0 && values.len() == count).then_some(Self { width, height, values })
    }

    /// The mask in an encoded image.
    ///
    /// # Errors
    /// What is wrong with the image.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, String> {
        let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format();
        let image = reader.map_err(|error| error.to_string())?.decode();
        let image = image.map_err(|error| error.to_string())?;
        let (width, height) = (image.width() as usize, image.height() as usize);
        let values = match image {
            DynamicImage::ImageLuma8(pixels) => pixels.into_raw(),
            DynamicImage::ImageLumaA8(pixels) => pixels.pixels().map(|pixel| pixel.0[0]).collect(),
            DynamicImage::ImageRgb8(pixels) => pixels.pixels().map(|pixel| pixel.0[0]).collect(),
            DynamicImage::ImageRgba8(pixels) => pixels.pixels().map(|pixel| pixel.0[0]).collect(),
            _ => return Err("has more than 8 bits in a channel".to_owned()),
        };
        Self::new(width, height, values).ok_or_else(|| "is empty".to_owned())
    }

    /// As a column of a question: `width`, `height`, and `runs` of a value and its count, row by row.
    pub(crate) fn to_json(&self) -> Value {
        let runs: Vec<Value> =
            self.values.chunk_by(|a, b| a == b).map(|run| json!([run[0], run.len()])).collect();
        json!({"width": self.width, "height": self.height, "runs": runs})
    }

    /// The mask that [`Self::to_json`] wrote; `None` if it is none.
    pub(crate) fn from_json(value: &Value) -> Option<Self> {
        let number = |value: &Value| usize::try_from(value.as_u64()?).ok();
        let (width, height) = (number(value.get("width")?)?, number(value.get("height")?)?);
        let size = width.checked_mul(height).filter(|size| *size <= MAX_PIXELS)?;
        let mut values = Vec::new();
        for run in value.get("runs")?.as_array()? {
            let (byte, count) = (number(run.get(0)?)?, number(run.get(1)?)?);
            if count > size - values.len() {
                return None;
            }
            values.extend(std::iter::repeat_n(u8::try_from(byte).ok()?, count));
        }
        Self::new(width, height, values)
    }

    /// Pixels in a row.
    pub(crate) fn width(&self) -> usize {
        self.width
    }

    /// Pixels in a column.
    pub(crate) fn height(&self) -> usize {
        self.height
    }

    /// Whether a pixel is inside; one beyond the mask is not.
    pub(crate) fn contains(&self, pixel: Pixel, inside: Inside) -> bool {
        let (Ok(x), Ok(y)) = (usize::try_from(pixel.x), usize::try_from(pixel.y)) else {
            return false;
        };
        x < self.width && y < self.height && inside.holds(self.values[y * self.width + x])
    }

    /// The share of the points that are inside; 0 if there are none.
    pub(crate) fn share(&self, points: &[Pixel], inside: Inside) -> f64 {
        if points.is_empty() {
            return 0.0;
        }
        let count = points.iter().filter(|point| self.contains(**point, inside)).count();
        count as f64 / points.len() as f64
    }

    /// Whether any of the points is inside.
    pub(crate) fn any(&self, points: &[Pixel], inside: Inside) -> bool {
        points.iter().any(|point| self.contains(*point, inside))
    }
}

/// Counts of a mask's pixels inside, summed from its first row and column, so that any rectangle is counted at once.
#[derive(Debug)]
pub(crate) struct SummedArea {
    width: usize,
    height: usize,
    sums: Vec<u64>,
}

impl SummedArea {
    /// The sums of a mask.
    pub(crate) fn new(mask: &Mask, inside: Inside) -> Self {
        let columns = mask.width + 1;
        let mut sums = vec![0; columns * (mask.height + 1)];
        for (y, row) in mask.values.chunks(mask.width).enumerate() {
            let mut in_row = 0;
            for (x, value) in row.iter().enumerate() {
                in_row += u64::from(inside.holds(*value));
                sums[(y + 1) * columns + x + 1] = sums[y * columns + x + 1] + in_row;
            }
        }
        Self { width: mask.width, height: mask.height, sums }
    }

    /// How many pixels of a rectangle are inside, each moved into the image before: what lies beyond an edge counts on it.
    pub(crate) fn count_clipped(&self, columns: Range<i64>, rows: Range<i64>) -> u128 {
        let rows = clipped(rows, self.height);
        let mut count = 0;
        for (columns, column_weight) in clipped(columns, self.width) {
            for (rows, row_weight) in &rows {
                count += self.count(&columns, rows) * column_weight * row_weight;
            }
        }
        count
    }

    fn count(&self, columns: &Range<usize>, rows: &Range<usize>) -> u128 {
        let sum = |x: usize, y: usize| u128::from(self.sums[y * (self.width + 1) + x]);
        sum(columns.end, rows.end) + sum(columns.start, rows.start)
            - sum(columns.start, rows.end)
            - sum(columns.end, rows.start)
    }
}

/// A range of places clipped into `0..size`: parts of it, and how many places fall on each place of a part.
fn clipped(range: Range<i64>, size: usize) -> [(Range<usize>, u128); 3] {
    let end = i64::try_from(size).unwrap_or(i64::MAX);
    let (start, stop) = (range.start.clamp(0, end), range.end.clamp(0, end));
    let length = |from: i64, to: i64| u128::from(to.saturating_sub(from).max(0).unsigned_abs());
    let before = length(range.start, range.end.min(0));
    let after = length(range.start.max(end), range.end);
    [(0..1, before), (start as usize..stop.max(start) as usize, 1), (size - 1..size, after)]
}

#[cfg(test)]
mod tests;
