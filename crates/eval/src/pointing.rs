//! Answers that point into an image, and regions of images.

pub(crate) mod mask;
pub(crate) mod pixel;
pub(crate) mod points;
pub(crate) mod polygon;
