//! Small data sets whose values and frames are known.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use embodied_r_lerobot::{
    Camera, Column, VectorFeature, Version, VideoCodec, Writer, WriterOptions,
};
use image::{Rgb, RgbImage};

pub(crate) const CAMERA: &str = "observation.images.front";
pub(crate) const STATE: &str = "observation.state";

/// Frames of each episode; odd numbers, so that key frames are not all even.
pub(crate) const LENGTHS: [usize; 3] = [5, 8, 3];

/// The instruction of each episode.
pub(crate) const TASKS: [&str; 3] = ["push the button", "lift the lid", "push the button"];

pub(crate) fn options(version: Version, codec: VideoCodec) -> WriterOptions {
    let feature = |key: &str, names: &[&str]| VectorFeature {
        key: key.to_owned(),
        names: names.iter().map(|&name| name.to_owned()).collect(),
    };
    WriterOptions {
        version,
        fps: 10,
        robot_type: "panda".to_owned(),
        features: vec![feature(STATE, &["x", "y", "z"]), feature("action", &["gripper"])],
        camera: Camera { key: CAMERA.to_owned(), width: 64, height: 64 },
        codec,
    }
}

pub(crate) fn columns(episode: usize) -> BTreeMap<String, Column> {
    let frames = LENGTHS[episode];
    let value = |at: usize| f64::from((at as f32).sin() + episode as f32);
    let state = Column { width: 3, values: (0..3 * frames).map(value).collect() };
    let action = Column { width: 1, values: (0..frames).map(|at| (at % 2) as f64).collect() };
    BTreeMap::from([(STATE.to_owned(), state), ("action".to_owned(), action)])
}

/// The gray value of a frame.
pub(crate) fn gray(episode: usize, frame: usize) -> u8 {
    (40 + 60 * episode + 7 * frame) as u8
}

pub(crate) fn frames(episode: usize) -> impl Iterator<Item = RgbImage> {
    (0..LENGTHS[episode])
        .map(move |frame| RgbImage::from_pixel(64, 64, Rgb([gray(episode, frame); 3])))
}

/// Whether `image` is the frame, up to compression.
pub(crate) fn is_frame(image: &RgbImage, episode: usize, frame: usize) -> bool {
    let expected = gray(episode, frame);
    image.dimensions() == (64, 64)
        && image.pixels().all(|pixel| pixel.0.iter().all(|value| value.abs_diff(expected) <= 3))
}

/// Writes the three episodes to `folder/demos`.
pub(crate) fn write(folder: &Path, version: Version, codec: VideoCodec) -> PathBuf {
    let dir = folder.join("demos");
    let mut writer = Writer::create(&dir, options(version, codec)).unwrap();
    for (episode, task) in TASKS.into_iter().enumerate() {
        writer.episode(task, &columns(episode), frames(episode)).unwrap();
    }
    writer.finish().unwrap();
    dir
}

/// All files below `dir`, relative to it, with their bytes.
pub(crate) fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => {
                    let bytes = std::fs::read(&path).unwrap();
                    files.insert(path.strip_prefix(dir).unwrap().to_owned(), bytes);
                }
            }
        }
    }
    files
}
