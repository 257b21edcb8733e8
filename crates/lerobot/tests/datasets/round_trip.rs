//! What the writer writes, the reader reads.

use std::collections::BTreeMap;
use std::sync::Mutex;

use embodied_r_lerobot::{Dataset, Error, FrameId, TaskSpan, Version, VideoCodec, Writer};
use image::RgbImage;

use crate::demos::{
    CAMERA, LENGTHS, STATE, TASKS, columns, files, frames, gray, is_frame, options, write,
};

const ALL: [(Version, VideoCodec); 4] = [
    (Version::V21, VideoCodec::H264),
    (Version::V21, VideoCodec::Av1),
    (Version::V30, VideoCodec::H264),
    (Version::V30, VideoCodec::Av1),
];

#[test]
fn metadata_and_columns_round_trip() {
    for (version, codec) in ALL {
        let folder = tempfile::tempdir().unwrap();
        let dataset = Dataset::open(&write(folder.path(), version, codec)).unwrap();
        assert_eq!((dataset.version(), dataset.fps()), (version, 10.0));
        assert_eq!((dataset.robot_type(), dataset.cameras()), (Some("panda"), vec![CAMERA]));
        let state = &dataset.features()[STATE];
        assert_eq!(
            (state.dtype.as_str(), state.names.as_ref().unwrap().join(" ")),
            ("float32", "x y z".to_owned())
        );
        for (info, (length, task)) in dataset.episodes().iter().zip(LENGTHS.into_iter().zip(TASKS))
        {
            assert_eq!((info.length, &info.tasks[..]), (length, &[task.to_owned()][..]));
        }
        let mut seen = 0;
        dataset
            .read_episodes(&[STATE, "action"], |episode| {
                let task = TaskSpan { start: 0, task: TASKS[seen].to_owned() };
                assert_eq!((episode.index, episode.tasks), (seen, vec![task]));
                assert_eq!(episode.columns, columns(seen));
                let times: Vec<f64> =
                    (0..LENGTHS[seen]).map(|it| f64::from(it as f32 / 10.0)).collect();
                assert_eq!(episode.timestamps, times);
                seen += 1;
                Ok::<_, Error>(())
            })
            .unwrap();
        assert_eq!(seen, 3);
    }
}

#[test]
fn frames_are_those_that_were_written() {
    for (version, codec) in ALL {
        let folder = tempfile::tempdir().unwrap();
        let dataset = Dataset::open(&write(folder.path(), version, codec)).unwrap();
        dataset.check_camera(CAMERA).unwrap();
        for (episode, length) in LENGTHS.into_iter().enumerate() {
            let all: Vec<usize> = (0..length).rev().collect();
            let images = dataset.frames(CAMERA, episode, &all).unwrap();
            assert_eq!(images.len(), length);
            for (image, frame) in images.iter().zip(all) {
                assert!(
                    is_frame(image, episode, frame),
                    "{version:?} {codec:?} {episode} {frame} {:?}",
                    image.get_pixel(0, 0)
                );
            }
        }
    }
}

#[test]
fn frames_of_several_episodes_are_passed_on_once_with_their_positions() {
    for version in [Version::V21, Version::V30] {
        let folder = tempfile::tempdir().unwrap();
        let dataset = Dataset::open(&write(folder.path(), version, VideoCodec::H264)).unwrap();
        let id = |episode, frame| FrameId { episode, frame };
        let wanted = [id(2, 2), id(0, 4), id(1, 7), id(0, 4), id(1, 0), id(2, 0)];
        let seen: Mutex<BTreeMap<usize, RgbImage>> = Mutex::default();
        dataset
            .for_each_frame(CAMERA, &wanted, |position, image| {
                assert!(seen.lock().unwrap().insert(position, image).is_none());
                Ok::<_, Error>(())
            })
            .unwrap();
        let seen = seen.into_inner().unwrap();
        assert_eq!(seen.len(), wanted.len());
        for (position, image) in &seen {
            let FrameId { episode, frame } = wanted[*position];
            assert!(is_frame(image, episode, frame), "{version:?} {position}");
        }
    }
}

#[test]
fn an_error_of_the_receiver_ends_the_work() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = Dataset::open(&write(folder.path(), Version::V21, VideoCodec::H264)).unwrap();
    let stop = || Error::NoFrame { episode: 7, frame: 7, reason: "stop".to_owned() };
    let wanted = [FrameId { episode: 0, frame: 0 }];
    let error = dataset.for_each_frame(CAMERA, &wanted, |_, _| Err(stop())).unwrap_err();
    assert!(error.to_string().contains("stop"), "{error}");
    let mut calls = 0;
    let error = dataset.read_episodes(&[], |_| {
        calls += 1;
        Err(stop())
    });
    assert!(error.is_err() && calls == 1);
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    for (version, codec) in ALL {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let [a, b] = folders.each_ref().map(|folder| files(&write(folder.path(), version, codec)));
        assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
        assert!(a == b, "{version:?} {codec:?}");
    }
}

#[test]
fn an_unfinished_data_set_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("demos");
    let mut writer = Writer::create(&dir, options(Version::V30, VideoCodec::H264)).unwrap();
    writer.episode("push", &columns(0), frames(0)).unwrap();
    assert!(!dir.exists());
    drop(writer);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_folder_with_files_is_not_written_to() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("mine"), "mine").unwrap();
    let options = options(Version::V30, VideoCodec::H264);
    let error = Writer::create(folder.path(), options.clone()).unwrap_err();
    assert!(matches!(error, Error::NotEmpty { .. }), "{error}");
    let empty = folder.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let mut writer = Writer::create(&empty, options).unwrap();
    writer.episode("push", &columns(0), frames(0)).unwrap();
    writer.finish().unwrap();
    assert!(Dataset::open(&empty).is_ok());
}

#[test]
fn wrong_episodes_are_refused_with_the_field() {
    let folder = tempfile::tempdir().unwrap();
    let refusal = |task: &str,
                   change: &dyn Fn(&mut BTreeMap<String, embodied_r_lerobot::Column>),
                   frame_count: usize| {
        let dir = folder.path().join("demos");
        let mut writer = Writer::create(&dir, options(Version::V30, VideoCodec::H264)).unwrap();
        let mut columns = columns(0);
        change(&mut columns);
        let frames = frames(0).cycle_to(frame_count);
        let error = writer.episode(task, &columns, frames).unwrap_err().to_string();
        assert!(writer.finish().is_err());
        error
    };
    let none = |_: &mut BTreeMap<_, _>| {};
    for (error, expected) in [
        (refusal(" ", &none, 5), "`task` of episode 0 is empty"),
        (refusal("a", &none, 4), "`observation.images.front` of episode 0 has 4 frames"),
        (refusal("a", &none, 6), "has more frames than the 5"),
        (refusal("a", &|it| drop(it.remove("action")), 5), "`action` of episode 0 is missing"),
        (
            refusal("a", &|it| it.get_mut(STATE).unwrap().width = 5, 5),
            "has 5 values per frame, not 3",
        ),
        (
            refusal("a", &|it| it.get_mut(STATE).unwrap().values.truncate(12), 5),
            "`action` of episode 0 has 5 frames, but the first feature 4",
        ),
        (refusal("a", &|it| it.get_mut(STATE).unwrap().values.truncate(13), 5), "13 values"),
        (
            refusal("a", &|it| it.get_mut(STATE).unwrap().values[4] = f64::NAN, 5),
            "is NaN at frame 1",
        ),
        (
            refusal("a", &|it| drop(it.insert("x".into(), it["action"].clone())), 5),
            "`x` of episode 0 is none",
        ),
    ] {
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn wrong_options_are_refused_with_the_option() {
    let folder = tempfile::tempdir().unwrap();
    let refusal = |change: &dyn Fn(&mut embodied_r_lerobot::WriterOptions)| {
        let mut options = options(Version::V30, VideoCodec::H264);
        change(&mut options);
        Writer::create(&folder.path().join("demos"), options).unwrap_err().to_string()
    };
    for (error, expected) in [
        (refusal(&|it| it.fps = 0), "`fps`"),
        (refusal(&|it| it.features.clear()), "`features`"),
        (refusal(&|it| it.features[0].names.clear()), "`observation.state`"),
        (refusal(&|it| it.features[0].key = "action".to_owned()), "`action`"),
        (refusal(&|it| it.features[0].key = "timestamp".to_owned()), "`timestamp`"),
        (refusal(&|it| it.camera.key = "../front".to_owned()), "cannot be the name of a folder"),
        (refusal(&|it| it.camera.width = 31), "31 × 64 pixels"),
    ] {
        assert!(error.contains(expected), "{error}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn frames_are_distinct_enough_for_these_tests() {
    let grays: Vec<u8> =
        (0..3).flat_map(|it| (0..LENGTHS[it]).map(move |frame| gray(it, frame))).collect();
    for (at, a) in grays.iter().enumerate() {
        assert!(grays[..at].iter().all(|b| a.abs_diff(*b) > 3), "{a}");
    }
}

/// An iterator that starts again until it has given `count` items.
trait CycleTo: Iterator<Item = RgbImage> + Sized {
    fn cycle_to(self, count: usize) -> impl Iterator<Item = RgbImage> {
        let images: Vec<RgbImage> = self.collect();
        images.into_iter().cycle().take(count)
    }
}

impl<I: Iterator<Item = RgbImage>> CycleTo for I {}
