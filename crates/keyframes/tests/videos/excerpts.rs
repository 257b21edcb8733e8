//! Excerpts decode to the same frames as the whole video.

use std::path::{Path, PathBuf};

use embodied_r_keyframes::{KeyFrameOptions, select};
use embodied_r_video::{self as video, Limits};
use image::GrayImage;

use super::{ffmpeg, patterns};

const X264: &str = "-c:v libx264 -preset veryfast -pix_fmt yuv420p";

/// VP9 with hidden frames.
pub(super) const VP9: &str = "-c:v libvpx-vp9 -deadline good -cpu-used 8 -auto-alt-ref 1 \
                              -lag-in-frames 16 -g 24 -pix_fmt yuv420p";
pub(super) const LIBAOM: &str = "-c:v libaom-av1 -cpu-used 8 -g 24 -pix_fmt yuv420p";
pub(super) const SVT_AV1: &str = "-c:v libsvtav1 -preset 12 -g 24 -pix_fmt yuv420p";

/// The sampled frames with their indices, and the number of frames.
type Sampled = (Vec<(usize, GrayImage)>, usize);

fn whole(path: &Path, step: usize) -> Sampled {
    let mut frames = Vec::new();
    let count =
        video::sample(&video::probe(path).unwrap(), step, &Limits::default(), |i, frame| {
            frames.push((i, frame));
            Ok::<_, video::Error>(())
        });
    (frames, count.unwrap())
}

pub(super) fn excerpt(path: &Path, step: usize) -> Option<Sampled> {
    let mut frames = Vec::new();
    let video = video::probe(path).unwrap();
    let count = video::sample_excerpt(&video, step, &Limits::default(), |i, frame| {
        frames.push((i, frame));
        Ok::<_, video::Error>(())
    });
    Some((frames, count.unwrap()?))
}

/// Whether an excerpt was used; if so, asserts that its frames equal the whole video's.
pub(super) fn is_excerpted(path: &Path, step: usize) -> bool {
    let Some(excerpt) = excerpt(path, step) else { return false };
    let whole = whole(path, step);
    assert_eq!(excerpt.1, whole.1, "frames of {}", path.display());
    for (found, expected) in excerpt.0.iter().zip(&whole.0) {
        assert_eq!(found.0, expected.0);
        assert!(found.1 == expected.1, "frame {} of {} differs", found.0, path.display());
    }
    assert_eq!(excerpt.0.len(), whole.0.len());
    true
}

#[test]
fn frames_of_an_excerpt_are_bit_identical() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let recipes = [
        ("-g 12 -bf 0", "short.mp4"),
        ("-g 48 -bf 3 -x264-params b-pyramid=2", "pyramid.mp4"),
        ("-g 10 -bf 2 -movflags +faststart", "front.mp4"),
        ("-g 16 -f mov", "quicktime.mov"),
        ("-x264-params keyint=30:scenecut=0:ref=4:bframes=4", "references.mp4"),
    ];
    for (recipe, name) in recipes {
        let path = patterns(folder, &format!("{X264} {recipe}"), name);
        for step in [24, 7] {
            is_excerpted(&path, step);
        }
        assert!(is_excerpted(&path, 55), "{name} has a usable index");
    }
}

#[test]
fn other_codecs_have_excerpts_too() {
    let folder = tempfile::tempdir().unwrap();
    let x265 = "-c:v libx265 -preset ultrafast -tag:v hvc1 -x265-params \
                log-level=none:keyint=24:open-gop=0 -pix_fmt yuv420p10le";
    assert!(is_excerpted(&patterns(folder.path(), x265, "h265.mp4"), 50));
    for (codec, name) in [(VP9, "vp9.mp4"), (LIBAOM, "libaom.mp4"), (SVT_AV1, "svt.mp4")] {
        assert!(is_excerpted(&patterns(folder.path(), codec, name), 50), "{name}");
    }
}

#[test]
fn a_rotated_video_with_audio_and_odd_sides_has_an_excerpt() {
    let folder = tempfile::tempdir().unwrap();
    let codec = "-c:v libx264 -preset veryfast -pix_fmt yuv444p -g 24";
    let flat = ffmpeg(
        folder.path(),
        &format!(
            "-f lavfi -i testsrc2=s=162x122:r=24 -f lavfi -i sine=r=8000 -frames:v 120 -shortest \
             {codec} -c:a aac"
        ),
        "flat.mp4",
    );
    let rotate = format!("-i {} -c copy -metadata:s:v:0 rotate=90", flat.display());
    let rotated = ffmpeg(folder.path(), &rotate, "rotated.mp4");
    assert!(is_excerpted(&flat, 50));
    assert!(is_excerpted(&rotated, 50));
    let [flat, rotated] = [flat, rotated].map(|path| video::probe(&path).unwrap());
    assert_eq!((rotated.width, rotated.height), (flat.height, flat.width));
}

#[test]
fn ambiguous_files_are_decoded_completely() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let whole = patterns(folder, &format!("{X264} -g 12 -bf 2"), "whole.mp4");
    let copy = |before: &str, after: &str, name: &str| {
        ffmpeg(folder, &format!("{before} -i {} -c copy {after}", whole.display()), name)
    };
    let open = "-x264-params open-gop=1:keyint=24:bframes=3:scenecut=0";
    let uneven = "-vf settb=1/1000,setpts=N/24/TB+0.01*mod(N\\,3)/TB -enc_time_base 1:1000 \
                  -vsync passthrough -g 12";
    let ambiguous = [
        copy("-ss 1.3", "", "cut.mp4"),
        copy("", "-movflags frag_keyframe+empty_moov", "fragments.mp4"),
        copy("", "", "stream.ts"),
        patterns(folder, &format!("{X264} {open}"), "open.mp4"),
        patterns(folder, &format!("{X264} {uneven}"), "uneven.mp4"),
    ];
    for path in ambiguous {
        assert!(!is_excerpted(&path, 50), "{}", path.display());
        assert!(select(&path, &KeyFrameOptions::default()).unwrap().frames > 80);
    }
}

#[test]
fn a_damaged_excerpt_falls_back_to_the_whole_video() {
    let folder = tempfile::tempdir().unwrap();
    let path = patterns(folder.path(), &format!("{X264} -g 12 -movflags +faststart"), "a.mp4");
    let mut bytes = std::fs::read(&path).unwrap();
    let data = bytes.windows(4).position(|four| four == b"mdat").unwrap();
    for byte in bytes[data + 40..].iter_mut().step_by(50) {
        *byte ^= 0x55;
    }
    std::fs::write(&path, bytes).unwrap();
    assert!(excerpt(&path, 50).is_none());
}

#[test]
fn a_wrong_frame_size_in_the_index_falls_back_to_the_whole_video() {
    let folder = tempfile::tempdir().unwrap();
    let mp4 = patterns(folder.path(), &format!("{X264} -g 12"), "a.mp4");
    let mkv = patterns(folder.path(), &format!("{X264} -g 12"), "a.mkv");
    // The width of 160 and the height of 120, as each container writes them.
    let in_mp4: (&[u8], &[u8]) = (&[0, 160, 0, 120], &[0, 120, 0, 160]);
    let in_mkv: (&[u8], &[u8]) =
        (&[0xb0, 0x81, 160, 0xba, 0x81, 120], &[0xb0, 0x81, 120, 0xba, 0x81, 160]);
    for (path, (size, claimed)) in [(mp4, in_mp4), (mkv, in_mkv)] {
        assert!(is_excerpted(&path, 50));
        let mut bytes = std::fs::read(&path).unwrap();
        let at = bytes.windows(size.len()).rposition(|window| window == size).unwrap();
        bytes[at..at + size.len()].copy_from_slice(claimed);
        std::fs::write(&path, bytes).unwrap();
        assert!(excerpt(&path, 50).is_none(), "{}", path.display());
        let frames = video::frames(&path, &[50], None, &Limits::default()).unwrap();
        assert_eq!(frames[0].dimensions(), (160, 120));
    }
}

/// A clip in the two containers that support excerpts, and in one that does not.
fn in_three_containers(folder: &Path) -> ([PathBuf; 2], PathBuf) {
    let mp4 = patterns(folder, &format!("{X264} -g 12 -bf 2"), "a.mp4");
    let copy = |name: &str| ffmpeg(folder, &format!("-i {} -c copy", mp4.display()), name);
    let (mkv, stream) = (copy("a.mkv"), copy("a.ts"));
    ([mp4, mkv], stream)
}

#[test]
fn color_frames_of_an_excerpt_match_the_whole_video() {
    let folder = tempfile::tempdir().unwrap();
    let (excerpted, whole) = in_three_containers(folder.path());
    let indices = [64, 3, 119, 64];
    let whole = video::frames(&whole, &indices, Some(80), &Limits::default()).unwrap();
    for path in excerpted {
        let frames = video::frames(&path, &indices, Some(80), &Limits::default()).unwrap();
        assert!(frames == whole, "{}", path.display());
    }
}

#[test]
fn an_excerpt_selects_the_same_key_frames() {
    let folder = tempfile::tempdir().unwrap();
    let (excerpted, whole) = in_three_containers(folder.path());
    let chosen = |path: &Path| select(path, &KeyFrameOptions::default()).unwrap();
    let whole = chosen(&whole);
    for path in excerpted {
        let excerpted = chosen(&path);
        assert_eq!((excerpted.fps, excerpted.frames), (whole.fps, whole.frames));
        assert_eq!(excerpted.sampled, whole.sampled);
    }
}
