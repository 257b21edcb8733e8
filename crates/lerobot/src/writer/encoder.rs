//! Encoding by FFmpeg: of an episode's frames, and of several episodes' streams into one file.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use embodied_r_video::ffmpeg_output;
use image::RgbImage;

use super::options::{VideoCodec, WriterOptions};
use crate::error::{Error, Result};

/// Bytes of FFmpeg's messages that are kept.
const MAX_ERROR_BYTES: u64 = 1 << 16;

/// Frames from one key frame to the next, as in LeRobot: random access to frames decodes two at most.
const GOP: &str = "2";

/// An encoder that FFmpeg has.
#[derive(Debug, Clone)]
pub(super) struct Encoder {
    name: &'static str,
    codec: VideoCodec,
    size: String,
    fps: String,
    /// Ticks per second of joined files, a multiple of `fps`, so that the times of frames are exact.
    timescale: String,
}

/// What FFmpeg writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Output {
    /// An mp4 file.
    Mp4,
    /// The bare stream of the codec, of which several can follow each other.
    Stream,
}

impl Encoder {
    /// The encoder of the options' codec.
    ///
    /// # Errors
    /// FFmpeg is missing, or lacks it.
    pub(super) fn find(options: &WriterOptions) -> Result<Self> {
        // The smallest side of a frame that SVT-AV1 encodes.
        const SVT_AV1_SIDE: u32 = 64;
        let names: &[&str] = match options.codec {
            VideoCodec::H264 => &["libx264"],
            VideoCodec::Av1 if options.camera.width.min(options.camera.height) < SVT_AV1_SIDE => {
                &["libaom-av1"]
            }
            VideoCodec::Av1 => &["libsvtav1", "libaom-av1"],
        };
        let list = ffmpeg_output("ffmpeg", &["-hide_banner", "-encoders"])?;
        let name = choose(&list, names)?;
        let size = format!("{}x{}", options.camera.width, options.camera.height);
        let (fps, timescale) = (options.fps.to_string(), (options.fps * 1024).to_string());
        Ok(Self { name, codec: options.codec, size, fps, timescale })
    }

    fn quality(&self) -> &'static str {
        match self.name {
            // No B-frames: streams that follow each other are in the order of presentation.
            "libx264" => "-preset veryfast -crf 20 -bf 0 -sc_threshold 0 -threads 1",
            "libsvtav1" => "-preset 10 -crf 28 -svtav1-params lp=1",
            _ => "-cpu-used 8 -crf 28 -b:v 0 -usage realtime -threads 1",
        }
    }

    /// The format of the bare stream.
    fn stream_format(&self) -> &'static str {
        match self.codec {
            VideoCodec::H264 => "h264",
            VideoCodec::Av1 => "obu",
        }
    }

    /// Starts to encode frames to the file `path`.
    pub(super) fn start(&self, path: &Path, output: Output) -> Result<Encoding> {
        let mut command = ffmpeg();
        command
            .args(["-f", "rawvideo", "-pix_fmt", "rgb24", "-video_size", &self.size])
            .args(["-framerate", &self.fps, "-i", "pipe:0"])
            .args(["-an", "-c:v", self.name, "-g", GOP])
            .args(self.quality().split(' '))
            .args(["-pix_fmt", "yuv420p", "-fflags", "+bitexact", "-flags", "+bitexact"])
            // Silences the banner of SVT-AV1.
            .env("SVT_LOG", "1");
        match output {
            Output::Mp4 => command.args(["-movflags", "+faststart", "-f", "mp4"]),
            Output::Stream => command.args(["-f", self.stream_format()]),
        };
        Encoding::start(command, path)
    }

    /// Puts the bare streams of episodes, one after the other, into the mp4 file `path`, without encoding them again. The
    /// frames are at multiples of 1 / fps exactly.
    pub(super) fn join(&self, streams: &[PathBuf], path: &Path) -> Result<()> {
        let mut command = ffmpeg();
        command
            .args(["-f", self.stream_format(), "-framerate", &self.fps, "-i", "pipe:0"])
            .args([
                "-an",
                "-c:v",
                "copy",
                "-video_track_timescale",
                &self.timescale,
                "-fflags",
                "+bitexact",
                "-flags",
                "+bitexact",
            ])
            .args(["-movflags", "+faststart", "-f", "mp4"]);
        let mut encoding = Encoding::start(command, path)?;
        for stream in streams {
            let failed = |error| Error::Io(embodied_r_files::Error::io("read", stream)(error));
            let mut file = File::open(stream).map_err(failed)?;
            if !encoding.copy(&mut file).map_err(failed)? {
                break;
            }
        }
        encoding.finish()
    }
}

/// The first of the encoders `names` that FFmpeg's list has: lines such as ` V....D libx264   H.264 …`.
fn choose(list: &str, names: &[&'static str]) -> Result<&'static str> {
    let has = |name: &&&'static str| {
        list.lines().any(|line| line.split_whitespace().nth(1) == Some(**name))
    };
    names.iter().find(has).copied().ok_or_else(|| {
        let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
        Error::Encoder { encoders: quoted.join(", ") }
    })
}

fn ffmpeg() -> Command {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-hide_banner", "-loglevel", "error", "-y"]);
    command
}

/// A running FFmpeg, killed on drop.
pub(super) struct Encoding {
    path: PathBuf,
    ffmpeg: Child,
    errors: Receiver<Vec<u8>>,
}

impl Encoding {
    fn start(mut command: Command, path: &Path) -> Result<Self> {
        embodied_r_files::create_parents(path)?;
        // The name cannot be parsed as an option or a protocol.
        let mut name = std::ffi::OsString::from("file:");
        name.push(path);
        let mut ffmpeg = command
            .arg(name)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|source| match source.kind() {
                io::ErrorKind::NotFound => {
                    embodied_r_video::Error::FfmpegMissing { program: "ffmpeg" }
                }
                _ => embodied_r_video::Error::FfmpegRun { program: "ffmpeg", source },
            })?;
        let (sender, errors) = channel();
        // An unread pipe would block FFmpeg.
        if let Some(mut pipe) = ffmpeg.stderr.take() {
            std::thread::spawn(move || {
                let mut kept = Vec::new();
                let _ = (&mut pipe).take(MAX_ERROR_BYTES).read_to_end(&mut kept);
                let _ = io::copy(&mut pipe, &mut io::sink());
                let _ = sender.send(kept);
            });
        }
        Ok(Self { path: path.into(), ffmpeg, errors })
    }

    /// Sends a frame; `false` if FFmpeg has failed, of which [`finish`](Self::finish) knows the reason.
    pub(super) fn frame(&mut self, frame: &RgbImage) -> bool {
        self.ffmpeg.stdin.as_mut().is_some_and(|pipe| pipe.write_all(frame.as_raw()).is_ok())
    }

    /// Sends a file; `false` if FFmpeg has failed.
    fn copy(&mut self, file: &mut File) -> io::Result<bool> {
        let Some(pipe) = self.ffmpeg.stdin.as_mut() else { return Ok(false) };
        match io::copy(file, pipe) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Waits until the file is complete.
    pub(super) fn finish(mut self) -> Result<()> {
        drop(self.ffmpeg.stdin.take());
        let failed = |message: String| Error::Encode { path: self.path.clone(), message };
        let status = self.ffmpeg.wait().map_err(|error| failed(error.to_string()))?;
        if status.success() {
            return Ok(());
        }
        let errors = self.errors.recv().unwrap_or_default();
        let errors = String::from_utf8_lossy(&errors);
        let first = errors.lines().find(|line| !line.trim().is_empty());
        Err(failed(first.map_or_else(|| status.to_string(), str::to_owned)))
    }
}

impl Drop for Encoding {
    fn drop(&mut self) {
        // It has ended, or its output is not wanted.
        let _ = self.ffmpeg.kill();
        let _ = self.ffmpeg.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_encoder_that_ffmpeg_has_is_chosen() {
        let list = " V....D libaom-av1   AV1\n V....D libx264  H.264\n V....D libx264rgb  H.264\n";
        assert_eq!(choose(list, &["libsvtav1", "libaom-av1"]).unwrap(), "libaom-av1");
        let error = choose(" V....D libx264rgb  H.264\n", &["libx264"]).unwrap_err().to_string();
        assert!(error.contains("`libx264`") && error.contains("full build"), "{error}");
    }
}
