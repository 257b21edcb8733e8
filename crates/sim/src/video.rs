//! Renders videos of rooms: frames from the ray caster, H.264 encoding by FFmpeg.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use embodied_r_data::scene::Scene;
use embodied_r_files::TempFile;

use crate::error::{Error, Result};
use crate::render::{HEIGHT, Renderer, WIDTH};

/// Bytes of FFmpeg's messages that are read.
const MAX_ERROR_BYTES: u64 = 1 << 20;

/// Renders a room to an mp4 file, one frame per pose. The file is written atomically.
///
/// # Errors
/// FFmpeg is missing, or cannot encode H.264 or write the file.
pub fn render_video(scene: &Scene, seed: u64, path: &Path) -> Result<()> {
    let temporary = TempFile::next_to(path);
    encode(scene, seed, temporary.path(), path)?;
    Ok(temporary.rename_to(path)?)
}

fn encode(scene: &Scene, seed: u64, out: &Path, path: &Path) -> Result<()> {
    let mut ffmpeg = start(scene.fps, out)?;
    let renderer = Renderer::new(scene, seed);
    let mut rgb = vec![0; WIDTH * HEIGHT * 3];
    let mut drawn = None;
    if let Some(mut pipe) = ffmpeg.stdin.take() {
        for pose in &scene.camera {
            if drawn != Some(pose) {
                renderer.draw(pose, &mut rgb);
                drawn = Some(pose);
            }
            // A broken pipe means that FFmpeg failed; its standard error has the reason.
            if pipe.write_all(&rgb).is_err() {
                break;
            }
        }
    }
    finish(ffmpeg, path)
}

fn start(fps: f64, out: &Path) -> Result<Child> {
    let size = format!("{WIDTH}x{HEIGHT}");
    Command::new("ffmpeg")
        .args(["-nostdin", "-hide_banner", "-loglevel", "error", "-y"])
        .args(["-f", "rawvideo", "-pix_fmt", "rgb24", "-video_size", &size])
        .args(["-framerate", &fps.to_string(), "-i", "pipe:0"])
        .args(["-an", "-c:v", "libx264", "-preset", "veryfast", "-crf", "22", "-threads", "1"])
        .args(["-pix_fmt", "yuv420p", "-fflags", "+bitexact", "-flags", "+bitexact"])
        .args(["-movflags", "+faststart", "-f", "mp4"])
        .arg(out)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|source| Error::FfmpegMissing { source })
}

fn finish(mut ffmpeg: Child, path: &Path) -> Result<()> {
    let failed = |message: String| Error::Ffmpeg { path: path.into(), message };
    let mut stderr = String::new();
    if let Some(pipe) = ffmpeg.stderr.take() {
        pipe.take(MAX_ERROR_BYTES)
            .read_to_string(&mut stderr)
            .map_err(|source| failed(source.to_string()))?;
    }
    let status = ffmpeg.wait().map_err(|source| failed(source.to_string()))?;
    if status.success() {
        return Ok(());
    }
    let last = stderr.lines().rev().find(|line| !line.trim().is_empty());
    Err(failed(last.map_or_else(|| status.to_string(), str::to_owned)))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::world::draw;

    fn probe(path: &Path) -> String {
        let output = Command::new("ffprobe")
            .args(["-v", "error", "-select_streams", "v:0", "-count_frames", "-show_entries"])
            .arg("stream=codec_name,width,height,pix_fmt,r_frame_rate,nb_read_frames")
            .args(["-of", "csv=p=0"])
            .arg(path)
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    #[test]
    fn a_room_is_rendered_in_h264_with_one_frame_per_pose() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("room.mp4");
        let mut scene = draw(&[1]);
        scene.camera.truncate(12);
        render_video(&scene, 1, &path).unwrap();
        assert_eq!(probe(&path), "h264,256,192,yuv420p,10/1,12");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_same_room_gives_the_same_file() {
        let folder = tempfile::tempdir().unwrap();
        let [a, b] = ["a.mp4", "b.mp4"].map(|name| folder.path().join(name));
        let mut scene = draw(&[1]);
        scene.camera.truncate(3);
        render_video(&scene, 1, &a).unwrap();
        render_video(&scene, 1, &b).unwrap();
        assert_eq!(fs::read(a).unwrap(), fs::read(b).unwrap());
    }

    #[test]
    fn an_unwritable_path_is_reported_and_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("absent").join("room.mp4");
        let error = render_video(&draw(&[1]), 1, &path).unwrap_err();
        assert!(matches!(error, Error::Ffmpeg { .. }), "{error}");
        assert!(error.to_string().contains("room.mp4"), "{error}");
    }
}
