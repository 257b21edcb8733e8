//! Demonstrations as a LeRobot data set, with the questions of the bench beside it.
//!
//! ```text
//! OUT/meta, data, videos         the LeRobot data set
//! OUT/annotations.jsonl          plan and subtasks of each episode
//! OUT/bench.json, bench/*.png    questions about other demonstrations, with true answers
//! OUT/arm.json                   the settings
//! ```
//! All is written to a hidden folder beside `OUT` and renamed when it is complete.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use embodied_r_data::Progress;
use embodied_r_files::{Error as FileError, Staging, read_text, write_json, write_lines};
use embodied_r_lerobot::{
    Camera, Column, VectorFeature, Version, VideoCodec, Writer, WriterOptions,
};
use image::RgbImage;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::bench::bench_frame;
use super::demonstration::{Demonstration, Step, demonstration};
use super::render::Renderer;
use super::task::{Task, UnknownTask};
use super::{FPS, JOINTS};
use crate::error::{Error, Result};
use crate::views::write_png_of_size;

/// Width and height of the frames in pixels, as in Robot-R1.
pub const IMAGE_SIZE: (usize, usize) = (224, 224);

/// The robot's name in the data set.
const ROBOT_TYPE: &str = "franka-sim";
const STATE: &str = "observation.state";
const VELOCITY: &str = "observation.joint_velocity";
const ACTION: &str = "action";
const CAMERA: &str = "observation.images.front";
const STATE_NAMES: [&str; 8] = ["x", "y", "z", "qx", "qy", "qz", "qw", "gripper"];
/// The file of plans and subtasks.
const ANNOTATIONS: &str = "annotations.jsonl";
/// The file of the settings.
const SETTINGS: &str = "arm.json";

/// What to generate.
#[derive(Debug, Clone, PartialEq)]
pub struct ArmOptions {
    /// The tasks of the demonstrations.
    pub tasks: Vec<Task>,
    /// Demonstrations per task.
    pub episodes: u64,
    /// The seed that everything follows from.
    pub seed: u64,
    /// The version of the data set's format.
    pub format: Version,
    /// The codec of its videos.
    pub codec: VideoCodec,
    /// Width and height of the frames in pixels, even numbers.
    pub image_size: (usize, usize),
    /// Frames of the bench for each of all ten tasks; each has four questions.
    pub bench_frames: u64,
}

impl Default for ArmOptions {
    fn default() -> Self {
        Self {
            tasks: Task::SEEN.to_vec(),
            episodes: 50,
            seed: 0,
            format: Version::V30,
            codec: VideoCodec::H264,
            image_size: IMAGE_SIZE,
            bench_frames: 5,
        }
    }
}

/// The settings of a folder, as they are written.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Settings {
    tasks: Vec<String>,
    episodes: u64,
    seed: u64,
    format: String,
    codec: String,
    image_size: [usize; 2],
    bench_frames: u64,
}

impl ArmOptions {
    fn settings(&self) -> Settings {
        Settings {
            tasks: self.tasks.iter().map(|task| task.name().to_owned()).collect(),
            episodes: self.episodes,
            seed: self.seed,
            format: match self.format {
                Version::V21 => "lerobot-v2.1",
                Version::V30 => "lerobot-v3.0",
            }
            .to_owned(),
            codec: match self.codec {
                VideoCodec::H264 => "h264",
                VideoCodec::Av1 => "av1",
            }
            .to_owned(),
            image_size: [self.image_size.0, self.image_size.1],
            bench_frames: self.bench_frames,
        }
    }

    fn check(&self) -> Result<()> {
        if self.tasks.is_empty() {
            return Err(Error::EmptyRequest { field: "tasks" });
        }
        if self.episodes == 0 {
            return Err(Error::EmptyRequest { field: "episodes" });
        }
        let mut earlier = self.tasks.iter().enumerate();
        if let Some((_, &task)) = earlier.find(|(at, task)| self.tasks[..*at].contains(task)) {
            return Err(Error::RepeatedTask { task });
        }
        let (width, height) = self.image_size;
        let is_good = |side: usize| (32..=1024).contains(&side) && side.is_multiple_of(2);
        if !is_good(width) || !is_good(height) {
            return Err(Error::ImageSize { width, height });
        }
        Ok(())
    }

    fn writer(&self) -> WriterOptions {
        let feature = |key: &str, names: Vec<String>| VectorFeature { key: key.to_owned(), names };
        let state = || STATE_NAMES.map(str::to_owned).to_vec();
        let joints = (0..JOINTS).map(|joint| format!("joint_{joint}.vel")).collect();
        let (width, height) = self.image_size;
        WriterOptions {
            version: self.format,
            fps: FPS,
            robot_type: ROBOT_TYPE.to_owned(),
            features: vec![
                feature(STATE, state()),
                feature(VELOCITY, joints),
                feature(ACTION, state()),
            ],
            camera: Camera { key: CAMERA.to_owned(), width: width as u32, height: height as u32 },
            codec: self.codec,
        }
    }
}

/// Counts of what was generated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ArmSummary {
    /// Demonstrations.
    pub episodes: u64,
    /// Their frames.
    pub frames: u64,
    /// Questions of the bench.
    pub questions: u64,
}

/// What has become of the output folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArmOutput {
    /// It was written.
    Written(ArmSummary),
    /// It has been written before, with the same settings.
    Unchanged,
}

/// Writes demonstrations and the questions of the bench into the folder `out`, which appears when all is complete.
///
/// # Errors
/// The request is empty or the image size is wrong; `out` has other files, or demonstrations with other settings; another
/// process is writing it; FFmpeg is missing or lacks the encoder; or a file cannot be written.
pub fn write_arm(out: &Path, options: &ArmOptions, progress: &dyn Progress) -> Result<ArmOutput> {
    options.check()?;
    if is_written(out, &options.settings())? {
        return Ok(ArmOutput::Unchanged);
    }
    let staging = Staging::beside(out)?.ok_or_else(|| Error::InUse { path: out.into() })?;
    let folder = staging.folder();
    let summary = fill(&folder, options, progress)?;
    write_json(&folder.join(SETTINGS), &options.settings())?;
    staging.publish()?;
    Ok(ArmOutput::Written(summary))
}

/// The demonstrations of a data set that [`write_arm`] wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenArm {
    tasks: Vec<Task>,
    episodes: u64,
    seed: u64,
}

impl WrittenArm {
    /// Reads the settings of the data set in the folder `dir`.
    ///
    /// # Errors
    /// Its `arm.json` cannot be read, or is not one that [`write_arm`] writes.
    pub fn open(dir: &Path) -> Result<Self> {
        let path = dir.join(SETTINGS);
        let fault = |reason: String| Error::ArmSettings { path: path.clone(), reason };
        let settings: Settings =
            serde_json::from_str(&read_text(&path)?).map_err(|error| fault(error.to_string()))?;
        let tasks = settings.tasks.iter().map(|name| name.parse());
        let tasks: Vec<Task> = tasks
            .collect::<std::result::Result<_, UnknownTask>>()
            .map_err(|error| fault(error.to_string()))?;
        Ok(Self { tasks, episodes: settings.episodes, seed: settings.seed })
    }

    /// The demonstration with an episode index; `None` if the data set has fewer.
    #[must_use]
    pub fn demonstration(&self, episode_index: u64) -> Option<Demonstration> {
        let tasks = self.tasks.len() as u64;
        let episode = episode_index.checked_div(tasks).filter(|at| *at < self.episodes)?;
        let task = self.tasks.get(usize::try_from(episode_index % tasks).ok()?)?;
        Some(demonstration(self.seed, *task, episode))
    }
}

/// Whether the folder has been written with these settings.
fn is_written(out: &Path, settings: &Settings) -> Result<bool> {
    let mut entries = match fs::read_dir(out) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(FileError::io("read", out)(error).into()),
    };
    if entries.next().is_none() {
        return Ok(false);
    }
    let path = out.join(SETTINGS);
    if !path.exists() {
        return Err(Error::NotEmpty { path: out.into() });
    }
    let text = read_text(&path)?;
    match serde_json::from_str::<Settings>(&text) {
        Ok(found) if found == *settings => Ok(true),
        _ => {
            let found = text.split_whitespace().collect::<Vec<_>>().join(" ");
            Err(Error::ConflictingDemonstrations { path: out.into(), found })
        }
    }
}

/// A rendered demonstration.
struct Recorded {
    demonstration: Demonstration,
    images: Vec<RgbImage>,
}

fn fill(folder: &Path, options: &ArmOptions, progress: &dyn Progress) -> Result<ArmSummary> {
    let mut writer = Writer::create(folder, options.writer())?;
    // Tasks alternate, so that the first episodes are of all of them.
    let episodes: Vec<(u64, Task)> = (0..options.episodes)
        .flat_map(|episode| options.tasks.iter().map(move |task| (episode, *task)))
        .collect();
    let mut summary = ArmSummary { episodes: episodes.len() as u64, ..ArmSummary::default() };
    let mut annotations = Vec::with_capacity(episodes.len());
    progress.start("episodes", Some(summary.episodes));
    let at_once = (2 * rayon::current_num_threads()).clamp(2, 16);
    let record = |batch: &[(u64, Task)]| -> Vec<Recorded> {
        let renderer = || Renderer::new(options.image_size);
        let record = |renderer: &mut Renderer, &(episode, task): &(u64, Task)| {
            recorded(demonstration(options.seed, task, episode), renderer)
        };
        batch.par_iter().map_init(renderer, record).collect()
    };
    let mut batches = episodes.chunks(at_once);
    let mut current = batches.next().map(record).unwrap_or_default();
    while !current.is_empty() {
        let write = || -> Result<()> {
            for Recorded { demonstration, images } in std::mem::take(&mut current) {
                summary.frames += demonstration.steps.len() as u64;
                annotations.push(annotation(annotations.len(), &demonstration));
                let columns = columns(&demonstration.steps);
                writer.episode(demonstration.instruction, &columns, images.into_iter())?;
                progress.advance(1);
            }
            Ok(())
        };
        // The next batch is rendered while this one is encoded.
        let (next, written) = rayon::join(|| batches.next().map(record).unwrap_or_default(), write);
        written?;
        current = next;
    }
    progress.finish();
    writer.finish()?;
    write_lines(&folder.join(ANNOTATIONS), &annotations)?;
    summary.questions = write_bench(folder, options, progress)?;
    Ok(summary)
}

fn recorded(demonstration: Demonstration, renderer: &mut Renderer) -> Recorded {
    let (width, height) = renderer.size();
    let draw =
        |step: &Step| RgbImage::from_raw(width as u32, height as u32, renderer.draw(&step.scene));
    let images = demonstration.steps.iter().filter_map(draw).collect();
    Recorded { demonstration, images }
}

/// The state of a moment, in the order of [`STATE_NAMES`].
fn state(step: &Step) -> impl Iterator<Item = f64> {
    step.position.into_iter().chain(step.rotation).chain([step.gripper_open])
}

fn columns(steps: &[Step]) -> BTreeMap<String, Column> {
    // The action is the next state; the last one is to stay.
    let next = steps.iter().skip(1).chain(steps.last());
    let columns = [
        (STATE, STATE_NAMES.len(), steps.iter().flat_map(state).collect()),
        (ACTION, STATE_NAMES.len(), next.flat_map(state).collect()),
        (VELOCITY, JOINTS, steps.iter().flat_map(|step| step.joint_velocities).collect()),
    ];
    let columns = columns.map(|(key, width, values)| (key.to_owned(), Column { width, values }));
    columns.into_iter().collect()
}

/// A line of `annotations.jsonl`: the plan, and the subtasks with the frames from which on they are being done.
fn annotation(index: usize, demonstration: &Demonstration) -> Value {
    let mut subtasks = Vec::new();
    let mut before = None;
    for (frame, step) in demonstration.steps.iter().enumerate() {
        if before != Some(step.subtask) {
            let text = demonstration.subtask(frame);
            subtasks.push(json!({ "frame_index": frame, "text": text }));
            before = Some(step.subtask);
        }
    }
    json!({ "episode_index": index, "plan": demonstration.plan, "subtasks": subtasks })
}

/// Writes the bench of all tasks, and returns its number of questions.
fn write_bench(folder: &Path, options: &ArmOptions, progress: &dyn Progress) -> Result<u64> {
    if options.bench_frames == 0 {
        return Ok(0);
    }
    let frames: Vec<(Task, u64)> = Task::ALL
        .into_iter()
        .flat_map(|task| (0..options.bench_frames).map(move |index| (task, index)))
        .collect();
    progress.start("frames of the bench", Some(frames.len() as u64));
    let renderer = || Renderer::new(options.image_size);
    let write = |renderer: &mut Renderer, &(task, index): &(Task, u64)| -> Result<Vec<Value>> {
        let Some(frame) = bench_frame(options.seed, task, index) else { return Ok(Vec::new()) };
        let image = format!("bench/{task}_{index:03}.png");
        let pixels = renderer.draw(&frame.demonstration.steps[frame.frame].scene);
        write_png_of_size(&folder.join(&image), &pixels, options.image_size)?;
        progress.advance(1);
        let record = |question: super::BenchQuestion| {
            let mut record = json!({
                "image": image,
                "question": question.question,
                "answer": question.answer,
                "type": question.kind,
                "task": task.name(),
                "split": task.split().name(),
            });
            if let Some(facts) = question.facts {
                record["facts"] = facts;
            }
            record
        };
        Ok(frame.questions.into_iter().map(record).collect())
    };
    let records: Vec<Vec<Value>> =
        frames.par_iter().map_init(renderer, write).collect::<Result<_>>()?;
    let records = records.concat();
    write_json(&folder.join("bench.json"), &records)?;
    progress.finish();
    Ok(records.len() as u64)
}

#[cfg(test)]
mod tests;
