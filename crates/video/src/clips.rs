//! Small test videos, generated with FFmpeg, and a texture for their content.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::{Path, PathBuf};
use std::process::Command;

/// Width of every clip in pixels.
pub const WIDTH: u32 = 96;
/// Height in pixels.
pub const HEIGHT: u32 = 64;

/// Runs `ffmpeg` with `arguments`, split at whitespace, and the output `path`.
pub fn ffmpeg(arguments: &str, path: &Path) {
    let status = Command::new("ffmpeg")
        .args(["-v", "error", "-nostdin", "-y"])
        .args(arguments.split_whitespace())
        .arg(path)
        .status()
        .expect("these tests need FFmpeg");
    assert!(status.success(), "ffmpeg {arguments}");
}

/// The full-range gray value of frame `index` of [`brightening`].
pub fn brightness(index: usize) -> u8 {
    (20 + 5 * index).min(255) as u8
}

/// A clip at 10 fps whose frames are uniformly gray, see [`brightness`].
pub fn brightening(folder: &Path, name: &str, frames: usize) -> PathBuf {
    let path = folder.join(name);
    ffmpeg(
        &format!(
            "-f lavfi -i color=black:s={WIDTH}x{HEIGHT}:r=10 -vf \
             format=gray,geq=lum='20+5*N',format=yuv420p -frames:v {frames} -c:v libx264 \
             -preset ultrafast"
        ),
        &path,
    );
    path
}

/// The time of frame `index` of [`slowing`].
pub fn slowing_time_s(index: usize) -> f64 {
    if index < 20 { 0.1 * index as f64 } else { 2.0 + 0.5 * (index - 20) as f64 }
}

/// A clip of 40 frames at 10 fps, from the 20th on at 2 fps, see [`slowing_time_s`].
pub fn slowing(folder: &Path, name: &str) -> PathBuf {
    // Matroska files have a variable frame rate in all versions of FFmpeg.
    let source = folder.join("slowing.mkv");
    ffmpeg(
        &format!(
            "-f lavfi -i testsrc2=s={WIDTH}x{HEIGHT}:r=10 -frames:v 40 -vf \
             setpts='if(lt(N,20),N*0.1,2+(N-20)*0.5)/TB' -c:v libx264 -preset ultrafast -pix_fmt yuv420p"
        ),
        &source,
    );
    let path = folder.join(name);
    ffmpeg(&format!("-i {} -c copy", source.display()), &path);
    path
}

/// A clip of moving patterns with audio and faststart.
pub fn pattern(folder: &Path, name: &str, frames: usize) -> PathBuf {
    let path = folder.join(name);
    ffmpeg(
        &format!(
            "-f lavfi -i testsrc2=s={WIDTH}x{HEIGHT}:r=10 -f lavfi -i sine=r=8000 -frames:v \
             {frames} -shortest -c:v libx264 -preset ultrafast -g 5 -pix_fmt yuv420p -c:a aac \
             -movflags +faststart"
        ),
        &path,
    );
    path
}

/// The first half of a clip's file.
pub fn truncated(folder: &Path, name: &str) -> PathBuf {
    let path = pattern(folder, name, 40);
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    path
}

/// A raw stream of twice `frames` frames, the second half larger.
pub fn changing_size(folder: &Path, name: &str, frames: usize) -> PathBuf {
    let path = folder.join(name);
    let mut bytes = Vec::new();
    for size in ["96x64", "128x96"] {
        ffmpeg(
            &format!(
                "-f lavfi -i testsrc2=s={size}:r=10 -frames:v {frames} -c:v libx264 -preset \
                 ultrafast -bf 0 -pix_fmt yuv420p -f h264"
            ),
            &path,
        );
        bytes.extend(std::fs::read(&path).unwrap());
    }
    std::fs::write(&path, bytes).unwrap();
    path
}

/// A clip with a rotation of 90° in its metadata, of two frames at a step of 10.
pub fn rotated(folder: &Path, name: &str) -> PathBuf {
    let unrotated = pattern(folder, "unrotated.mp4", 11);
    let path = folder.join(name);
    ffmpeg(
        &format!("-i {} -map 0:v -c copy -metadata:s:v:0 rotate=90", unrotated.display()),
        &path,
    );
    path
}

/// Audio without video.
pub fn audio(folder: &Path, name: &str) -> PathBuf {
    let path = folder.join(name);
    ffmpeg("-f lavfi -i sine=r=8000:d=1 -c:a aac", &path);
    path
}

/// An endless, irregular texture: the brightness at a point.
pub fn texture(x: f64, y: f64) -> u8 {
    let cell = |x: i64, y: i64, seed: u64| {
        let mut bits = (x as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
            ^ (y as u64).wrapping_mul(0xc2b2_ae3d_27d4_eb4f)
            ^ seed;
        bits = (bits ^ (bits >> 31)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        ((bits ^ (bits >> 32)) & 0xff) as f64
    };
    let smooth = |size: f64, seed: u64| {
        let (x, y) = (x / size, y / size);
        let (left, top) = (x.floor(), y.floor());
        let ease = |t: f64| t * t * (3.0 - 2.0 * t);
        let (u, v) = (ease(x - left), ease(y - top));
        let at = |dx: i64, dy: i64| cell(left as i64 + dx, top as i64 + dy, seed);
        let upper = at(0, 0) + u * (at(1, 0) - at(0, 0));
        let lower = at(0, 1) + u * (at(1, 1) - at(0, 1));
        upper + v * (lower - upper)
    };
    (0.5 * smooth(6.0, 1) + 0.3 * smooth(14.0, 2) + 0.2 * smooth(40.0, 3)) as u8
}

/// A still clip of the texture, at 10 fps.
pub fn still(folder: &Path, name: &str, frames: usize) -> PathBuf {
    over_texture(folder, name, frames, 0)
}

/// A clip, at 10 fps, of frames 320 pixels wide that pan over the texture by 6 pixels per frame.
pub fn panning(folder: &Path, name: &str, frames: usize) -> PathBuf {
    over_texture(folder, name, frames, 6)
}

fn over_texture(folder: &Path, name: &str, frames: usize, speed: usize) -> PathBuf {
    let wide = folder.join("texture.png");
    let width = (320 + speed * frames) as u32;
    let texture_image = image::GrayImage::from_fn(width, 240, |x, y| {
        image::Luma([texture(f64::from(x), f64::from(y))])
    });
    texture_image.save(&wide).unwrap();
    let path = folder.join(name);
    ffmpeg(
        &format!(
            "-framerate 10 -loop 1 -i {} -vf crop=320:240:{speed}*n:0 -frames:v {frames} -c:v \
             libx264 -preset ultrafast -crf 12 -pix_fmt yuv420p",
            wide.display()
        ),
        &path,
    );
    path
}
