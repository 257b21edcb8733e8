//! How much there is to do, before anything is done.

use std::collections::BTreeSet;

use super::input::{self, video_path};
use super::{Options, Scope};
use crate::error::Result;
use crate::video;

/// What a run has before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Questions, those that an earlier run has finished included.
    pub questions: usize,
    /// Videos that they are about.
    pub videos: usize,
    /// Frames to describe, at most.
    pub frames: usize,
    /// Pixels of a picture, as those of the first video that can be read.
    pub picture: Option<(u32, u32)>,
}

impl Plan {
    /// Reads the data files, and of one video how large it is.
    ///
    /// # Errors
    /// An option or a data file is faulty, or an output would take the place of something.
    pub fn new(options: &Options) -> Result<Self> {
        options.keyframes.check()?;
        let mut inputs =
            input::read(&options.data_paths, options.answers.as_deref(), &options.place())?;
        if let Some(shard) = options.shard {
            input::keep_shard(&mut inputs, shard);
        }
        let (mut questions, mut videos) = (0, BTreeSet::new());
        for input in &inputs {
            let asked = input.questions.iter().take(options.limit.unwrap_or(usize::MAX));
            for question in asked {
                questions += 1;
                let folder = options.folder_path.as_deref();
                videos.extend(video_path(question, folder, &input.data_path).ok());
            }
        }
        let described = match options.scope {
            Scope::Question => questions,
            Scope::Video => videos.len(),
        };
        let size = videos.iter().find_map(|path| video::probe(path).ok());
        let picture =
            size.map(|video| video::fit_within((video.width, video.height), options.image_side));
        let frames = described * options.keyframes.max_frames;
        Ok(Self { questions, videos: videos.len(), frames, picture })
    }
}
