//! Frames of a video, read through FFmpeg as a child process.
//!
//! A broken or hostile file can end the child, never the run. FFmpeg is told which frames are
//! wanted, so that it decodes all of them, as it must, but converts, scales and hands over only
//! those. Frames are counted as the decoder gives them out, from 0: containers often promise some
//! more or some less.
//!
//! ```no_run
//! use embodied_r_perception::video;
//!
//! let video = video::probe("walk.mp4".as_ref())?;
//! let first_two = video::frames("walk.mp4".as_ref(), &[0, video.frames_per_second()], Some(640))?;
//! # Ok::<(), embodied_r_perception::Error>(())
//! ```

mod decoder;
mod pictures;
mod probe;
mod sampling;

pub use pictures::{fit_within, frames};
pub use probe::{Rational, Video, probe};
pub use sampling::sample;

#[cfg(test)]
pub(crate) mod clips;
