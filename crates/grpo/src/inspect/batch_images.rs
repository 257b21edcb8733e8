//! The images and videos of a batch file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use embodied_r_data::multimodal::MediaFile;
use embodied_r_media::files::{FrameFiles, ImageFile};
use embodied_r_media::source::ImageSource;
use embodied_r_media::table::ImageTable;
use embodied_r_vision::ImageLayout;

pub use super::batch_file::FileVideo;
use super::batch_file::{BatchFile, FileGroup};
use crate::error::{Error, Result};
use crate::model::Prompt;

impl BatchFile {
    /// Whether any group has images or videos.
    #[must_use]
    pub fn has_images(&self) -> bool {
        self.groups.iter().any(|group| !(group.images.is_empty() && group.videos.is_empty()))
    }

    /// The prompt of each group. Images are added to `table`; their paths are relative to `folder`.
    ///
    /// # Errors
    /// A group has images but there is no table; an image is missing or broken, or the placeholder tokens of a prompt are
    /// not those of its images.
    pub fn prompts(&self, table: Option<&mut ImageTable>, folder: &Path) -> Result<Vec<Prompt>> {
        let Some(table) = table else {
            return self.groups.iter().enumerate().map(text_prompt).collect();
        };
        let sources = |group: &FileGroup| -> Vec<Arc<dyn ImageSource>> {
            let file = |path: &PathBuf| MediaFile::Path(folder.join(path));
            let image = |path| -> Arc<dyn ImageSource> { Arc::new(ImageFile(file(path))) };
            let video = |video: &FileVideo| -> Arc<dyn ImageSource> {
                let frames = video.frames.iter().map(file).collect();
                Arc::new(FrameFiles { frames, fps: video.fps })
            };
            group.images.iter().map(image).chain(group.videos.iter().map(video)).collect()
        };
        let all: Vec<Vec<Arc<dyn ImageSource>>> = self.groups.iter().map(sources).collect();
        let mut layouts = table.add_all(&all.concat(), &|| ()).into_iter();
        let prompt = |(index, (group, sources)): (usize, (&FileGroup, Vec<_>))| {
            let fault = |what: String| Error::BatchImages { group: index, what };
            let layouts: Result<Vec<ImageLayout>, _> =
                layouts.by_ref().take(sources.len()).collect();
            let layouts = layouts.map_err(|error| fault(error.to_string()))?;
            let prompt = table.processor().expanded_prompt(&group.prompt_ids, &layouts);
            prompt.map_err(|error| fault(error.to_string()))
        };
        self.groups.iter().zip(all).enumerate().map(prompt).collect()
    }
}

fn text_prompt((index, group): (usize, &FileGroup)) -> Result<Prompt> {
    match group.images.is_empty() && group.videos.is_empty() {
        true => Ok(group.prompt_ids.clone().into()),
        false => {
            let what = "the group has images, but the model is text-only".to_owned();
            Err(Error::BatchImages { group: index, what })
        }
    }
}

impl FileGroup {
    /// A group with this prompt and no completions, with the paths that `table` has of its images.
    #[must_use]
    pub fn of_prompt(prompt: &Prompt, table: Option<&ImageTable>) -> Self {
        let mut group = Self { prompt_ids: prompt.ids().to_vec(), ..Self::default() };
        for source in prompt.images().iter().filter_map(|image| table?.source(image.digest)) {
            let paths = source.paths().into_iter().map(PathBuf::from);
            match source.fps() {
                Some(fps) => group.videos.push(FileVideo { frames: paths.collect(), fps }),
                None => group.images.extend(paths),
            }
        }
        group
    }
}
