//! Answers that point into an image: points, boxes and traces.
//!
//! Everything is compared on a grid of 0 to 1000 over the image's width and height, whatever [`Grid`] a record has.

pub(crate) mod geometry;
pub(crate) mod grid;
pub(crate) mod notation;
pub(crate) mod parameters;
pub(crate) mod target;

pub use geometry::{Place, Rectangle};
pub use grid::Grid;
pub use parameters::{Linear, PointReward, PointingRewards, Trace3dReward, TraceReward};
