//! Videos generated with FFmpeg: valid, hard and hostile ones.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod excerpts;
mod hard;
mod hostile;
mod matroska;

use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs `ffmpeg` with `arguments`, split at whitespace, and the output `name` in `folder`.
fn ffmpeg(folder: &Path, arguments: &str, name: &str) -> PathBuf {
    let path = folder.join(name);
    let status = Command::new("ffmpeg")
        .args(["-v", "error", "-nostdin", "-y"])
        .args(arguments.split_whitespace())
        .arg(&path)
        // Silences this encoder's banner.
        .env("SVT_LOG", "1")
        .current_dir(folder)
        .status()
        .expect("these tests need FFmpeg");
    assert!(status.success(), "ffmpeg {arguments} {name}");
    path
}

/// A clip of moving patterns, 5 s at 24 fps, encoded with `codec`.
fn patterns(folder: &Path, codec: &str, name: &str) -> PathBuf {
    let source = "-f lavfi -i testsrc2=s=160x120:r=24 -frames:v 120";
    ffmpeg(folder, &format!("{source} {codec}"), name)
}
