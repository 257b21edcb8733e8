//! One FFmpeg process that decodes one video track and hands over chosen frames as raw pixels.

use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, Stdio};
use std::time::Duration;

use super::Video;
use super::index::Excerpt;
use super::limits::{FORMATS, MOST_BYTES_AT_ONCE, MOST_PIXELS, TimeLimit};
use super::process::{Ending, Process};
use crate::error::{Error, Result};

/// Letters told of a complaint.
const COMPLAINT_LETTERS: usize = 200;

/// How a frame's pixels lie in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pixels {
    /// One byte a pixel, full range.
    Gray,
    /// Red, green, blue.
    Rgb,
}

impl Pixels {
    fn name(self) -> &'static str {
        match self {
            Self::Gray => "gray",
            Self::Rgb => "rgb24",
        }
    }

    fn bytes(self) -> usize {
        match self {
            Self::Gray => 1,
            Self::Rgb => 3,
        }
    }
}

/// What is wanted of a track.
pub(super) struct Wanted {
    /// FFmpeg expression over the frame's index `n`, true where the frame is wanted.
    pub(super) select: String,
    /// Width and height to scale to.
    pub(super) size: (u32, u32),
    /// The pixels' form.
    pub(super) pixels: Pixels,
    /// Decoding stops after so many wanted frames.
    pub(super) at_most: Option<usize>,
}

/// FFmpeg expressions of the width and the height to scale to.
struct Scale {
    width: String,
    height: String,
}

impl From<(u32, u32)> for Scale {
    fn from((width, height): (u32, u32)) -> Self {
        Self { width: width.to_string(), height: height.to_string() }
    }
}

impl Scale {
    /// Scales frames of the size `from`. Others become so small that frames are missing in the end.
    fn only_from(from: (u32, u32), to: (u32, u32)) -> Self {
        let side = |to| format!("if(eq(iw,{})*eq(ih,{}),{to},1)", from.0, from.1);
        Self { width: side(to.0), height: side(to.1) }
    }
}

/// A running decoder. The process ends with the value.
pub(super) struct Decoder {
    process: Process,
    frames: ChildStdout,
    frame_bytes: usize,
}

impl Decoder {
    /// Starts FFmpeg on the track of `video`, for at most as long as `limit` allows.
    pub(super) fn start(video: &Video, wanted: &Wanted, limit: TimeLimit) -> Result<Self> {
        let mut command = ffmpeg();
        command.args(["-protocol_whitelist", "file", "-i"]).arg(input_name(&video.path));
        let track = format!("0:{}", video.track);
        // Frames are handed over as they come, never dropped or repeated to suit a rate.
        let timing = [video.sync_option.unwrap_or("-vsync"), "passthrough"];
        let scale = wanted.size.into();
        let limits = (Stdio::null(), limit.of(video));
        Self::run(&mut command, &track, timing, (wanted, scale), limits, None)
    }

    /// Starts FFmpeg on an excerpt of `video`.
    pub(super) fn start_excerpt(
        video: &Video,
        excerpt: Excerpt,
        wanted: &Wanted,
        limit: TimeLimit,
    ) -> Result<Self> {
        let mut command = ffmpeg();
        command.args(["-f", excerpt.format, "-protocol_whitelist", "pipe", "-i", "pipe:0"]);
        let limits = (Stdio::piped(), limit.of(video));
        let scale = Scale::only_from(excerpt.size, wanted.size);
        let feed = (video.path.clone(), excerpt);
        // The filter counts at this rate: whether any frame is dropped, the number of them tells.
        Self::run(&mut command, "0:0", ["-r", "25"], (wanted, scale), limits, Some(feed))
    }

    fn run(
        command: &mut Command,
        track: &str,
        timing: [&str; 2],
        (wanted, scale): (&Wanted, Scale),
        (input, limit): (Stdio, Duration),
        feed: Option<(PathBuf, Excerpt)>,
    ) -> Result<Self> {
        // Times are replaced by counts, so that broken ones in the container drop or repeat nothing.
        let filters = format!(
            "select='{}',settb=1/25,setpts=N,scale='{}':'{}':flags=bicubic+accurate_rnd\
             +full_chroma_int,format={}",
            wanted.select,
            scale.width,
            scale.height,
            wanted.pixels.name()
        );
        command.args(["-map", track, "-vf", &filters]).args(timing);
        // Counted in the filter's steps: by the video's own rate some counts would round alike.
        command.args(["-enc_time_base", "1:25"]);
        if let Some(count) = wanted.at_most {
            command.args(["-frames:v", &count.to_string()]);
        }
        command.args(["-f", "rawvideo", "-"]);
        let (process, frames, stdin) = Process::start("ffmpeg", command, input, limit)?;
        if let Some(((path, excerpt), stdin)) = feed.zip(stdin) {
            std::thread::spawn(move || {
                // FFmpeg tells of what it lacks, and closes its end when it has enough.
                if let Err(error) = excerpt.write_to(&path, stdin) {
                    tracing::debug!("an excerpt of `{}` ended early: {error}", path.display());
                }
            });
        }
        let (width, height) = wanted.size;
        let frame_bytes = width as usize * height as usize * wanted.pixels.bytes();
        Ok(Self { process, frames, frame_bytes })
    }

    /// The next wanted frame's pixels, row by row, or `None` after the last one.
    pub(super) fn next_frame(&mut self) -> Result<Option<Vec<u8>>> {
        let mut pixels = Vec::with_capacity(self.frame_bytes);
        let read = (&mut self.frames)
            .take(self.frame_bytes as u64)
            .read_to_end(&mut pixels)
            .map_err(Error::ffmpeg("ffmpeg"))?;
        Ok((read == self.frame_bytes).then_some(pixels))
    }

    /// Waits for the process that has given out its last frame.
    ///
    /// # Errors
    /// [`Error::TooSlow`] about the file at `path` where it was ended at its deadline.
    pub(super) fn finish(self, path: &Path) -> Result<Ending> {
        // Nothing reads the pipe any more: a process that still writes ends at that.
        drop(self.frames);
        let ending = self.process.finish()?;
        match ending.is_late {
            true => Err(Error::TooSlow { path: path.to_owned() }),
            false => Ok(ending),
        }
    }
}

/// FFmpeg with its limits, before its input is named.
fn ffmpeg() -> Command {
    let mut command = Command::new("ffmpeg");
    command
        .args(["-v", "error", "-nostdin", "-max_alloc", &MOST_BYTES_AT_ONCE.to_string()])
        .args(["-max_pixels", &MOST_PIXELS.to_string(), "-format_whitelist", FORMATS])
        // A frame size that changes on the way must not start the count of frames anew.
        .args(["-reinit_filter", "0"]);
    command
}

impl Ending {
    /// FFmpeg's first complaint, in words for the user.
    pub(super) fn reason(&self) -> String {
        first_complaint(self.complaints.iter().map(String::as_str))
    }
}

/// The file's name as FFmpeg takes it: never an option, a protocol or a pattern.
pub(super) fn input_name(path: &Path) -> OsString {
    let mut name = OsString::from("file:");
    name.push(path);
    name
}

/// The first line that says something, without the address of the component that says it.
pub(super) fn first_complaint<'a>(lines: impl Iterator<Item = &'a str>) -> String {
    let mut lines = lines.map(str::trim).filter(|line| !line.is_empty());
    let Some(line) = lines.next() else { return "FFmpeg gives no reason".to_owned() };
    if let Some((format, _)) = line.split_once("Format not on whitelist") {
        let name = format.trim_start_matches('[').split(" @").next().unwrap_or_default();
        return refused_format(name);
    }
    let said = match line.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
        Some((_, said)) => said,
        None => line.rsplit_once(": ").map_or(line, |(_, said)| said),
    };
    said.trim_end_matches('.').chars().take(COMPLAINT_LETTERS).collect()
}

/// Why a file of the format `name` is not read.
fn refused_format(name: &str) -> String {
    let is_picture = name == "image2" || name.ends_with("_pipe");
    let is_playlist =
        matches!(name, "hls" | "dash" | "concat" | "concatf" | "sdp" | "rtsp" | "imf");
    match name {
        "tty" => "it is text".to_owned(),
        _ if is_picture => "it is a picture".to_owned(),
        _ if is_playlist => format!("it is a list of other files (`{name}`), which are not opened"),
        _ => format!("files of the kind `{name}` are not opened"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complaint_loses_its_address_and_keeps_its_words() {
        let said = |line: &str| first_complaint([line].into_iter());
        assert_eq!(said("[mov,mp4 @ 0x55ea] moov atom not found"), "moov atom not found");
        assert_eq!(said("file:a: b.txt: Invalid data found"), "Invalid data found");
        assert_eq!(first_complaint(["", " "].into_iter()), "FFmpeg gives no reason");
        let refused = |name: &str| said(&format!("[{name} @ 0x1] Format not on whitelist 'mov'"));
        assert_eq!(refused("png_pipe"), "it is a picture");
        assert_eq!(refused("hls"), "it is a list of other files (`hls`), which are not opened");
    }

    #[test]
    fn a_name_is_never_an_option_or_a_protocol() {
        assert_eq!(input_name(Path::new("-y.mp4")), "file:-y.mp4");
        assert_eq!(input_name(Path::new("http://a.mp4")), "file:http://a.mp4");
    }
}
