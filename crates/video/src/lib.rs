//! Video decoding, by FFmpeg as a child process.
//!
//! A corrupt or hostile file can crash only the child process. The child opens no other file, and has
//! limits on time, memory and pixels. FFmpeg's `select` filter picks the requested frames, so that only
//! those are converted and scaled. If the index of an MP4 or Matroska file shows which samples the
//! requested frames depend on, FFmpeg gets a remuxed excerpt of the file without the others. Frames are
//! counted from 0 as the decoder outputs them, since container metadata is often off by some frames.
//!
//! ```no_run
//! use embodied_r_video as video;
//!
//! let video = video::probe("walk.mp4".as_ref())?;
//! let (indices, limits) = ([0, video.frames_per_second()], video::Limits::default());
//! let first_two = video::frames("walk.mp4".as_ref(), &indices, Some(640), &limits)?;
//! # Ok::<(), embodied_r_video::Error>(())
//! ```

mod decoder;
mod error;
mod excerpt_decoder;
mod ffmpeg;
mod frames;
mod index;
mod installation;
mod limits;
mod probe;
mod process;
mod sampling;
mod timestamps;

pub use error::{Error, Result};
pub use frames::{BATCH_BYTES, fit_within, for_each_frame, frames, map_frames};
pub use installation::ffmpeg_output;
pub use limits::{Limits, MAX_PIXELS, TimeLimit};
pub use probe::{Rational, Video, probe, probe_within};
pub use sampling::{count_frames, sample, sample_excerpt};
pub use timestamps::Timestamps;

#[cfg(any(test, feature = "clips"))]
pub mod clips;
