//! An FFmpeg process that decodes a video track and outputs selected frames as raw pixels.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Video;
use crate::error::{Error, Result};
use crate::ffmpeg::{first_error, input_name};
use crate::index::Excerpt;
use crate::limits::{FORMATS, Limits, MAX_ALLOC_BYTES, MAX_PIXELS};
use crate::process::{Deadline, ExitReport, Killed, Output, Process};

/// The pixel format of decoded frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PixelFormat {
    /// 8-bit gray, full range.
    Gray,
    /// 8-bit RGB.
    Rgb,
}

impl PixelFormat {
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

/// Which frames of a track to output, and how.
pub(crate) struct TrackSelection {
    /// FFmpeg expression over the frame index `n`, true for selected frames.
    pub(crate) select: String,
    /// Width and height to scale to.
    pub(crate) size: (u32, u32),
    /// The output pixel format.
    pub(crate) format: PixelFormat,
    /// Decoding stops after this many selected frames.
    pub(crate) max_frames: Option<usize>,
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
    /// Scales frames of the size `from`; frames of another size shrink to 1 × 1, so that output is missing.
    fn only_from(from: (u32, u32), to: (u32, u32)) -> Self {
        let side = |to| format!("if(eq(iw,{})*eq(ih,{}),{to},1)", from.0, from.1);
        Self { width: side(to.0), height: side(to.1) }
    }
}

/// A running decoder; the process is killed on drop.
pub(crate) struct Decoder {
    process: Process,
    frames: Output,
    frame_bytes: usize,
}

impl Decoder {
    /// Starts FFmpeg on the track of `video`, within `limits`.
    pub(crate) fn start(
        video: &Video,
        selection: &TrackSelection,
        limits: &Limits,
    ) -> Result<Self> {
        let mut command = ffmpeg();
        command.args(["-protocol_whitelist", "file", "-i"]).arg(input_name(&video.path));
        let track = format!("0:{}", video.track);
        // No frames are dropped or duplicated for a constant frame rate.
        let timing = [video.sync_option.unwrap_or("-vsync"), "passthrough"];
        let scale = selection.size.into();
        let input = (Stdio::null(), limits.for_pass(video.length_s()));
        Self::run(&mut command, &track, timing, (selection, scale), input, None)
    }

    /// Starts FFmpeg on an excerpt of `video`.
    pub(crate) fn start_excerpt(
        video: &Video,
        excerpt: Excerpt,
        selection: &TrackSelection,
        limits: &Limits,
    ) -> Result<Self> {
        let mut command = ffmpeg();
        command.args(["-f", excerpt.format, "-protocol_whitelist", "pipe", "-i", "pipe:0"]);
        let input = (Stdio::piped(), limits.for_pass(video.length_s()));
        let scale = Scale::only_from(excerpt.size, selection.size);
        let feed = (video.path.clone(), excerpt);
        // The filter's time base is 1/25; the frame count shows whether any frame was dropped.
        Self::run(&mut command, "0:0", ["-r", "25"], (selection, scale), input, Some(feed))
    }

    fn run(
        command: &mut Command,
        track: &str,
        timing: [&str; 2],
        (selection, scale): (&TrackSelection, Scale),
        (input, deadline): (Stdio, Deadline),
        feed: Option<(PathBuf, Excerpt)>,
    ) -> Result<Self> {
        // Timestamps are replaced by frame indices, so that broken ones cannot drop or duplicate frames.
        let filters = format!(
            "select='{}',settb=1/25,setpts=N,scale='{}':'{}':flags=bicubic+accurate_rnd\
             +full_chroma_int,format={}",
            selection.select,
            scale.width,
            scale.height,
            selection.format.name()
        );
        command.args(["-map", track, "-vf", &filters]).args(timing);
        // The filter's time base: in the video's own some timestamps would round to the same value.
        command.args(["-enc_time_base", "1:25"]);
        if let Some(count) = selection.max_frames {
            command.args(["-frames:v", &count.to_string()]);
        }
        command.args(["-f", "rawvideo", "-"]);
        let (process, frames, stdin) = Process::start("ffmpeg", command, input, deadline)?;
        if let Some(((path, excerpt), stdin)) = feed.zip(stdin) {
            std::thread::spawn(move || {
                // FFmpeg reports missing data itself, and closes the pipe when it has enough.
                if let Err(error) = excerpt.write_to(&path, stdin) {
                    tracing::debug!("an excerpt of `{}` ended early: {error}", path.display());
                }
            });
        }
        let (width, height) = selection.size;
        let frame_bytes = width as usize * height as usize * selection.format.bytes();
        Ok(Self { process, frames, frame_bytes })
    }

    /// The next selected frame's pixels in row-major order, or `None` after the last one.
    pub(crate) fn next_frame(&mut self) -> Result<Option<Vec<u8>>> {
        let mut pixels = Vec::with_capacity(self.frame_bytes);
        let read = (&mut self.frames)
            .take(self.frame_bytes as u64)
            .read_to_end(&mut pixels)
            .map_err(Error::ffmpeg("ffmpeg"))?;
        Ok((read == self.frame_bytes).then_some(pixels))
    }

    /// Waits for the process after its last frame.
    ///
    /// # Errors
    /// [`Error::DecodeTimeout`] for the file at `path` if it exceeded its time limit,
    /// [`Error::DecodeInterrupted`] if it was stopped.
    pub(crate) fn finish(self, path: &Path) -> Result<ExitReport> {
        // A process that still writes gets a broken pipe and exits.
        drop(self.frames);
        let exit = self.process.finish()?;
        exit.checked(path)
    }
}

/// The FFmpeg command with its limits, before the input.
fn ffmpeg() -> Command {
    let mut command = Command::new("ffmpeg");
    command
        .args(["-v", "error", "-nostdin", "-max_alloc", &MAX_ALLOC_BYTES.to_string()])
        .args(["-max_pixels", &MAX_PIXELS.to_string(), "-format_whitelist", FORMATS])
        // A change of frame size mid-stream must not restart the frame count.
        .args(["-reinit_filter", "0"]);
    command
}

impl ExitReport {
    /// The report, if the process was not killed.
    pub(crate) fn checked(self, path: &Path) -> Result<Self> {
        let path = || path.to_owned();
        match self.killed {
            None => Ok(self),
            Some(Killed::TimedOut) => Err(Error::DecodeTimeout { path: path() }),
            Some(Killed::Stopped) => Err(Error::DecodeInterrupted { path: path() }),
        }
    }

    /// FFmpeg's first error, for the user.
    pub(crate) fn reason(&self) -> String {
        first_error(self.errors.iter().map(String::as_str))
    }
}
