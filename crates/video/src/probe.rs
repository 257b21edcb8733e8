//! Probing: a video's metadata, before it is decoded.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::ffmpeg::{first_error, input_name};
use crate::index::Index;
use crate::limits::{FORMATS, Limits, MAX_ALLOC_BYTES, MAX_PIXELS};
use crate::process::Process;

/// A rational number, as containers state frame rates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rational {
    /// The numerator.
    pub numerator: u64,
    /// The denominator, never 0.
    pub denominator: u64,
}

impl Rational {
    /// The ratio as a float.
    #[must_use]
    pub fn as_f64(self) -> f64 {
        self.numerator as f64 / self.denominator as f64
    }

    /// Parses `30000/1001`; `None` for anything but a positive ratio, such as `0/0`.
    fn parse(text: &str) -> Option<Self> {
        let (numerator, denominator) = text.split_once('/')?;
        let ratio =
            Self { numerator: numerator.parse().ok()?, denominator: denominator.parse().ok()? };
        (ratio.numerator > 0 && ratio.denominator > 0).then_some(ratio)
    }
}

/// A video track and the file that holds it.
#[derive(Debug, Clone)]
pub struct Video {
    /// The file.
    pub path: PathBuf,
    /// Width in pixels, after the rotation in the file's metadata.
    pub width: u32,
    /// Height in pixels, after rotation.
    pub height: u32,
    /// Frames per second.
    pub fps: Rational,
    /// The track's index in the file.
    pub(crate) track: usize,
    /// Number of frames according to the container; the decoder may output a few more or less.
    pub(crate) expected_frames: Option<usize>,
    /// The file size.
    pub(crate) bytes: u64,
    /// The track's index, if it could be parsed without FFmpeg.
    pub(crate) index: Option<Arc<Index>>,
    /// FFmpeg's option for dropping or duplicating frames; `None` until `ffprobe` has run.
    pub(crate) sync_option: Option<&'static str>,
}

impl Video {
    /// The length in seconds, or a bound of it if the container states none.
    pub(crate) fn length_s(&self) -> f64 {
        // Few videos have less than 10 kB per second.
        self.expected_frames.map_or(self.bytes as f64 / 1e4, |frames| self.time_s(frames))
    }

    /// The video, if its frames are within the pixel limit.
    fn checked(self) -> Result<Self> {
        let (width, height) = (self.width, self.height);
        match u64::from(width) * u64::from(height) > MAX_PIXELS {
            true => Err(Error::TooLarge { path: self.path, width, height }),
            false => Ok(self),
        }
    }

    /// Integer frames per second, at least 1: the step of sampling at 1 fps.
    #[must_use]
    pub fn frames_per_second(&self) -> usize {
        ((self.fps.numerator / self.fps.denominator) as usize).max(1)
    }

    /// The video with the metadata of `ffprobe`.
    ///
    /// # Errors
    /// Those of [`probe`].
    pub(crate) fn with_ffprobe(&self, limits: &Limits) -> Result<Self> {
        match self.sync_option {
            Some(_) => Ok(self.clone()),
            None => ffprobe(&self.path, self.bytes, limits),
        }
    }

    /// The timestamp of frame `index` in seconds from the first one, if the frame rate is constant;
    /// `Timestamps` has those of a variable one.
    #[must_use]
    pub fn time_s(&self, index: usize) -> f64 {
        index as f64 / self.fps.as_f64()
    }
}

/// Finds the video track of `path`.
///
/// Audio, data and subtitle tracks and cover images are ignored. Of several video tracks the default one
/// is used.
///
/// MP4 and Matroska files with an unambiguous index are parsed here, all others by `ffprobe`.
///
/// # Errors
/// [`Error::Io`], [`Error::EmptyFile`], [`Error::NotAVideo`], [`Error::NoVideoTrack`],
/// [`Error::TooLarge`] and [`Error::DecodeTimeout`] about the file, [`Error::FfmpegMissing`] and
/// [`Error::FfmpegRun`] about `ffprobe`.
pub fn probe(path: &Path) -> Result<Video> {
    probe_within(path, &Limits::default())
}

/// As [`probe`], within `limits`.
///
/// # Errors
/// As [`probe`], and [`Error::DecodeInterrupted`].
pub fn probe_within(path: &Path, limits: &Limits) -> Result<Video> {
    let meta = std::fs::metadata(path).map_err(Error::io("read", path))?;
    if !meta.is_file() {
        let reason = if meta.is_dir() { "it is a directory" } else { "it is not a regular file" };
        return Err(Error::NotAVideo { path: path.to_owned(), reason: reason.to_owned() });
    }
    if meta.len() == 0 {
        return Err(Error::EmptyFile { path: path.to_owned() });
    }
    std::fs::File::open(path).map_err(Error::io("read", path))?;
    if let Some(index) = crate::index::read(path) {
        let (width, height) = index.size;
        let fps = Rational { numerator: index.fps.0, denominator: index.fps.1 };
        let video = Video {
            path: path.to_owned(),
            width,
            height,
            fps,
            track: index.track,
            expected_frames: Some(index.frames()),
            bytes: meta.len(),
            index: Some(Arc::new(index)),
            sync_option: None,
        };
        return video.checked();
    }
    ffprobe(path, meta.len(), limits)
}

/// Runs `ffprobe` on the file at `path`, of `bytes` bytes.
fn ffprobe(path: &Path, bytes: u64, limits: &Limits) -> Result<Video> {
    let mut command = Command::new("ffprobe");
    command
        .args(["-v", "error", "-protocol_whitelist", "file", "-format_whitelist", FORMATS])
        .args(["-max_alloc", &MAX_ALLOC_BYTES.to_string()])
        .args(["-max_pixels", &MAX_PIXELS.to_string()])
        .args(["-of", "json", "-show_library_versions", "-show_entries", ENTRIES, "-i"])
        .arg(input_name(path));
    let (process, stdout, _) =
        Process::start("ffprobe", &mut command, Stdio::null(), limits.for_metadata())?;
    let mut report = Vec::new();
    stdout.take(MAX_REPORT_BYTES).read_to_end(&mut report).map_err(Error::ffmpeg("ffprobe"))?;
    let exit = process.finish()?;
    let not_a_video = |reason: String| Error::NotAVideo { path: path.to_owned(), reason };
    let exit = exit.checked(path)?;
    if !exit.success {
        return Err(not_a_video(first_error(exit.errors.iter().map(String::as_str))));
    }
    let report: Report = serde_json::from_slice(&report)
        .map_err(|e| not_a_video(format!("the output of `ffprobe` cannot be parsed, {e}")))?;
    report.into_video(path, bytes)?.checked()
}

/// Maximum size of a report; a file can have thousands of tracks.
const MAX_REPORT_BYTES: u64 = 4 << 20;

const ENTRIES: &str = "format=duration:stream=index,codec_type,codec_name,width,height,\
    r_frame_rate,avg_frame_rate,nb_frames,duration:stream_disposition=default,attached_pic:\
    stream_tags=rotate:stream_side_data=rotation";

/// `ffprobe`'s report; unknown values are absent, `N/A` or `0/0`.
#[derive(Deserialize)]
struct Report {
    #[serde(default)]
    streams: Vec<Stream>,
    #[serde(default)]
    format: Format,
    #[serde(default)]
    library_versions: Vec<Library>,
}

#[derive(Deserialize)]
struct Library {
    name: String,
    major: u32,
    minor: u32,
}

#[derive(Deserialize, Default)]
struct Format {
    duration: Option<String>,
}

#[derive(Deserialize)]
struct Stream {
    index: usize,
    #[serde(default)]
    codec_type: String,
    codec_name: Option<String>,
    #[serde(default)]
    width: u32,
    #[serde(default)]
    height: u32,
    #[serde(default)]
    r_frame_rate: String,
    #[serde(default)]
    avg_frame_rate: String,
    nb_frames: Option<String>,
    duration: Option<String>,
    #[serde(default)]
    disposition: Disposition,
    #[serde(default)]
    tags: Tags,
    #[serde(default)]
    side_data_list: Vec<SideData>,
}

#[derive(Deserialize, Default)]
struct Disposition {
    #[serde(default)]
    default: u8,
    #[serde(default)]
    attached_pic: u8,
}

#[derive(Deserialize, Default)]
struct Tags {
    rotate: Option<String>,
}

#[derive(Deserialize)]
struct SideData {
    rotation: Option<f64>,
}

impl Report {
    fn into_video(self, path: &Path, bytes: u64) -> Result<Video> {
        let not_a_video =
            |reason: &str| Error::NotAVideo { path: path.to_owned(), reason: reason.to_owned() };
        let is_video = |s: &&Stream| s.codec_type == "video" && s.disposition.attached_pic == 0;
        let stream = self
            .streams
            .iter()
            .filter(is_video)
            .min_by_key(|s| (s.disposition.default == 0, s.index))
            .ok_or_else(|| Error::NoVideoTrack { path: path.to_owned(), tracks: self.tracks() })?;
        if stream.width == 0 || stream.height == 0 {
            return Err(not_a_video("its video track has no frame size"));
        }
        if stream.codec_name.is_none() {
            return Err(not_a_video("the installed FFmpeg does not know its codec"));
        }
        let fps = stream.fps().ok_or_else(|| not_a_video("its video track has no frame rate"))?;
        let (width, height) = match stream.is_rotated() {
            true => (stream.height, stream.width),
            false => (stream.width, stream.height),
        };
        let expected_frames = stream.expected_frames(self.format.duration.as_deref());
        let (track, sync_option) = (stream.index, Some(self.sync_option()));
        let (path, index) = (path.to_owned(), None);
        Ok(Video { path, width, height, fps, track, expected_frames, bytes, index, sync_option })
    }

    /// FFmpeg before 5.1 has only `-vsync`, FFmpeg from 9 on only `-fps_mode`.
    fn sync_option(&self) -> &'static str {
        let codecs = self.library_versions.iter().find(|library| library.name == "libavcodec");
        let is_old = codecs.is_some_and(|library| (library.major, library.minor) < (59, 37));
        if is_old { "-vsync" } else { "-fps_mode" }
    }

    /// The kinds of tracks, for the error that none is video.
    fn tracks(&self) -> String {
        let mut kinds: Vec<&str> = self
            .streams
            .iter()
            .map(|s| match s.codec_type.as_str() {
                "video" => "a cover image",
                "" => "an unknown track",
                kind => kind,
            })
            .collect();
        kinds.sort_unstable();
        kinds.dedup();
        if kinds.is_empty() { "no track at all".to_owned() } else { kinds.join(" and ") }
    }
}

impl Stream {
    /// The frame rate by FFmpeg's rule: `r_frame_rate`, unless that is only the time base of a
    /// variable-frame-rate recording, then `avg_frame_rate`.
    fn fps(&self) -> Option<Rational> {
        let base = Rational::parse(&self.r_frame_rate);
        let average = Rational::parse(&self.avg_frame_rate);
        match (base, average) {
            (Some(base), Some(average)) if base.as_f64() > 210.0 && average.as_f64() < 70.0 => {
                Some(average)
            }
            (base, average) => base.or(average),
        }
    }

    /// Whether the frame is rotated by 90° or 270°, so that width and height are swapped.
    fn is_rotated(&self) -> bool {
        let tag = || self.tags.rotate.as_deref().and_then(|degrees| degrees.parse().ok());
        let degrees: f64 =
            self.side_data_list.iter().find_map(|s| s.rotation).or_else(tag).unwrap_or(0.0);
        (degrees.rem_euclid(180.0) - 90.0).abs() < 1.0
    }

    /// The smaller of the container's frame counts: a file cut without re-encoding counts hidden frames.
    fn expected_frames(&self, container_duration: Option<&str>) -> Option<usize> {
        let counted = self.nb_frames.as_deref().and_then(|n| n.parse::<usize>().ok());
        let rate = Rational::parse(&self.avg_frame_rate)?;
        let seconds = self.duration.as_deref().and_then(|d| d.parse::<f64>().ok());
        let seconds = match (seconds, counted) {
            (Some(seconds), _) => Some(seconds),
            // A container's duration is that of its longest track.
            (None, None) => container_duration.and_then(|d| d.parse().ok()),
            (None, Some(_)) => None,
        };
        let timed = seconds.map(|s| (s * rate.as_f64() + 1e-3).floor().max(0.0) as usize);
        match (counted, timed) {
            (Some(counted), Some(timed)) => Some(counted.min(timed)),
            (counted, timed) => counted.or(timed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(report: &str) -> Result<Video> {
        let report: Report = serde_json::from_str(report).unwrap();
        report.into_video(Path::new("a.mp4"), 1)
    }

    fn stream(extra: &str) -> String {
        format!(
            r#"{{"streams": [{{"index": 0, "codec_type": "audio", "codec_name": "aac"}},
                {{"index": 1, "codec_type": "video", "codec_name": "h264", "width": 640,
                "height": 360, {extra} }}], "format": {{"format_name": "mov,mp4"}}}}"#
        )
    }

    #[test]
    fn the_frame_rate_stays_a_ratio() {
        let video =
            read(&stream(r#""r_frame_rate": "30000/1001", "avg_frame_rate": "0/0""#)).unwrap();
        assert_eq!(video.fps, Rational { numerator: 30000, denominator: 1001 });
        assert_eq!(video.frames_per_second(), 29);
        assert_eq!(video.track, 1);
    }

    #[test]
    fn the_time_base_of_a_variable_frame_rate_is_not_its_frame_rate() {
        let video =
            read(&stream(r#""r_frame_rate": "90000/1", "avg_frame_rate": "359/12""#)).unwrap();
        assert_eq!(video.frames_per_second(), 29);
    }

    #[test]
    fn the_option_to_keep_all_frames_depends_on_the_ffmpeg_version() {
        let option = |major, minor| {
            let library = Library { name: "libavcodec".to_owned(), major, minor };
            let format = Format::default();
            Report { streams: Vec::new(), format, library_versions: vec![library] }.sync_option()
        };
        assert_eq!([option(58, 134), option(59, 18)], ["-vsync"; 2]);
        assert_eq!([option(59, 37), option(60, 3), option(63, 0)], ["-fps_mode"; 3]);
    }

    #[test]
    fn a_time_lapse_is_sampled_frame_by_frame() {
        let video = read(&stream(r#""r_frame_rate": "1/2", "avg_frame_rate": "1/2""#)).unwrap();
        assert_eq!(video.frames_per_second(), 1);
        assert_eq!(video.time_s(3), 6.0);
    }

    #[test]
    fn rotation_swaps_width_and_height() {
        let turned = r#""r_frame_rate": "25/1", "side_data_list": [{}, {"rotation": -90}]"#;
        let video = read(&stream(turned)).unwrap();
        assert_eq!((video.width, video.height), (360, 640));
        let upside_down = r#""r_frame_rate": "25/1", "tags": {"rotate": "180"}"#;
        let video = read(&stream(upside_down)).unwrap();
        assert_eq!((video.width, video.height), (640, 360));
    }

    #[test]
    fn absent_counts_give_no_expected_frames() {
        let video = read(&stream(r#""r_frame_rate": "25/1", "avg_frame_rate": "25/1""#)).unwrap();
        assert_eq!(video.expected_frames, None);
    }

    #[test]
    fn hidden_frames_are_not_expected() {
        let cut = r#""r_frame_rate": "25/1", "avg_frame_rate": "25/1", "nb_frames": "161",
            "duration": "6.320000""#;
        assert_eq!(read(&stream(cut)).unwrap().expected_frames, Some(158));
    }

    #[test]
    fn a_cover_image_is_not_a_video_track() {
        let song = r#"{"streams": [{"index": 0, "codec_type": "audio"}, {"index": 1, "codec_type":
            "video", "width": 9, "height": 9, "disposition": {"attached_pic": 1}}]}"#;
        let error = read(song).unwrap_err().to_string();
        assert_eq!(error, "`a.mp4` has no video track, only a cover image and audio");
    }
}
