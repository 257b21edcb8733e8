//! LeRobot data sets: demonstrations of robots as parquet tables, videos and metadata.
//!
//! Reads and writes versions 2.1 and 3.0 in a local folder. What the numbers mean for a robot is not known here.
//!
//! - [`Dataset`]: a data set that exists. Opening it reads and checks the metadata; columns and frames are read on
//!   demand.
//! - [`Writer`]: a new data set, one episode after the other.
//! - [`Info`]: `meta/info.json`, from which [`Info::needed_files`] says what to download.

mod dataset;
mod episode;
mod error;
mod info;
mod writer;

pub use dataset::{Dataset, FrameId};
pub use episode::{Column, Episode, EpisodeInfo};
pub use error::{Error, Result};
pub use info::{Feature, Info, Version};
pub use writer::{Camera, VectorFeature, VideoCodec, Writer, WriterOptions};
