use std::collections::BTreeMap;

use image::{Rgb, RgbImage};

use super::*;
use crate::{Dataset, Error};

/// A data set of v3.0 with episodes of four frames of noise.
fn written(folder: &Path, codec: VideoCodec, data_bytes: u64, video_bytes: u64) -> Dataset {
    let feature = VectorFeature { key: "action".to_owned(), names: vec!["x".to_owned()] };
    let options = WriterOptions {
        version: Version::V30,
        fps: 30,
        robot_type: "panda".to_owned(),
        features: vec![feature],
        camera: Camera { key: "front".to_owned(), width: 32, height: 32 },
        codec,
    };
    let dir = folder.join("demos");
    let mut writer = Writer::create(&dir, options).unwrap();
    writer.data.set_max_bytes(data_bytes);
    writer.videos.set_max_bytes(video_bytes);
    for episode in 0..5_u8 {
        let column = Column { width: 1, values: vec![f64::from(episode); 4] };
        let columns = BTreeMap::from([("action".to_owned(), column)]);
        let frame = RgbImage::from_pixel(32, 32, Rgb([40 * episode; 3]));
        writer.episode("push", &columns, std::iter::repeat_n(frame, 4)).unwrap();
    }
    writer.finish().unwrap();
    Dataset::open(&dir).unwrap()
}

#[test]
fn files_of_v30_end_before_their_size_is_exceeded() {
    let folder = tempfile::tempdir().unwrap();
    // A row has 40 bytes, a stream some hundred.
    let dataset = written(folder.path(), VideoCodec::H264, 2 * 4 * 40, 1);
    let files = |path: &str| fs::read_dir(folder.path().join("demos").join(path)).unwrap().count();
    assert_eq!((files("data/chunk-000"), files("videos/front/chunk-000")), (3, 5));
    let mut values = Vec::new();
    dataset
        .read_episodes(&["action"], |episode| {
            values.push(episode.columns["action"].values[3]);
            Ok::<_, Error>(())
        })
        .unwrap();
    assert_eq!(values, [0.0, 1.0, 2.0, 3.0, 4.0]);
    for episode in 0..5 {
        let frame = &dataset.frames("front", episode, &[3]).unwrap()[0];
        assert!(frame.get_pixel(9, 9).0[0].abs_diff(40 * episode as u8) <= 3, "{episode}");
    }
}

#[test]
fn episodes_share_a_file_up_to_its_size() {
    let folder = tempfile::tempdir().unwrap();
    written(folder.path(), VideoCodec::H264, 1 << 20, 1 << 20);
    let files = |path: &str| fs::read_dir(folder.path().join("demos").join(path)).unwrap().count();
    assert_eq!((files("data/chunk-000"), files("videos/front/chunk-000")), (1, 1));
}

#[test]
fn frames_too_small_for_svt_av1_are_encoded_by_another_encoder() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = written(folder.path(), VideoCodec::Av1, 1 << 20, 1 << 20);
    let frame = &dataset.frames("front", 3, &[2]).unwrap()[0];
    assert!(frame.get_pixel(9, 9).0[0].abs_diff(120) <= 3);
}
