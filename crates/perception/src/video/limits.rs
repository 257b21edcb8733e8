//! Resource limits for untrusted files.

use std::time::Duration;

use super::Video;

/// Allowed demuxers: containers that hold frames themselves. Playlists, scripts, image sequences and
/// other formats that make FFmpeg open further files are excluded.
pub(super) const FORMATS: &str = "mov,matroska,avi,mpegts,mpeg,mpegvideo,h264,hevc,m4v,av1,obu,ivf,\
    flv,asf,ogg,gif,mjpeg,mxf,nut,rm,wtv,dv,yuv4mpegpipe,mp3,wav,flac,aac";

/// Maximum pixels of a frame or an image: 8192 × 8192.
pub const MAX_PIXELS: u64 = 1 << 26;

/// FFmpeg's maximum single allocation: eight planes of the largest frame.
pub(super) const MAX_ALLOC_BYTES: u64 = 8 * MAX_PIXELS;

/// Memory limit of an FFmpeg process, with the frames of all its threads.
pub(super) const MAX_MEMORY_BYTES: u64 = 6 << 30;

/// Time limit of `ffprobe`.
pub(super) const PROBE_TIME: Duration = Duration::from_secs(60);

/// Time limit for decoding a video.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum TimeLimit {
    /// One minute plus four times the video's duration; at most a day.
    #[default]
    ByLength,
    /// A fixed limit.
    At(Duration),
}

impl TimeLimit {
    pub(super) fn for_video(self, video: &Video) -> Duration {
        const DAY_S: f64 = 86_400.0;
        match self {
            Self::At(limit) => limit,
            Self::ByLength => {
                let duration_s = video.expected_frames.map(|frames| video.time_s(frames));
                // Without a duration the file size bounds it: few videos have less than 10 kB per second.
                let duration_s = duration_s.unwrap_or(video.bytes as f64 / 1e4);
                Duration::from_secs_f64((60.0 + 4.0 * duration_s).min(DAY_S))
            }
        }
    }
}
