//! `embodied-r keyframes` on small videos and pictures made here.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use embodied_r_tests::binary;
use image::{GrayImage, Luma};
use serde_json::Value;

const SIZE: (u32, u32) = (320, 240);

/// A texture without end that repeats nowhere nearby.
fn texture(x: f64, y: f64) -> u8 {
    let noise = |x: i64, y: i64| {
        let mut bits = (x as u64).wrapping_mul(0x9e37_79b9) ^ (y as u64).wrapping_mul(0x85eb_ca6b);
        bits = (bits ^ (bits >> 15)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        ((bits >> 40) & 0xff) as f64
    };
    let (x, y) = (x / 8.0, y / 8.0);
    let (left, top) = (x.floor(), y.floor());
    let ease = |t: f64| t * t * (3.0 - 2.0 * t);
    let (u, v) = (ease(x - left), ease(y - top));
    let at = |dx: i64, dy: i64| noise(left as i64 + dx, top as i64 + dy);
    let upper = at(0, 0) + u * (at(1, 0) - at(0, 0));
    let lower = at(0, 1) + u * (at(1, 1) - at(0, 1));
    (upper + v * (lower - upper)) as u8
}

/// A picture of the texture, each pixel from where `map` brings it.
fn picture(path: &Path, (width, height): (u32, u32), map: [f64; 9]) {
    let seen = GrayImage::from_fn(width, height, |x, y| {
        let (x, y) = (f64::from(x), f64::from(y));
        let depth = map[6] * x + map[7] * y + map[8];
        let across = (map[0] * x + map[1] * y + map[2]) / depth;
        Luma([texture(across, (map[3] * x + map[4] * y + map[5]) / depth)])
    });
    seen.save(path).unwrap();
}

const STILL: [f64; 9] = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0];

fn ffmpeg(arguments: &str, output: &Path) {
    let status = Command::new("ffmpeg")
        .args(["-v", "error", "-nostdin", "-y"])
        .args(arguments.split_whitespace())
        .arg(output)
        .status()
        .expect("these tests need FFmpeg");
    assert!(status.success(), "ffmpeg {arguments}");
}

/// A video of a camera that moves right by 6 pixels a frame, 10 frames a second, for 10 s.
fn pan(folder: &Path) -> PathBuf {
    let wide = folder.join("wide.png");
    picture(&wide, (SIZE.0 + 600, SIZE.1), STILL);
    let path = folder.join("pan.mp4");
    let input = format!("-framerate 10 -loop 1 -i {}", wide.display());
    ffmpeg(
        &format!(
            "{input} -vf crop=320:240:6*n:0 -frames:v 100 -c:v libx264 -preset ultrafast \
             -pix_fmt yuv420p -movflags +faststart"
        ),
        &path,
    );
    path
}

fn keyframes(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(binary()).arg("keyframes").args(arguments).current_dir(folder).output().unwrap()
}

/// The lines of JSON printed.
fn lines(output: &Output) -> Vec<Value> {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_pan_keeps_a_frame_each_time_half_of_the_view_has_passed() {
    let folder = tempfile::tempdir().unwrap();
    pan(folder.path());
    let output = keyframes(folder.path(), &["pan.mp4", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let [line] = lines(&output).try_into().unwrap();
    assert_eq!(line["video"], "pan.mp4");
    assert_eq!((&line["fps"], &line["frames"]), (&Value::from(10.0), &Value::from(100)));
    assert_eq!(line["keyframes"], serde_json::json!([0, 30, 60, 90, 99]));
    let sampled = line["sampled"].as_array().unwrap();
    let indices: Vec<u64> = sampled.iter().map(|frame| frame["index"].as_u64().unwrap()).collect();
    assert_eq!(indices, [0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 99]);
    assert_eq!(sampled[0]["overlap"], Value::Null);
    let overlap = sampled[1]["overlap"].as_f64().unwrap();
    assert!((overlap - (1.0 - 60.0 / 320.0)).abs() < 0.01, "{overlap}");
    let fields: Vec<&String> = sampled[1].as_object().unwrap().keys().collect();
    assert_eq!(fields, ["index", "time_s", "overlap", "matches", "inliers", "kept", "uncertain"]);
    assert_eq!(sampled[1]["uncertain"], Value::Null);
}

#[test]
fn people_are_told_why_each_frame_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    pan(folder.path());
    let output = keyframes(folder.path(), &["pan.mp4", "--max-frames", "4"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let reason = |start: &str| {
        let line = text.lines().find(|line| line.starts_with(start)).unwrap();
        line.rsplit_once("  ").unwrap().1.to_owned()
    };
    assert_eq!(reason("*       0 "), "kept: the first frame");
    assert_eq!(reason("       10 "), "covers 50.0 % or more of the last key frame");
    assert_eq!(reason("*      30 "), "kept: covers less than 50.0 % of the last key frame");
    assert_eq!(reason("       60 "), "thinned out to 4 key frames");
    assert_eq!(reason("*      99 "), "kept: the last frame");
    assert!(text.ends_with("key frames: 0 30 90 99\n\n"), "{text}");
}

#[test]
fn a_batch_goes_on_without_what_cannot_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let whole = std::fs::read(pan(folder.path())).unwrap();
    std::fs::write(at("short.mp4"), &whole[..whole.len() / 2]).unwrap();
    std::fs::write(at("empty.mp4"), "").unwrap();
    std::fs::write(at("text.mp4"), "this is no video").unwrap();
    ffmpeg("-f lavfi -i sine=r=8000:d=1 -c:a aac", &at("sound.mp4"));
    let videos = ["short.mp4", "empty.mp4", "text.mp4", "sound.mp4", "absent.mp4", "pan.mp4"];
    let output = keyframes(folder.path(), &[&videos[..], &["--json"]].concat());
    assert_eq!(output.status.code(), Some(1));
    let lines = lines(&output);
    assert_eq!(lines.len(), videos.len());
    let reasons = [
        "is truncated or damaged",
        "is empty",
        "is not a video",
        "has no video track, only audio",
        "cannot read",
    ];
    for ((line, video), reason) in lines.iter().zip(videos).zip(reasons) {
        let error = line["error"].as_str().unwrap();
        assert!(error.contains(video) && error.contains(reason), "{error}");
        assert_eq!(line["video"], video);
    }
    assert_eq!(lines[5]["frames"], 100);
}

#[test]
fn a_folder_is_looked_at_in_order_and_a_broken_video_costs_itself() {
    let folder = tempfile::tempdir().unwrap();
    let videos = folder.path().join("videos");
    std::fs::create_dir(&videos).unwrap();
    std::fs::copy(pan(folder.path()), videos.join("b.mp4")).unwrap();
    std::fs::write(videos.join("a.mp4"), "#EXTM3U\n#EXTINF:9,\nb.mp4\n").unwrap();
    std::fs::write(videos.join("notes.txt"), "no video, and not taken for one").unwrap();
    let output = keyframes(folder.path(), &["videos", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let [broken, whole] = lines(&output).try_into().unwrap();
    assert!(broken["error"].as_str().unwrap().contains("videos/a.mp4"), "{broken}");
    assert_eq!((&whole["video"], &whole["frames"]), (&"videos/b.mp4".into(), &100.into()));
}

#[test]
fn a_known_homography_is_found_between_two_pictures() {
    let folder = tempfile::tempdir().unwrap();
    let map = [0.9, -0.2, 50.0, 0.2, 0.95, -30.0, 2e-4, -1e-4, 1.0];
    picture(&folder.path().join("a.png"), SIZE, STILL);
    picture(&folder.path().join("b.png"), SIZE, map);
    let output = keyframes(folder.path(), &["--pair", "a.png", "b.png", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let [line] = lines(&output).try_into().unwrap();
    let fields: Vec<&String> = line.as_object().unwrap().keys().collect();
    assert_eq!(fields, ["homography", "overlap", "matches", "inliers", "uncertain"]);
    let found: Vec<f64> = serde_json::from_value(line["homography"].clone()).unwrap();
    assert_eq!(found[8], 1.0);
    for (x, y) in [(0.0, 0.0), (320.0, 0.0), (320.0, 240.0), (0.0, 240.0)] {
        let apply = |h: &[f64]| {
            let depth = h[6] * x + h[7] * y + h[8];
            ((h[0] * x + h[1] * y + h[2]) / depth, (h[3] * x + h[4] * y + h[5]) / depth)
        };
        let (seen, wanted) = (apply(&found), apply(&map));
        let error = (seen.0 - wanted.0).hypot(seen.1 - wanted.1);
        assert!(error < 1.0, "the corner {x}, {y} is {error} px off");
    }
}

#[test]
fn unrelated_pictures_have_no_homography() {
    let folder = tempfile::tempdir().unwrap();
    let elsewhere = [1.0, 0.0, 9000.0, 0.0, 1.0, 7000.0, 0.0, 0.0, 1.0];
    picture(&folder.path().join("a.png"), SIZE, STILL);
    picture(&folder.path().join("b.png"), SIZE, elsewhere);
    let output = keyframes(folder.path(), &["--pair", "a.png", "b.png", "--json"]);
    let [line] = lines(&output).try_into().unwrap();
    assert_eq!((&line["homography"], &line["overlap"]), (&Value::Null, &Value::Null));
    assert!(line["uncertain"].is_string(), "{line}");
    let told = keyframes(folder.path(), &["--pair", "a.png", "b.png"]).stdout;
    let told = String::from_utf8(told).unwrap();
    assert!(told.starts_with("uncertain how `b.png` lies over `a.png`"), "{told}");
}

#[test]
fn the_contact_sheet_shows_all_videos() {
    let folder = tempfile::tempdir().unwrap();
    pan(folder.path());
    let width_and_height = |videos: &[&str]| {
        let output = keyframes(folder.path(), &[videos, &["--contact-sheet", "s.png"]].concat());
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        image::image_dimensions(folder.path().join("s.png")).unwrap()
    };
    let one = width_and_height(&["pan.mp4"]);
    assert_eq!(width_and_height(&["pan.mp4", "pan.mp4"]), (one.0, 2 * one.1));
}

#[test]
fn wrong_usage_is_said_before_any_work() {
    let folder = tempfile::tempdir().unwrap();
    let refused = [
        (&["a.mp4", "--threshold", "50"][..], "`threshold` is 50"),
        (&["a.mp4", "--max-frames", "1", "--min-frames", "1"], "`max-frames` is 1"),
        (&["a.mp4", "--min-frames", "40"], "`min-frames` is 40, above `max-frames` of 32"),
        (&["a.mp4", "--contact-sheet", "a.gif"], "`a.gif` is no name of a PNG file"),
        (&["a.mp4", "--pair", "a.png", "b.png"], "cannot be used with"),
        (&["a.mp4", "--time-limit", "0"], "--time-limit"),
        (&["."], "holds no videos"),
        (&[], "required"),
    ];
    for (arguments, message) in refused {
        let output = keyframes(folder.path(), arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(stderr(&output).contains(message), "{}", stderr(&output));
    }
}

#[test]
fn without_ffmpeg_the_user_is_told_to_install_it() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.mp4"), "x").unwrap();
    let output = Command::new(binary())
        .args(["keyframes", "a.mp4"])
        .current_dir(folder.path())
        .env("PATH", folder.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("apt-get install ffmpeg"), "{}", stderr(&output));
}
