//! Frames of a video, read through FFmpeg as a child process.
//!
//! A broken or hostile file can end the child, never the run, and not even the child for long: it
//! opens the one file and nothing else, and it has limits of time, memory and pixels. FFmpeg is told
//! which frames are wanted, so that it converts, scales and hands over only those; where an MP4 or
//! Matroska file tells which frames need not even be decoded to see them, it gets an excerpt of the
//! file without the others. Frames are counted as the decoder gives them out, from 0: containers often
//! promise some more or some less.
//!
//! ```no_run
//! use embodied_r_perception::video;
//!
//! let video = video::probe("walk.mp4".as_ref())?;
//! let first_two = video::frames("walk.mp4".as_ref(), &[0, video.frames_per_second()], Some(640))?;
//! # Ok::<(), embodied_r_perception::Error>(())
//! ```

mod decoder;
mod index;
mod limits;
mod pictures;
mod probe;
mod process;
mod reading;
mod sampling;

pub use limits::{MOST_PIXELS, TimeLimit};
pub use pictures::{fit_within, frames};
pub use probe::{Rational, Video, probe};
pub use sampling::{sample, sample_excerpt};

#[cfg(test)]
pub(crate) mod clips;
