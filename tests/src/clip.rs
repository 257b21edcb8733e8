//! Small videos.

use std::path::Path;
use std::process::Command;

/// Makes the video `path` with FFmpeg: `arguments`, split at whitespace, and the output.
///
/// # Panics
/// FFmpeg is missing or fails.
pub fn write_clip(arguments: &str, path: &Path) {
    let status = Command::new("ffmpeg")
        .args(["-v", "error", "-nostdin", "-y"])
        .args(arguments.split_whitespace())
        .arg(path)
        .status()
        .expect("these tests need FFmpeg");
    assert!(status.success(), "ffmpeg {arguments}");
}
