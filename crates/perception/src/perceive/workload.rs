//! The workload of a run, estimated beforehand.

use std::collections::BTreeSet;

use embodied_r_video as video;

use super::input::{self, video_path};
use super::options::{PerceiveOptions, Scope};
use crate::error::Result;

/// The workload of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PerceiveWorkload {
    /// Questions, including those finished by an earlier run.
    pub questions: usize,
    /// Videos of these questions.
    pub videos: usize,
    /// Maximum frames to caption.
    pub frames: usize,
    /// Width and height of an image in pixels, from the first readable video.
    pub image_size: Option<(u32, u32)>,
}

impl PerceiveWorkload {
    /// Reads the data files, and one video's frame size.
    ///
    /// # Errors
    /// An option or a data file is invalid, or an output would overwrite another file.
    pub fn new(options: &PerceiveOptions) -> Result<Self> {
        options.keyframes.check()?;
        let mut inputs =
            input::read(&options.data_paths, options.answers.as_deref(), &options.output_dir())?;
        if let Some(shard) = options.shard {
            input::retain_shard(&mut inputs, shard);
        }
        let (mut questions, mut videos) = (0, BTreeSet::new());
        for input in &inputs {
            let limited = input.questions.iter().take(options.limit.unwrap_or(usize::MAX));
            for question in limited {
                questions += 1;
                let folder = options.folder_path.as_deref();
                videos.extend(video_path(question, folder, &input.data_path).ok());
            }
        }
        let captioned = match options.scope {
            Scope::Question => questions,
            Scope::Video => videos.len(),
        };
        let size = videos.iter().find_map(|path| video::probe(path).ok());
        let image_size =
            size.map(|video| video::fit_within((video.width, video.height), options.image_side));
        let frames = captioned * options.keyframes.max_frames;
        Ok(Self { questions, videos: videos.len(), frames, image_size })
    }
}
