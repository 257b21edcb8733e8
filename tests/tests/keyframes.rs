//! `embodied-r keyframes` on small generated videos and images.

mod wrapper_scripts;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use embodied_r_tests::{binary, stderr, stdout};
use image::{GrayImage, Luma};
use serde_json::Value;

const SIZE: (u32, u32) = (320, 240);

/// An infinite, aperiodic texture.
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

/// An image of the texture under the homography `map`.
fn write_image(path: &Path, (width, height): (u32, u32), map: [f64; 9]) {
    let image = GrayImage::from_fn(width, height, |x, y| {
        let (x, y) = (f64::from(x), f64::from(y));
        let depth = map[6] * x + map[7] * y + map[8];
        let across = (map[0] * x + map[1] * y + map[2]) / depth;
        Luma([texture(across, (map[3] * x + map[4] * y + map[5]) / depth)])
    });
    image.save(path).unwrap();
}

const IDENTITY: [f64; 9] = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0];

fn ffmpeg(arguments: &str, output: &Path) {
    let status = Command::new("ffmpeg")
        .args(["-v", "error", "-nostdin", "-y"])
        .args(arguments.split_whitespace())
        .arg(output)
        .status()
        .expect("these tests need FFmpeg");
    assert!(status.success(), "ffmpeg {arguments}");
}

/// A 10 s video at 10 fps whose camera moves right by 6 pixels per frame.
fn pan(folder: &Path) -> PathBuf {
    let wide = folder.join("wide.png");
    write_image(&wide, (SIZE.0 + 600, SIZE.1), IDENTITY);
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

/// The JSON lines on standard output.
fn lines(output: &Output) -> Vec<Value> {
    stdout(output).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_pan_keeps_a_frame_whenever_half_of_the_view_is_new() {
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
fn the_text_says_why_each_frame_is_kept_or_dropped() {
    let folder = tempfile::tempdir().unwrap();
    pan(folder.path());
    let output = keyframes(folder.path(), &["pan.mp4", "--max-frames", "4"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let reason = |start: &str| {
        let line = text.lines().find(|line| line.starts_with(start)).unwrap();
        line.rsplit_once("  ").unwrap().1.to_owned()
    };
    assert_eq!(reason("*       0 "), "kept: the first frame");
    assert_eq!(reason("       10 "), "overlaps the last key frame by 50.0 % or more");
    assert_eq!(reason("*      30 "), "kept: overlaps the last key frame by less than 50.0 %");
    assert_eq!(reason("       60 "), "dropped to limit key frames to 4");
    assert_eq!(reason("*      99 "), "kept: the last frame");
    assert!(text.ends_with("key frames: 0 30 90 99\n\n"), "{text}");
}

#[test]
fn unreadable_videos_do_not_stop_a_batch() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let whole = std::fs::read(pan(folder.path())).unwrap();
    std::fs::write(at("short.mp4"), &whole[..whole.len() / 2]).unwrap();
    std::fs::write(at("empty.mp4"), "").unwrap();
    std::fs::write(at("text.mp4"), "not a video").unwrap();
    ffmpeg("-f lavfi -i sine=r=8000:d=1 -c:a aac", &at("sound.mp4"));
    let videos = ["short.mp4", "empty.mp4", "text.mp4", "sound.mp4", "absent.mp4", "pan.mp4"];
    let output = keyframes(folder.path(), &[&videos[..], &["--json"]].concat());
    assert_eq!(output.status.code(), Some(1));
    let lines = lines(&output);
    assert_eq!(lines.len(), videos.len());
    let reasons = [
        "is truncated or corrupt",
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
fn a_folder_is_processed_in_order_despite_a_broken_video() {
    let folder = tempfile::tempdir().unwrap();
    let videos = folder.path().join("videos");
    std::fs::create_dir(&videos).unwrap();
    std::fs::copy(pan(folder.path()), videos.join("b.mp4")).unwrap();
    std::fs::write(videos.join("a.mp4"), "#EXTM3U\n#EXTINF:9,\nb.mp4\n").unwrap();
    std::fs::write(videos.join("notes.txt"), "ignored: not a video").unwrap();
    let output = keyframes(folder.path(), &["videos", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let [broken, whole] = lines(&output).try_into().unwrap();
    assert!(broken["error"].as_str().unwrap().contains("videos/a.mp4"), "{broken}");
    assert_eq!((&whole["video"], &whole["frames"]), (&"videos/b.mp4".into(), &100.into()));
}

#[test]
fn a_known_homography_is_recovered_from_two_images() {
    let folder = tempfile::tempdir().unwrap();
    let map = [0.9, -0.2, 50.0, 0.2, 0.95, -30.0, 2e-4, -1e-4, 1.0];
    write_image(&folder.path().join("a.png"), SIZE, IDENTITY);
    write_image(&folder.path().join("b.png"), SIZE, map);
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
        let (found, expected) = (apply(&found), apply(&map));
        let error = (found.0 - expected.0).hypot(found.1 - expected.1);
        assert!(error < 1.0, "the corner {x}, {y} is {error} px off");
    }
}

#[test]
fn unrelated_images_have_no_homography() {
    let folder = tempfile::tempdir().unwrap();
    let far_away = [1.0, 0.0, 9000.0, 0.0, 1.0, 7000.0, 0.0, 0.0, 1.0];
    write_image(&folder.path().join("a.png"), SIZE, IDENTITY);
    write_image(&folder.path().join("b.png"), SIZE, far_away);
    let output = keyframes(folder.path(), &["--pair", "a.png", "b.png", "--json"]);
    let [line] = lines(&output).try_into().unwrap();
    assert_eq!((&line["homography"], &line["overlap"]), (&Value::Null, &Value::Null));
    assert!(line["uncertain"].is_string(), "{line}");
    let output = keyframes(folder.path(), &["--pair", "a.png", "b.png"]);
    let text = stdout(&output);
    assert!(text.starts_with("no reliable homography from `b.png` to `a.png`"), "{text}");
}

#[test]
fn the_contact_sheet_shows_all_videos() {
    let folder = tempfile::tempdir().unwrap();
    pan(folder.path());
    let sheet_size = |videos: &[&str]| {
        let output = keyframes(folder.path(), &[videos, &["--contact-sheet", "s.png"]].concat());
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        image::image_dimensions(folder.path().join("s.png")).unwrap()
    };
    let one = sheet_size(&["pan.mp4"]);
    assert_eq!(sheet_size(&["pan.mp4", "pan.mp4"]), (one.0, 2 * one.1));
}

#[test]
fn wrong_usage_is_reported_before_any_work() {
    let folder = tempfile::tempdir().unwrap();
    let refused = [
        (&["a.mp4", "--threshold", "50"][..], "`threshold` must be from 0 to 1, not 50"),
        (&["a.mp4", "--max-frames", "1", "--min-frames", "1"], "`max-frames` must be at least 2 "),
        (
            &["a.mp4", "--min-frames", "40"],
            "`min-frames` must be at most `max-frames`, not 40 (`max-frames` is 32)",
        ),
        (&["a.mp4", "--contact-sheet", "a.gif"], "`a.gif` must be a PNG file"),
        (&["a.mp4", "--pair", "a.png", "b.png"], "cannot be used with"),
        (&["a.mp4", "--time-limit", "0"], "--time-limit"),
        (&["."], "no videos in"),
        (&[], "required"),
    ];
    for (arguments, message) in refused {
        let output = keyframes(folder.path(), arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(stderr(&output).contains(message), "{}", stderr(&output));
    }
}

#[test]
fn without_ffmpeg_the_hint_says_how_to_install_it() {
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

#[test]
fn a_folder_that_links_to_its_parent_is_read_once() {
    let folder = tempfile::tempdir().unwrap();
    pan(folder.path());
    std::os::unix::fs::symlink(".", folder.path().join("again")).unwrap();
    let output = keyframes(folder.path(), &[".", "--json"]);
    let videos: Vec<Value> = lines(&output).iter().map(|line| line["video"].clone()).collect();
    assert_eq!(videos, ["./pan.mp4"]);
}

#[test]
fn times_of_a_variable_frame_rate_are_the_frames_timestamps() {
    let folder = tempfile::tempdir().unwrap();
    let timed = "setpts='if(lt(N,20),N*0.1,2+(N-20)*0.5)/TB'";
    ffmpeg(
        &format!("-f lavfi -i testsrc2=s=96x64:r=10 -frames:v 40 -vf {timed} -c:v libx264"),
        &folder.path().join("slow.mkv"),
    );
    let output = keyframes(folder.path(), &["slow.mkv", "--json"]);
    let line = &lines(&output)[0];
    let times = line["sampled"].as_array().unwrap().iter().map(|frame| &frame["time_s"]);
    let times: Vec<f64> = times.map(|time| time.as_f64().unwrap()).collect();
    assert_eq!(times, [0.0, 1.0, 2.0, 7.0, 11.5]);
}
