//! What a file says of itself, before it is decoded.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use serde::Deserialize;

use super::decoder::{first_complaint, input_name};
use super::index::Index;
use super::limits::{FORMATS, MOST_BYTES_AT_ONCE, MOST_PIXELS, PROBE_TIME};
use super::process::Process;
use crate::error::{Error, Result};

/// A ratio of whole numbers, as containers state frame rates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rational {
    /// Above the line.
    pub numerator: u64,
    /// Below the line, never 0.
    pub denominator: u64,
}

impl Rational {
    /// The ratio as one number.
    #[must_use]
    pub fn as_f64(self) -> f64 {
        self.numerator as f64 / self.denominator as f64
    }

    /// Reads `30000/1001`; `None` for anything that is not a positive ratio, such as `0/0`.
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
    /// Pixels across, as shown: after the rotation that the file asks for.
    pub width: u32,
    /// Pixels down, as shown.
    pub height: u32,
    /// Frames a second.
    pub fps: Rational,
    /// The track's number in the file.
    pub(super) track: usize,
    /// How many frames the container promises; the decoder may give some more or less.
    pub(super) promised: Option<usize>,
    /// The file's length.
    pub(super) bytes: u64,
    /// Where its frames lie, where that could be read without FFmpeg.
    pub(super) index: Option<Arc<Index>>,
    /// FFmpeg's option that says whether frames may be dropped or repeated; `None` as long as
    /// `ffprobe` was not asked.
    pub(super) sync_option: Option<&'static str>,
}

impl Video {
    /// The video, if its frames are not too large.
    fn checked(self) -> Result<Self> {
        let (width, height) = (self.width, self.height);
        match u64::from(width) * u64::from(height) > MOST_PIXELS {
            true => Err(Error::TooLarge { path: self.path, width, height }),
            false => Ok(self),
        }
    }

    /// Whole frames in a second, at least 1: the step of sampling at one frame a second.
    #[must_use]
    pub fn frames_per_second(&self) -> usize {
        ((self.fps.numerator / self.fps.denominator) as usize).max(1)
    }

    /// The video as `ffprobe` describes it.
    ///
    /// # Errors
    /// Those of [`probe`].
    pub(super) fn described(&self) -> Result<Self> {
        match self.sync_option {
            Some(_) => Ok(self.clone()),
            None => describe(&self.path, self.bytes),
        }
    }

    /// When frame `index` is shown, in seconds from the first one.
    #[must_use]
    pub fn time_s(&self, index: usize) -> f64 {
        index as f64 / self.fps.as_f64()
    }
}

/// Finds the video track of `path`.
///
/// Audio, data and subtitle tracks and cover pictures are passed over. Of several video tracks the
/// one that the file marks as default counts.
///
/// MP4 and Matroska files with an index that leaves no doubt are read here, all others by `ffprobe`.
///
/// # Errors
/// [`Error::Io`], [`Error::EmptyFile`], [`Error::NotAVideo`], [`Error::NoVideoTrack`],
/// [`Error::TooLarge`] and [`Error::TooSlow`] about the file, [`Error::FfmpegMissing`] and
/// [`Error::FfmpegRun`] about `ffprobe`.
pub fn probe(path: &Path) -> Result<Video> {
    let meta = std::fs::metadata(path).map_err(Error::io("read", path))?;
    if !meta.is_file() {
        let reason = if meta.is_dir() { "it is a folder" } else { "it is not a regular file" };
        return Err(Error::NotAVideo { path: path.to_owned(), reason: reason.to_owned() });
    }
    if meta.len() == 0 {
        return Err(Error::EmptyFile { path: path.to_owned() });
    }
    std::fs::File::open(path).map_err(Error::io("read", path))?;
    if let Some(index) = Index::read(path) {
        let (width, height) = index.size;
        let fps = Rational { numerator: index.fps.0, denominator: index.fps.1 };
        let video = Video {
            path: path.to_owned(),
            width,
            height,
            fps,
            track: index.track,
            promised: Some(index.frames()),
            bytes: meta.len(),
            index: Some(Arc::new(index)),
            sync_option: None,
        };
        return video.checked();
    }
    describe(path, meta.len())
}

/// What `ffprobe` says of the file at `path`, which has so many `bytes`.
fn describe(path: &Path, bytes: u64) -> Result<Video> {
    let mut command = Command::new("ffprobe");
    command
        .args(["-v", "error", "-protocol_whitelist", "file", "-format_whitelist", FORMATS])
        .args(["-max_alloc", &MOST_BYTES_AT_ONCE.to_string()])
        .args(["-max_pixels", &MOST_PIXELS.to_string()])
        .args(["-of", "json", "-show_library_versions", "-show_entries", ENTRIES, "-i"])
        .arg(input_name(path));
    let (process, stdout, _) = Process::start("ffprobe", &mut command, Stdio::null(), PROBE_TIME)?;
    let mut report = Vec::new();
    stdout.take(MOST_REPORTED).read_to_end(&mut report).map_err(Error::ffmpeg("ffprobe"))?;
    let ending = process.finish()?;
    let not_a_video = |reason: String| Error::NotAVideo { path: path.to_owned(), reason };
    if ending.is_late {
        return Err(not_a_video("`ffprobe` did not come to an end with it".to_owned()));
    }
    if !ending.success {
        return Err(not_a_video(first_complaint(ending.complaints.iter().map(String::as_str))));
    }
    let report: Report = serde_json::from_slice(&report)
        .map_err(|e| not_a_video(format!("`ffprobe` reports something unreadable, {e}")))?;
    report.into_video(path, bytes)?.checked()
}

/// Bytes of a report at most; a file can be made of thousands of tracks.
const MOST_REPORTED: u64 = 4 << 20;

const ENTRIES: &str = "format=duration:stream=index,codec_type,codec_name,width,height,\
    r_frame_rate,avg_frame_rate,nb_frames,duration:stream_disposition=default,attached_pic:\
    stream_tags=rotate:stream_side_data=rotation";

/// `ffprobe`'s report; a figure that it does not know is absent, `N/A` or `0/0`.
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
        let shown = |s: &&Stream| s.codec_type == "video" && s.disposition.attached_pic == 0;
        let stream = self
            .streams
            .iter()
            .filter(shown)
            .min_by_key(|s| (s.disposition.default == 0, s.index))
            .ok_or_else(|| Error::NoVideoTrack { path: path.to_owned(), tracks: self.tracks() })?;
        if stream.width == 0 || stream.height == 0 {
            return Err(not_a_video("its video track states no frame size"));
        }
        if stream.codec_name.is_none() {
            return Err(not_a_video("the installed FFmpeg does not know its codec"));
        }
        let fps =
            stream.fps().ok_or_else(|| not_a_video("its video track states no frame rate"))?;
        let (width, height) = match stream.is_turned() {
            true => (stream.height, stream.width),
            false => (stream.width, stream.height),
        };
        let promised = stream.promised(self.format.duration.as_deref());
        let (track, sync_option) = (stream.index, Some(self.sync_option()));
        let (path, index) = (path.to_owned(), None);
        Ok(Video { path, width, height, fps, track, promised, bytes, index, sync_option })
    }

    /// FFmpeg before 5.1 knows only the one, FFmpeg from 9 on only the other.
    fn sync_option(&self) -> &'static str {
        let codecs = self.library_versions.iter().find(|library| library.name == "libavcodec");
        let is_old = codecs.is_some_and(|library| (library.major, library.minor) < (59, 37));
        if is_old { "-vsync" } else { "-fps_mode" }
    }

    /// The kinds of tracks that are there, for the message that says that none is video.
    fn tracks(&self) -> String {
        let mut kinds: Vec<&str> = self
            .streams
            .iter()
            .map(|s| match s.codec_type.as_str() {
                "video" => "a cover picture",
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
    /// The frame rate by FFmpeg's own rule of choice between the two that it reports: the base rate,
    /// unless that is only the clock of a variable-rate recording.
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

    /// Whether the picture is shown on its side, so that width and height change places.
    fn is_turned(&self) -> bool {
        let tag = || self.tags.rotate.as_deref().and_then(|degrees| degrees.parse().ok());
        let degrees: f64 =
            self.side_data_list.iter().find_map(|s| s.rotation).or_else(tag).unwrap_or(0.0);
        (degrees.rem_euclid(180.0) - 90.0).abs() < 1.0
    }

    /// The fewer of the counts that the container gives: a file cut without re-encoding counts
    /// frames that it does not show.
    fn promised(&self, container_duration: Option<&str>) -> Option<usize> {
        let counted = self.nb_frames.as_deref().and_then(|n| n.parse::<usize>().ok());
        let rate = Rational::parse(&self.avg_frame_rate)?;
        let seconds = self.duration.as_deref().and_then(|d| d.parse::<f64>().ok());
        let seconds = match (seconds, counted) {
            (Some(seconds), _) => Some(seconds),
            // A container lasts as long as its longest track.
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
    fn the_clock_of_a_variable_rate_recording_is_not_its_frame_rate() {
        let video =
            read(&stream(r#""r_frame_rate": "90000/1", "avg_frame_rate": "359/12""#)).unwrap();
        assert_eq!(video.frames_per_second(), 29);
    }

    #[test]
    fn ffmpeg_is_told_to_keep_all_frames_in_the_words_of_its_version() {
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
    fn a_picture_on_its_side_swaps_width_and_height() {
        let turned = r#""r_frame_rate": "25/1", "side_data_list": [{}, {"rotation": -90}]"#;
        let video = read(&stream(turned)).unwrap();
        assert_eq!((video.width, video.height), (360, 640));
        let upside_down = r#""r_frame_rate": "25/1", "tags": {"rotate": "180"}"#;
        let video = read(&stream(upside_down)).unwrap();
        assert_eq!((video.width, video.height), (640, 360));
    }

    #[test]
    fn absent_counts_are_no_promise() {
        let video = read(&stream(r#""r_frame_rate": "25/1", "avg_frame_rate": "25/1""#)).unwrap();
        assert_eq!(video.promised, None);
    }

    #[test]
    fn frames_that_the_file_hides_are_not_promised() {
        let cut = r#""r_frame_rate": "25/1", "avg_frame_rate": "25/1", "nb_frames": "161",
            "duration": "6.320000""#;
        assert_eq!(read(&stream(cut)).unwrap().promised, Some(158));
    }

    #[test]
    fn a_cover_picture_is_no_video_track() {
        let song = r#"{"streams": [{"index": 0, "codec_type": "audio"}, {"index": 1, "codec_type":
            "video", "width": 9, "height": 9, "disposition": {"attached_pic": 1}}]}"#;
        let error = read(song).unwrap_err().to_string();
        assert_eq!(error, "`a.mp4` has no video track, only a cover picture and audio");
    }
}
