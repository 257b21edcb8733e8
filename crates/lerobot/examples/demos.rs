//! Writes a small data set, or prints one as JSON. `scripts/parity/check_lerobot.py` compares both with LeRobot.
//!
//! ```sh
//! cargo run -p embodied-r-lerobot --example demos -- write DIR v3.0 av1
//! cargo run -p embodied-r-lerobot --example demos -- read DIR FRAMES
//! ```
//!
//! `read` writes the frames of all cameras to the file `FRAMES`, as RGB bytes: by camera, episode and frame.

#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;
use std::error::Error;
use std::io::Write as _;
use std::path::Path;

use embodied_r_lerobot::{
    Camera, Column, Dataset, VectorFeature, Version, VideoCodec, Writer, WriterOptions,
};
use image::{Rgb, RgbImage};
use serde_json::json;

/// Frames of each episode.
const LENGTHS: [usize; 4] = [7, 12, 5, 20];

const SIDE: u32 = 96;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["write", dir, version, codec] => {
            let version = if version == "v2.1" { Version::V21 } else { Version::V30 };
            let codec = if codec == "h264" { VideoCodec::H264 } else { VideoCodec::Av1 };
            write(dir.as_ref(), version, codec)
        }
        ["read", dir, frames] => read(dir.as_ref(), frames.as_ref()),
        _ => Err("usage: demos write DIR VERSION CODEC | demos read DIR FRAMES".into()),
    }
}

fn write(dir: &Path, version: Version, codec: VideoCodec) -> Result<(), Box<dyn Error>> {
    let feature = |key: &str, names: &[&str]| VectorFeature {
        key: key.to_owned(),
        names: names.iter().map(|&name| name.to_owned()).collect(),
    };
    let options = WriterOptions {
        version,
        fps: 10,
        robot_type: "panda".to_owned(),
        features: vec![
            feature("observation.state", &["x", "y", "z"]),
            feature("action", &["grip"]),
        ],
        camera: Camera { key: "observation.images.front".to_owned(), width: SIDE, height: SIDE },
        codec,
    };
    let mut writer = Writer::create(dir, options)?;
    for (episode, length) in LENGTHS.into_iter().enumerate() {
        let state = |at: usize| episode as f64 + (at / 3) as f64 / 8.0 + (at % 3) as f64 / 64.0;
        let state = Column { width: 3, values: (0..3 * length).map(state).collect() };
        let action = Column { width: 1, values: (0..length).map(|at| (at % 2) as f64).collect() };
        let columns = [("observation.state".to_owned(), state), ("action".to_owned(), action)];
        let frames = (0..length).map(|frame| image(episode, frame));
        writer.episode(
            ["push the button", "lift the lid"][episode % 2],
            &columns.into(),
            frames,
        )?;
    }
    Ok(writer.finish()?)
}

/// A gradient with a white square that moves.
fn image(episode: usize, frame: usize) -> RgbImage {
    RgbImage::from_fn(SIDE, SIDE, |x, y| {
        let (left, top) = (4 * frame as u32, 20 * episode as u32);
        match (left..left + 12).contains(&x) && (top..top + 12).contains(&y) {
            true => Rgb([255; 3]),
            false => Rgb([2 * x as u8, 2 * y as u8, 60 * episode as u8]),
        }
    })
}

fn read(dir: &Path, frames: &Path) -> Result<(), Box<dyn Error>> {
    let dataset = Dataset::open(dir)?;
    let mut out = std::io::BufWriter::new(std::fs::File::create(frames)?);
    for camera in dataset.cameras() {
        for episode in dataset.episodes() {
            let all: Vec<usize> = (0..episode.length).collect();
            for image in dataset.frames(camera, episode.index, &all)? {
                out.write_all(image.as_raw())?;
            }
        }
    }
    out.flush()?;
    let columns: Vec<&str> = dataset
        .features()
        .iter()
        .filter(|(_, feature)| {
            feature.dtype.starts_with("float") || feature.dtype.starts_with("int")
        })
        .map(|(key, _)| key.as_str())
        .collect();
    dataset.read_episodes(&columns, |episode| {
        let columns: BTreeMap<&String, &Vec<f64>> =
            episode.columns.iter().map(|(key, column)| (key, &column.values)).collect();
        let tasks: Vec<&str> = episode.tasks.iter().map(|span| span.task.as_str()).collect();
        let (index, task, timestamps) = (episode.index, tasks.join("|"), &episode.timestamps);
        println!(
            "{}",
            json!({ "index": index, "task": task, "timestamps": timestamps, "columns": columns })
        );
        Ok::<_, embodied_r_lerobot::Error>(())
    })?;
    Ok(())
}
