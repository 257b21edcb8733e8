//! Excerpts of Matroska and WebM files decode to the same frames as the whole file.

use std::ops::Range;

use embodied_r_keyframes::{KeyFrameOptions, select};
use embodied_r_video as video;

use super::excerpts::{LIBAOM, SVT_AV1, VP9, excerpt, is_excerpted};
use super::{ffmpeg, patterns};

const X264: &str = "-c:v libx264 -preset veryfast -pix_fmt yuv420p";
const VP8: &str = "-c:v libvpx -deadline realtime -cpu-used 8 -g 24 -pix_fmt yuv420p";

const SEGMENT: u32 = 0x1853_8067;
const CLUSTER: u32 = 0x1f43_b675;
const SIMPLE_BLOCK: u32 = 0xa3;

#[test]
fn frames_of_an_excerpt_are_bit_identical() {
    let folder = tempfile::tempdir().unwrap();
    let x265 = "-c:v libx265 -preset ultrafast -pix_fmt yuv420p10le -x265-params \
                log-level=none:keyint=24:open-gop=0:bframes=3";
    let recipes = [
        (format!("{X264} -g 12 -bf 0"), "short.mkv"),
        (format!("{X264} -g 48 -bf 3 -x264-params b-pyramid=2"), "pyramid.mkv"),
        (format!("{X264} -x264-params keyint=30:scenecut=0:ref=4:bframes=4"), "references.mkv"),
        // Clusters of a quarter of a second, so that GOPs span several.
        (format!("{X264} -g 16 -bf 2 -cluster_time_limit 250"), "clusters.mkv"),
        (x265.to_owned(), "h265.mkv"),
        (VP8.to_owned(), "vp8.webm"),
        (VP9.to_owned(), "vp9.webm"),
        (VP9.to_owned(), "vp9.mkv"),
        (SVT_AV1.to_owned(), "svt.webm"),
        (LIBAOM.to_owned(), "libaom.mkv"),
    ];
    for (recipe, name) in recipes {
        let path = patterns(folder.path(), &recipe, name);
        for step in [24, 7] {
            is_excerpted(&path, step);
        }
        assert!(is_excerpted(&path, 55), "{name} has a usable index");
    }
}

#[test]
fn audio_and_fractional_rates_are_supported() {
    let folder = tempfile::tempdir().unwrap();
    let source = "-f lavfi -i testsrc2=s=162x122:r=30000/1001 -f lavfi -i sine=r=8000";
    let with_vorbis = format!("{X264} -g 24 -c:a libvorbis");
    let with_opus = format!("{VP9} -c:a libopus");
    for (codecs, name) in [(with_vorbis, "a.mkv"), (with_opus, "a.webm")] {
        let made = format!("{source} -frames:v 150 -shortest {codecs}");
        let path = ffmpeg(folder.path(), &made, name);
        assert!(is_excerpted(&path, 60), "{name}");
        let video = video::probe(&path).unwrap();
        assert_eq!((video.fps.numerator, video.fps.denominator), (30_000, 1001));
        assert_eq!((video.width, video.height), (162, 122));
    }
}

#[test]
fn block_groups_with_additions_are_parsed() {
    let folder = tempfile::tempdir().unwrap();
    let alpha = "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -g 24 -pix_fmt yuva420p \
                 -auto-alt-ref 0";
    let path = patterns(folder.path(), alpha, "alpha.webm");
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!(blocks(&bytes, SIMPLE_BLOCK).len(), 0);
    assert!(is_excerpted(&path, 55));
}

#[test]
fn ambiguous_files_are_decoded_completely() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let closed = format!("{X264} -g 12 -bf 2");
    let open = "-x264-params open-gop=1:keyint=24:bframes=3:scenecut=0";
    let open_265 = "-c:v libx265 -preset ultrafast -pix_fmt yuv420p -x265-params \
                    log-level=none:keyint=24:open-gop=1:bframes=3";
    let refresh = "-x264-params intra-refresh=1:keyint=24:scenecut=0";
    let uneven = "-vf settb=1/1000,setpts=N/24/TB+0.01*mod(N\\,3)/TB -enc_time_base 1:1000 \
                  -vsync passthrough -g 12";
    let whole = patterns(folder, &closed, "whole.mkv");
    let copy =
        |after: &str, name: &str| ffmpeg(folder, &format!("-i {} {after}", whole.display()), name);
    let ambiguous = [
        patterns(folder, &format!("{X264} {open}"), "open.mkv"),
        patterns(folder, open_265, "open265.mkv"),
        patterns(folder, &format!("{X264} {refresh}"), "refresh.mkv"),
        patterns(folder, &format!("{X264} {uneven}"), "uneven.mkv"),
        copy("-c copy -live 1", "live.mkv"),
        copy("-c copy -map 0 -map 0", "twice.mkv"),
    ];
    for path in ambiguous {
        assert!(!is_excerpted(&path, 50), "{}", path.display());
        assert!(select(&path, &KeyFrameOptions::default()).unwrap().frames > 80);
    }
    assert!(is_excerpted(&whole, 50));
}

#[test]
fn hidden_frames_are_not_counted() {
    let folder = tempfile::tempdir().unwrap();
    let hidden = "-c:v libvpx -deadline good -cpu-used 5 -auto-alt-ref 1 -lag-in-frames 16 -g 24 \
                  -b:v 100k -pix_fmt yuv420p";
    patterns(folder.path(), &format!("{hidden} -pass 1"), "first.webm");
    let path = patterns(folder.path(), &format!("{hidden} -pass 2"), "hidden.webm");
    let bytes = std::fs::read(&path).unwrap();
    assert!(blocks(&bytes, SIMPLE_BLOCK).len() > 120);
    assert!(!is_excerpted(&path, 55));
    assert_eq!(select(&path, &KeyFrameOptions::default()).unwrap().frames, 120);
}

#[test]
fn a_hidden_frame_outside_the_excerpt_is_detected() {
    let folder = tempfile::tempdir().unwrap();
    let path = patterns(folder.path(), VP8, "a.webm");
    let mut bytes = std::fs::read(&path).unwrap();
    let frame = blocks(&bytes, SIMPLE_BLOCK)[30].start + 4;
    assert_eq!(bytes[frame] & 0x11, 0x11, "not a key frame, and shown");
    bytes[frame] &= !0x10;
    std::fs::write(&path, bytes).unwrap();
    assert!(excerpt(&path, 55).is_none());
}

#[test]
fn a_damaged_excerpt_falls_back_to_the_whole_video() {
    let folder = tempfile::tempdir().unwrap();
    let path = patterns(folder.path(), &format!("{X264} -g 12"), "a.mkv");
    let mut bytes = std::fs::read(&path).unwrap();
    for block in blocks(&bytes, SIMPLE_BLOCK) {
        for byte in bytes[block].iter_mut().skip(40).step_by(50) {
            *byte ^= 0x55;
        }
    }
    std::fs::write(&path, bytes).unwrap();
    assert!(excerpt(&path, 50).is_none());
}

#[test]
fn a_truncated_file_is_decoded_completely() {
    let folder = tempfile::tempdir().unwrap();
    let path = patterns(folder.path(), &format!("{X264} -g 12"), "a.mkv");
    let bytes = std::fs::read(&path).unwrap();
    for cut in [1, 100, bytes.len() / 2, bytes.len() - 1000] {
        std::fs::write(&path, &bytes[..bytes.len() - cut]).unwrap();
        let video = video::probe(&path);
        assert!(video.is_err() || excerpt(&path, 50).is_none(), "without {cut} bytes");
    }
}

#[test]
fn a_block_falsely_marked_as_key_frame_is_detected() {
    let folder = tempfile::tempdir().unwrap();
    let path = patterns(folder.path(), &format!("{X264} -g 40 -bf 0 -sc_threshold 0"), "a.mkv");
    let mut bytes = std::fs::read(&path).unwrap();
    let flags = blocks(&bytes, SIMPLE_BLOCK)[50].start + 3;
    bytes[flags] |= 0x80;
    std::fs::write(&path, &bytes).unwrap();
    assert!(excerpt(&path, 55).is_none());
}

/// Single bits of the index are flipped: the frames stay those of the whole file.
#[test]
fn a_corrupt_index_never_changes_the_frames() {
    let folder = tempfile::tempdir().unwrap();
    let source = "-f lavfi -i testsrc2=s=64x48:r=24 -frames:v 24";
    let codec = format!("{X264} -g 4 -bf 2 -cluster_time_limit 250");
    let path = ffmpeg(folder.path(), &format!("{source} {codec}"), "small.mkv");
    let whole = std::fs::read(&path).unwrap();
    assert!(is_excerpted(&path, 11));
    let frames = blocks(&whole, SIMPLE_BLOCK);
    let is_index =
        |at: &usize| !frames.iter().any(|frame| (frame.start + 4..frame.end).contains(at));
    let positions: Vec<usize> = (0..whole.len()).filter(is_index).collect();
    let mut state = 7u64;
    let mut random = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    };
    let mut excerpted = 0;
    for _ in 0..50 {
        let mut bytes = whole.clone();
        bytes[positions[random() % positions.len()]] ^= 1 << (random() % 8);
        std::fs::write(&path, bytes).unwrap();
        excerpted += usize::from(video::probe(&path).is_ok() && is_excerpted(&path, 11));
    }
    assert!((5..45).contains(&excerpted), "{excerpted} excerpts");
}

/// The byte ranges of the bodies of elements with the ID `kind`.
fn blocks(file: &[u8], kind: u32) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < file.len() {
        let id_bytes = file[at].leading_zeros() as usize + 1;
        let id = file[at..at + id_bytes].iter().fold(0, |id, byte| id << 8 | u32::from(*byte));
        at += id_bytes;
        let length_bytes = file[at].leading_zeros() as usize + 1;
        let length =
            file[at..at + length_bytes].iter().fold(0, |all, byte| all << 8 | usize::from(*byte));
        let length = length & ((1 << (7 * length_bytes)) - 1);
        at += length_bytes;
        if id == kind {
            found.push(at..at + length);
        }
        // Descend into segments and clusters.
        if id != SEGMENT && id != CLUSTER {
            at += length;
        }
    }
    found
}
