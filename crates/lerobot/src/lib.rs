//! LeRobot data sets: demonstrations of robots as parquet tables, videos and metadata.
//!
//! Reads and writes versions 2.1 and 3.0 in a local folder. What the numbers mean for a robot is not known here.
//!
//! - [`Dataset`]: a data set that exists. Opening it reads and checks the metadata; columns and frames are read on
//!   demand.
//! - [`Writer`]: a new data set, one episode after the other.
//! - [`Info`]: `meta/info.json`, from which [`Info::needed_files`] says what to download.
//!
//! ```no_run
//! use embodied_r_lerobot::{Dataset, Error, FrameId};
//!
//! let dataset = Dataset::open("demos".as_ref())?;
//! dataset.read_episodes(&["observation.state"], |episode| {
//!     let state = &episode.columns["observation.state"];
//!     println!("{}: {:?} ends at {:?}", episode.index, episode.tasks, state.row(state.frames() - 1));
//!     Ok::<_, Error>(())
//! })?;
//! let first = dataset.frames(dataset.cameras()[0], 0, &[0])?;
//! # Ok::<(), Error>(())
//! ```

mod dataset;
mod episode;
mod error;
mod foreign;
mod frames;
mod info;
mod json;
mod metadata;
mod root;
mod rows;
mod template;
mod version;
mod writer;

pub use dataset::Dataset;
pub use episode::{Column, Episode, EpisodeInfo, TaskSpan};
pub use error::{Error, Result};
pub use frames::FrameId;
pub use info::{Feature, Info};
pub use version::Version;
pub use writer::{Camera, VectorFeature, VideoCodec, Writer, WriterOptions};
