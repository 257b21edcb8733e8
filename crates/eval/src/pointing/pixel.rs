//! Places in an image.

/// A column and a row, which may lie beyond the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pixel {
    /// The column.
    pub(crate) x: i64,
    /// The row.
    pub(crate) y: i64,
}

impl Pixel {
    /// The pixel of a point whose coordinates are cut towards zero. What is no number lies beyond every image.
    pub(crate) fn truncated(x: f64, y: f64) -> Self {
        Self { x: index(x), y: index(y) }
    }
}

/// A number cut towards zero.
pub(crate) fn index(value: f64) -> i64 {
    if value.is_nan() { i64::MIN } else { value as i64 }
}
