//! Resource limits for untrusted files.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use crate::process::Deadline;

/// Allowed demuxers: containers that hold frames themselves. Playlists, scripts, image sequences and
/// other formats that make FFmpeg open further files are excluded.
pub(crate) const FORMATS: &str = "mov,matroska,avi,mpegts,mpeg,mpegvideo,h264,hevc,m4v,av1,obu,ivf,\
    flv,asf,ogg,gif,mjpeg,mxf,nut,rm,wtv,dv,yuv4mpegpipe,mp3,wav,flac,aac";

/// Maximum pixels of a frame or an image: 8192 × 8192.
pub const MAX_PIXELS: u64 = 1 << 26;

/// FFmpeg's maximum single allocation: eight planes of the largest frame.
pub(crate) const MAX_ALLOC_BYTES: u64 = 8 * MAX_PIXELS;

/// Memory limit of an FFmpeg process, with the frames of all its threads.
pub(crate) const MAX_MEMORY_BYTES: u64 = 6 << 30;

/// Time limit of `ffprobe`.
const PROBE_TIME: Duration = Duration::from_secs(60);

/// Time limit for decoding a video.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum TimeLimit {
    /// One minute plus four times the video's duration, at most a day, for each pass over the video; one
    /// minute for its metadata.
    #[default]
    ByLength,
    /// A fixed limit for all of a video's passes together, its metadata included.
    At(Duration),
}

/// What ends the decoding of a video early.
#[derive(Debug, Clone, Default)]
pub struct Limits {
    time: TimeLimit,
    /// The end of a fixed limit, once the video's first pass has started.
    end: Option<Instant>,
    stop: Arc<AtomicBool>,
}

impl Limits {
    /// A time limit.
    pub fn new(time: TimeLimit) -> Self {
        Self { time, end: None, stop: Arc::default() }
    }

    /// Also ends once `stop` is true, with [`Error::DecodeInterrupted`](crate::Error::DecodeInterrupted).
    #[must_use]
    pub fn with_stop(mut self, stop: &Arc<AtomicBool>) -> Self {
        self.stop = Arc::clone(stop);
        self
    }

    /// The limits of one video, whose fixed time limit starts now, unless it has started.
    #[must_use]
    pub fn started(&self) -> Self {
        let end = match self.time {
            TimeLimit::ByLength => None,
            TimeLimit::At(limit) => self.end.or_else(|| Instant::now().checked_add(limit)),
        };
        Self { end, ..self.clone() }
    }

    /// The deadline of `ffprobe`, which starts now.
    pub(crate) fn for_metadata(&self) -> Deadline {
        let (at, end) = (Instant::now() + PROBE_TIME, self.started().end);
        Deadline { at: end.map_or(at, |end| end.min(at)), stop: Arc::clone(&self.stop) }
    }

    /// The deadline of a pass over a video of `length_s` seconds, which starts now.
    pub(crate) fn for_pass(&self, length_s: f64) -> Deadline {
        let at = || Instant::now() + self.time.for_pass(length_s);
        Deadline { at: self.started().end.unwrap_or_else(at), stop: Arc::clone(&self.stop) }
    }
}

impl TimeLimit {
    fn for_pass(self, length_s: f64) -> Duration {
        const DAY_S: f64 = 86_400.0;
        match self {
            // Without an end, the limit overflows `Instant`.
            Self::At(_) => Duration::from_secs_f64(DAY_S),
            Self::ByLength => Duration::from_secs_f64((60.0 + 4.0 * length_s).min(DAY_S)),
        }
    }
}
