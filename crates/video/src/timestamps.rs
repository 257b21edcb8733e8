//! Timestamps of frames, for videos of a variable frame rate.
//!
//! A file with an index ([`super::index`]) has a constant rate, so index and rate give the time of a frame.
//! For all others `ffprobe` lists the timestamps of the packets. Sorted, they are those of the frames.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Stdio};

use crate::Video;
use crate::error::{Error, Result};
use crate::ffmpeg::input_name;
use crate::limits::{FORMATS, Limits, MAX_ALLOC_BYTES};
use crate::process::Process;

/// Packets of a video: 24 hours at 60 fps.
const MAX_PACKETS: usize = 24 * 3600 * 60;

/// Bytes of a line about a packet: a timestamp and flags.
const MAX_LINE_BYTES: u64 = 1000;

/// Packets without a frame (or frames without one), absolute and as a share of the frames, up to which the
/// timestamps are used: a decoder drops frames at the start of a file that was cut.
const MAX_UNMATCHED: (usize, usize) = (8, 20);

/// Containers round timestamps: Matroska to milliseconds.
const ROUNDING_S: f64 = 0.002;

/// The timestamps of the frames of a video.
#[derive(Debug, Clone)]
pub struct Timestamps {
    /// In seconds from the first frame, ascending; empty if the frame rate is constant.
    times_s: Vec<f64>,
    fps: f64,
}

impl Timestamps {
    /// The timestamps of the `frames` frames of `video`.
    ///
    /// Where a file has none, or not as many as frames, its frame rate gives them.
    ///
    /// # Errors
    /// [`Error::DecodeTimeout`] and [`Error::DecodeInterrupted`] by `limits`, [`Error::FfmpegMissing`] and
    /// [`Error::FfmpegRun`] about `ffprobe`.
    pub fn of(video: &Video, frames: usize, limits: &Limits) -> Result<Self> {
        let fps = video.fps.as_f64();
        if video.index.is_some() {
            return Ok(Self { times_s: Vec::new(), fps });
        }
        let packets = packets(video, limits)?;
        let times_s = packets.and_then(from_first).filter(|times| fits(times.len(), frames));
        if times_s.is_none() {
            tracing::debug!("`{}` has no usable timestamps", video.path.display());
        }
        // A constant rate gives exact times, as for a file with an index.
        let times_s = times_s.filter(|times| !is_constant(times, fps));
        Ok(Self { times_s: times_s.unwrap_or_default(), fps })
    }

    /// The timestamps of the frames of `video` and their number, as the file states them; `None` if it does not.
    ///
    /// # Errors
    /// As [`Self::of`].
    pub fn stated(video: &Video, limits: &Limits) -> Result<Option<(Self, usize)>> {
        let fps = video.fps.as_f64();
        if let Some(index) = &video.index {
            return Ok(Some((Self { times_s: Vec::new(), fps }, index.frames())));
        }
        let times_s = packets(video, limits)?.and_then(from_first);
        Ok(times_s.map(|times_s| {
            let frames = times_s.len();
            (Self { times_s, fps }, frames)
        }))
    }

    /// The frame, of the first `frames`, whose timestamp is nearest to `time_s`; the earlier one of two.
    #[must_use]
    pub fn nearest(&self, time_s: f64, frames: usize) -> usize {
        let last = frames.saturating_sub(1);
        let at = match self.times_s.is_empty() {
            // A negative time is before the first frame; the cast saturates.
            true => (time_s * self.fps) as usize,
            false => self.times_s.partition_point(|time| *time <= time_s).saturating_sub(1),
        };
        let (before, after) = (at.min(last), (at + 1).min(last));
        let distance = |index| (self.time_s(index) - time_s).abs();
        if distance(after) < distance(before) { after } else { before }
    }

    /// The average rate of a video of `frames` frames; the exact one if it is constant.
    #[must_use]
    pub fn average_fps(&self, frames: usize) -> f64 {
        match self.times_s.is_empty() {
            true => self.fps,
            false => frames as f64 / self.time_s(frames),
        }
    }

    /// The timestamp of frame `index`, in seconds from the first one.
    #[must_use]
    pub fn time_s(&self, index: usize) -> f64 {
        match (self.times_s.get(index), self.times_s.last()) {
            (Some(time), _) => *time,
            (None, None) => index as f64 / self.fps,
            // Beyond the last timestamp the rate goes on.
            (None, Some(last)) => last + (index + 1 - self.times_s.len()) as f64 / self.fps,
        }
    }
}

/// Whether the times are those of the rate `fps`, up to rounding.
fn is_constant(times_s: &[f64], fps: f64) -> bool {
    times_s
        .iter()
        .zip(0_u32..)
        .all(|(time, index)| (time - f64::from(index) / fps).abs() < ROUNDING_S)
}

/// Whether `packets` packets can be `frames` frames.
fn fits(packets: usize, frames: usize) -> bool {
    let unmatched = packets.abs_diff(frames);
    unmatched <= MAX_UNMATCHED.0 && unmatched * MAX_UNMATCHED.1 <= frames.max(MAX_UNMATCHED.1)
}

/// The packets' timestamps in seconds, in file order; `None` if one has none or there are too many.
fn packets(video: &Video, limits: &Limits) -> Result<Option<Vec<f64>>> {
    let mut command = Command::new("ffprobe");
    command
        .args(["-v", "error", "-protocol_whitelist", "file", "-format_whitelist", FORMATS])
        .args(["-max_alloc", &MAX_ALLOC_BYTES.to_string()])
        .args(["-select_streams", &video.track.to_string()])
        .args(["-show_entries", "packet=pts_time,flags", "-of", "compact=p=0:nk=1", "-i"])
        .arg(input_name(&video.path));
    let (process, output, _) =
        Process::start("ffprobe", &mut command, Stdio::null(), limits.for_pass(video.length_s()))?;
    let mut output = BufReader::with_capacity(1 << 16, output);
    let (mut times, mut line) = (Some(Vec::new()), Vec::new());
    loop {
        line.clear();
        let read = (&mut output).take(MAX_LINE_BYTES).read_until(b'\n', &mut line);
        if read.map_err(Error::ffmpeg("ffprobe"))? == 0 {
            break;
        }
        match packet(&String::from_utf8_lossy(&line)) {
            Packet::None | Packet::Hidden => {}
            Packet::Shown(time) => {
                if let Some(times) = &mut times {
                    times.push(time);
                }
            }
            Packet::Unknown => times = None,
        }
        if times.as_ref().is_none_or(|times| times.len() > MAX_PACKETS) {
            times = None;
            break;
        }
    }
    // A process that still writes gets a broken pipe and exits.
    drop(output);
    let exit = process.finish()?.checked(&video.path)?;
    Ok(times.filter(|_| exit.success))
}

/// A line about a packet.
enum Packet {
    /// The line is about something else, such as side data.
    None,
    /// It is decoded but not shown, before the start of an edit.
    Hidden,
    /// Its timestamp in seconds.
    Shown(f64),
    /// It has no timestamp.
    Unknown,
}

fn packet(line: &str) -> Packet {
    let Some((time, flags)) = line.trim().split_once('|') else { return Packet::None };
    if flags.as_bytes().get(1) == Some(&b'D') {
        return Packet::Hidden;
    }
    match time.parse::<f64>() {
        Ok(time) if time.is_finite() => Packet::Shown(time),
        _ => Packet::Unknown,
    }
}

/// The times in order, from the first one; `None` if two are equal or there are none.
fn from_first(mut times: Vec<f64>) -> Option<Vec<f64>> {
    times.sort_by(f64::total_cmp);
    let first = *times.first()?;
    let is_strict = times.windows(2).all(|two| two[0] < two[1]);
    is_strict.then(|| times.into_iter().map(|time| time - first).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clips, probe};

    fn times(path: &std::path::Path, frames: usize) -> Vec<f64> {
        let video = probe(path).unwrap();
        let times = Timestamps::of(&video, frames, &Limits::default()).unwrap();
        (0..frames).map(|index| times.time_s(index)).collect()
    }

    #[test]
    fn a_variable_frame_rate_gives_the_frames_own_times() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.mp4", "a.mkv", "a.ts"] {
            let path = clips::slowing(folder.path(), name);
            let times = times(&path, 40);
            for (index, time) in times.iter().enumerate() {
                let expected = clips::slowing_time_s(index);
                assert!((time - expected).abs() < 0.003, "{name} {index}: {time} {expected}");
            }
        }
    }

    #[test]
    fn a_file_without_timestamps_is_timed_by_its_rate() {
        let folder = tempfile::tempdir().unwrap();
        let path = clips::changing_size(folder.path(), "a.h264", 10);
        let fps = probe(&path).unwrap().fps.as_f64();
        assert_eq!(times(&path, 20)[7], 7.0 / fps);
    }

    #[test]
    fn timestamps_of_other_packets_than_the_frames_are_not_used() {
        for (packets, frames, expected) in [
            (100, 100, true),
            (102, 100, true),
            (106, 100, false),
            (520, 500, false),
            (1, 1, true),
            (4, 2, false),
        ] {
            assert_eq!(fits(packets, frames), expected, "{packets} {frames}");
        }
    }

    #[test]
    fn rounded_times_of_a_constant_rate_are_exact() {
        assert!(is_constant(&[0.0, 0.041, 0.083, 0.125], 24.0));
        assert!(!is_constant(&[0.0, 0.041, 0.083, 0.2], 24.0));
        let folder = tempfile::tempdir().unwrap();
        let path = clips::pattern(folder.path(), "a.ts", 30);
        assert_eq!(times(&path, 30)[29], 2.9);
    }

    #[test]
    fn the_nearest_frame_is_found_at_constant_and_variable_rates() {
        let constant = Timestamps { times_s: Vec::new(), fps: 10.0 };
        let variable = Timestamps { times_s: vec![0.0, 0.1, 0.5, 2.0], fps: 10.0 };
        for (time_s, at_constant, at_variable) in [
            (-1.0, 0, 0),
            (0.0, 0, 0),
            (0.04, 0, 0),
            (0.06, 1, 1),
            (0.29, 3, 1),
            (0.31, 3, 2),
            (1.4, 3, 3),
            (9.0, 3, 3),
        ] {
            assert_eq!(constant.nearest(time_s, 4), at_constant, "{time_s}");
            assert_eq!(variable.nearest(time_s, 4), at_variable, "{time_s}");
        }
    }

    #[test]
    fn the_stated_timestamps_are_those_of_the_frames() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.mp4", "a.mkv"] {
            let video = probe(&clips::slowing(folder.path(), name)).unwrap();
            let (times, frames) = Timestamps::stated(&video, &Limits::default()).unwrap().unwrap();
            assert_eq!(frames, 40, "{name}");
            assert!((times.time_s(30) - clips::slowing_time_s(30)).abs() < 0.003, "{name}");
        }
    }

    #[test]
    fn equal_timestamps_are_not_used() {
        assert_eq!(from_first(vec![2.0, 1.0, 4.0]), Some(vec![0.0, 1.0, 3.0]));
        assert_eq!(from_first(vec![1.0, 1.0]), None);
        assert_eq!(from_first(vec![]), None);
    }
}
