//! One FFmpeg process that decodes one video track and hands over chosen frames as raw pixels.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::JoinHandle;

use super::Video;
use crate::error::{Error, Result};

/// What a file may make FFmpeg open: files, never the network.
pub(super) const PROTOCOLS: &str = "file,pipe,crypto,data";

/// Complaints kept of one process; a damaged file makes thousands.
const COMPLAINTS: usize = 8;

/// Letters kept of a complaint, which may quote a whole file.
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

/// A running decoder. The process ends with the value.
pub(super) struct Decoder {
    child: Child,
    frames: ChildStdout,
    complaints: Option<JoinHandle<Vec<String>>>,
    frame_bytes: usize,
}

/// How a decoder that has given out its last frame ended.
pub(super) struct Ending {
    /// Whether FFmpeg ended without a failure.
    pub(super) success: bool,
    /// FFmpeg's first error messages.
    pub(super) complaints: Vec<String>,
}

impl Decoder {
    /// Starts FFmpeg on the track of `video`.
    pub(super) fn start(video: &Video, wanted: &Wanted) -> Result<Self> {
        let (width, height) = wanted.size;
        // Times are replaced by counts, so that broken ones in the container drop or repeat nothing.
        let filters = format!(
            "select='{}',settb=1/25,setpts=N,scale={width}:{height}:flags=bicubic+accurate_rnd\
             +full_chroma_int,format={}",
            wanted.select,
            wanted.pixels.name()
        );
        let mut command = Command::new("ffmpeg");
        command
            .args(["-v", "error", "-nostdin", "-protocol_whitelist", PROTOCOLS])
            // A frame size that changes on the way must not start the count of frames anew.
            .args(["-reinit_filter", "0", "-i"])
            .arg(input_name(&video.path))
            .args(["-map", &format!("0:{}", video.track), "-vf", &filters])
            .args([video.sync_option, "passthrough"])
            // Counted in the filter's steps: by the video's own rate some counts would round alike.
            .args(["-enc_time_base", "1:25"]);
        if let Some(count) = wanted.at_most {
            command.args(["-frames:v", &count.to_string()]);
        }
        command.args(["-f", "rawvideo", "-"]);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(Error::ffmpeg("ffmpeg"))?;
        let missing = || Error::ffmpeg("ffmpeg")(ErrorKind::BrokenPipe.into());
        let frames = child.stdout.take().ok_or_else(missing)?;
        let stderr = child.stderr.take().ok_or_else(missing)?;
        // The process would stop at a full pipe if nobody read its complaints.
        let complaints = std::thread::spawn(move || {
            let mut kept = Vec::new();
            for line in BufReader::new(stderr).split(b'\n').map_while(|line| line.ok()) {
                if kept.len() < COMPLAINTS {
                    kept.push(String::from_utf8_lossy(&line).trim().to_owned());
                }
            }
            kept
        });
        let frame_bytes = width as usize * height as usize * wanted.pixels.bytes();
        Ok(Self { child, frames, complaints: Some(complaints), frame_bytes })
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
    pub(super) fn finish(mut self) -> Result<Ending> {
        let status = self.child.wait().map_err(Error::ffmpeg("ffmpeg"))?;
        let complaints = self.complaints.take().and_then(|thread| thread.join().ok());
        Ok(Ending { success: status.success(), complaints: complaints.unwrap_or_default() })
    }
}

impl Drop for Decoder {
    fn drop(&mut self) {
        // Both fail only where the process has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
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
    let said = match line.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
        Some((_, said)) => said,
        None => line.rsplit_once(": ").map_or(line, |(_, said)| said),
    };
    said.trim_end_matches('.').chars().take(COMPLAINT_LETTERS).collect()
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
    }

    #[test]
    fn a_name_is_never_an_option_or_a_protocol() {
        assert_eq!(input_name(Path::new("-y.mp4")), "file:-y.mp4");
        assert_eq!(input_name(Path::new("http://a.mp4")), "file:http://a.mp4");
    }
}
