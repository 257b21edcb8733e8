//! What a file may cost and reach.

use std::time::Duration;

use super::Video;

/// Containers that are read: those that hold frames themselves. Playlists, scripts, patterns of
/// pictures and whatever else makes FFmpeg open other files are none of them.
pub(super) const FORMATS: &str = "mov,matroska,avi,mpegts,mpeg,mpegvideo,h264,hevc,m4v,av1,obu,ivf,\
    flv,asf,ogg,gif,mjpeg,mxf,nut,rm,wtv,dv,yuv4mpegpipe,mp3,wav,flac,aac";

/// Pixels of a frame or a picture at most: 8192 × 8192.
pub const MOST_PIXELS: u64 = 1 << 26;

/// Bytes that FFmpeg may take at once: eight planes of the largest frame.
pub(super) const MOST_BYTES_AT_ONCE: u64 = 8 * MOST_PIXELS;

/// Bytes that an FFmpeg process may hold, with all its threads' frames.
pub(super) const MOST_BYTES: u64 = 6 << 30;

/// How long `ffprobe` may look at a file.
pub(super) const PROBE_TIME: Duration = Duration::from_secs(60);

/// How long a video may be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum TimeLimit {
    /// A minute, and four times as long as the video lasts; at most a day.
    #[default]
    ByLength,
    /// So long.
    At(Duration),
}

impl TimeLimit {
    pub(super) fn of(self, video: &Video) -> Duration {
        const DAY_S: f64 = 86_400.0;
        match self {
            Self::At(limit) => limit,
            Self::ByLength => {
                let length_s = video.promised.map(|frames| video.time_s(frames));
                // Without a length the file's size tells: few videos have less than 10 kB a second.
                let length_s = length_s.unwrap_or(video.bytes as f64 / 1e4);
                Duration::from_secs_f64((60.0 + 4.0 * length_s).min(DAY_S))
            }
        }
    }
}
