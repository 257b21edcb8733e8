//! Clips that are hard to compare or to sample.

use std::path::Path;

use embodied_r_keyframes::{HomographyFailure, KeyFrameOptions, Selection};

use super::{ffmpeg, patterns};

const X264: &str = "-c:v libx264 -preset ultrafast -pix_fmt yuv420p";

fn select(path: &Path) -> Selection {
    embodied_r_keyframes::select(path, &KeyFrameOptions::default()).unwrap()
}

/// The key frames of 6 s of a source with a filter, at 10 fps.
fn of_source(source: &str, filter: &str) -> Selection {
    let folder = tempfile::tempdir().unwrap();
    let arguments = format!("-f lavfi -i {source} -vf {filter} -frames:v 60 {X264}");
    select(&ffmpeg(folder.path(), &arguments, "a.mp4"))
}

/// The homography failures of all sampled frames but the first.
fn failures(selection: &Selection) -> Vec<Option<HomographyFailure>> {
    selection.sampled[1..].iter().map(|frame| frame.uncertain).collect()
}

#[test]
fn frames_without_texture_are_kept_as_uncertain() {
    let plain = of_source("color=gray:s=320x240:r=10", "null");
    assert_eq!(plain.keyframes, [0, 10, 20, 30, 40, 50, 59]);
    assert_eq!(failures(&plain), [Some(HomographyFailure::FewMatches); 6]);
}

#[test]
fn dark_frames_are_kept_as_uncertain() {
    let dark = of_source("color=black:s=320x240:r=10", "noise=alls=4:allf=t");
    assert_eq!(dark.keyframes.len(), dark.sampled.len());
    assert!(failures(&dark).iter().all(Option::is_some));
}

#[test]
fn pure_noise_has_no_homography() {
    let noise = of_source("color=gray:s=320x240:r=10", "noise=alls=100:allf=t");
    assert!(failures(&noise).iter().all(Option::is_some), "{:?}", noise.sampled);
}

#[test]
fn a_still_video_keeps_the_minimum() {
    // The first frame of a fractal, looped.
    let still = of_source("mandelbrot=s=320x240:r=10", "loop=loop=-1:size=1");
    assert_eq!(still.keyframes, [0, 20, 40, 59]);
    assert!(still.sampled[1..].iter().all(|frame| frame.overlap.unwrap() > 0.999));
}

#[test]
fn dark_phases_of_a_strobe_light_are_uncertain() {
    // Every other second is black.
    let strobe = of_source(
        "mandelbrot=s=320x240:r=10",
        "loop=loop=-1:size=1,geq=lum='if(mod(floor(N/10),2),16,lum(X,Y))'",
    );
    assert_eq!(failures(&strobe)[..3], [Some(HomographyFailure::FewMatches); 3]);
}

#[test]
fn ten_bit_hdr_video_is_compared_like_any_other() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = "-f lavfi -i mandelbrot=s=320x240:r=10 -vf loop=loop=-1:size=1 -frames:v 40 \
                     -c:v libx265 -preset ultrafast -tag:v hvc1 -pix_fmt yuv420p10le -x265-params \
                     log-level=none -color_primaries bt2020 -color_trc smpte2084 -colorspace \
                     bt2020nc";
    let selection = select(&ffmpeg(folder.path(), arguments, "hdr.mp4"));
    assert_eq!(selection.sampled.len(), 5);
    assert!(selection.sampled[1..].iter().all(|frame| frame.overlap.unwrap() > 0.99));
}

#[test]
fn variable_frame_rates_are_sampled_by_index() {
    let folder = tempfile::tempdir().unwrap();
    let uneven = "settb=1/1000,setpts=N/24/TB+0.01*mod(N\\,3)/TB -enc_time_base 1:1000";
    let codec = format!("-vf {uneven} -vsync passthrough {X264}");
    for name in ["uneven.mp4", "uneven.mkv"] {
        let selection = select(&patterns(folder.path(), &codec, name));
        assert_eq!(selection.frames, 120, "{name}");
        assert_eq!(*selection.keyframes.last().unwrap(), 119, "{name}");
    }
}

#[test]
fn small_and_odd_frame_sizes_are_supported() {
    let folder = tempfile::tempdir().unwrap();
    for size in ["16x16", "17x300", "301x19", "45x45", "97x131"] {
        let arguments = format!(
            "-f lavfi -i testsrc2=s={size}:r=10 -frames:v 25 -c:v libx264 -preset ultrafast -pix_fmt \
             yuv444p"
        );
        let selection = select(&ffmpeg(folder.path(), &arguments, "odd.mp4"));
        assert_eq!(selection.frames, 25, "{size}");
        assert_eq!(selection.keyframes, [0, 10, 20, 24], "{size}");
    }
}

#[test]
fn missing_or_extreme_frame_rates_keep_the_ends() {
    let folder = tempfile::tempdir().unwrap();
    // A raw stream states no rate; at 1000 fps the clip is shorter than a second.
    let raw = select(&patterns(folder.path(), &format!("{X264} -f h264"), "raw.h264"));
    assert_eq!((raw.frames, raw.sampled.last().unwrap().index), (120, 119));
    let source = "-f lavfi -i testsrc2=s=96x64:r=1000 -frames:v 300";
    let fast = select(&ffmpeg(folder.path(), &format!("{source} {X264}"), "fast.mp4"));
    assert_eq!((fast.frames, fast.keyframes.as_slice()), (300, [0, 299].as_slice()));
    let lapse = "-f lavfi -i testsrc2=s=96x64:r=1/60 -frames:v 9";
    let slow = select(&ffmpeg(folder.path(), &format!("{lapse} {X264}"), "slow.mp4"));
    assert_eq!((slow.frames, slow.sampled.len()), (9, 9));
}

#[test]
fn two_hours_of_video_are_sampled() {
    let folder = tempfile::tempdir().unwrap();
    let source = "-f lavfi -i testsrc=s=64x48:r=1 -frames:v 7200";
    let selection = select(&ffmpeg(folder.path(), &format!("{source} {X264}"), "long.mp4"));
    assert_eq!((selection.frames, selection.sampled.len()), (7200, 7200));
    assert!((4..=32).contains(&selection.keyframes.len()));
}
