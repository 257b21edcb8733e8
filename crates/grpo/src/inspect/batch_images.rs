//! The images and videos of a batch file.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use embodied_r_data::multimodal::{MediaFile, Video};
use embodied_r_media::files::{FrameFiles, ImageFile};
use embodied_r_media::reader::{FrameOptions, MediaReader};
use embodied_r_media::sampled_video::{FrameSelection, FrameUse};
use embodied_r_media::source::{FileContent, ImageSource, ReadError, Sources};
use embodied_r_media::table::ImageTable;
use embodied_r_vision::{ImageLayout, Processor};

use super::batch_file::{BatchFile, FileGroup};
pub use super::batch_file::{FileImage, FileVideo, FrameList, VideoFrame, VideoFrames};
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
        let mut files = GroupFiles::new(folder, table);
        let sources = |(index, group): (usize, &FileGroup)| {
            let fault =
                |error: ReadError| Error::BatchImages { group: index, what: error.to_string() };
            files.sources(group).map_err(fault)
        };
        let all: Vec<Sources> =
            self.groups.iter().enumerate().map(sources).collect::<Result<_>>()?;
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

/// The sources of the groups' images and videos.
struct GroupFiles<'a> {
    folder: &'a Path,
    processor: Processor,
    /// The frames that are images of their own, by video and selection.
    separate: HashMap<(PathBuf, String), Sources>,
}

impl<'a> GroupFiles<'a> {
    fn new(folder: &'a Path, table: &ImageTable) -> Self {
        let processor = table.processor().processor().clone();
        Self { folder, processor, separate: HashMap::new() }
    }

    /// Images, then videos.
    fn sources(&mut self, group: &FileGroup) -> Result<Sources, ReadError> {
        let images = group.images.iter().map(|image| self.image(image));
        let mut sources = images.collect::<Result<Sources, _>>()?;
        for video in &group.videos {
            sources.extend(self.video(video)?);
        }
        Ok(sources)
    }

    fn file(&self, path: &Path) -> MediaFile {
        MediaFile::Path(self.folder.join(path))
    }

    fn image(&mut self, image: &FileImage) -> Result<Arc<dyn ImageSource>, ReadError> {
        match image {
            FileImage::File(path) => Ok(Arc::new(ImageFile(self.file(path)))),
            FileImage::Frame(VideoFrame { video, frames, frame }) => {
                let key = (video.clone(), frames.to_string());
                if !self.separate.contains_key(&key) {
                    let sources = self.video_file(video, *frames, FrameUse::Images)?;
                    self.separate.insert(key.clone(), sources);
                }
                let found = self.separate.get(&key).and_then(|sources| sources.get(*frame));
                let none = || format!("`{}` has no frame {frame} of `{frames}`", video.display());
                Ok(found.cloned().ok_or_else(none)?)
            }
        }
    }

    fn video(&self, video: &FileVideo) -> Result<Sources, ReadError> {
        match video {
            FileVideo::Frames(FrameList { frames, fps }) => {
                let frames = frames.iter().map(|path| self.file(path)).collect();
                Ok(vec![Arc::new(FrameFiles { frames, fps: *fps })])
            }
            FileVideo::File(VideoFrames { video, frames }) => {
                self.video_file(video, *frames, FrameUse::Video)
            }
        }
    }

    fn video_file(
        &self,
        path: &Path,
        selection: FrameSelection,
        frame_use: FrameUse,
    ) -> Result<Sources, ReadError> {
        let reader = MediaReader::new(FrameOptions { selection, frame_use }, &self.processor);
        reader.video(&Video::File(self.file(path)))
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
    /// A group with this prompt and no completions, with the paths that `table` has of its images, absolute ones: the file
    /// may be in any folder.
    #[must_use]
    pub fn of_prompt(prompt: &Prompt, table: Option<&ImageTable>) -> Self {
        let mut group = Self { prompt_ids: prompt.ids().to_vec(), ..Self::default() };
        for source in prompt.images().iter().filter_map(|image| table?.source(image.digest)) {
            let paths = source.paths().into_iter().map(absolute);
            match source.content() {
                FileContent::Image => group.images.extend(paths.map(FileImage::File)),
                FileContent::Frames { fps } => {
                    let frames = paths.collect();
                    group.videos.push(FileVideo::Frames(FrameList { frames, fps }));
                }
                FileContent::Video(frames) => {
                    let file = |video| FileVideo::File(VideoFrames { video, frames });
                    group.videos.extend(paths.map(file));
                }
                FileContent::VideoFrame(frames, frame) => {
                    let image = |video| FileImage::Frame(VideoFrame { video, frames, frame });
                    group.images.extend(paths.map(image));
                }
            }
        }
        group
    }
}

/// The absolute path of a file; the name of what is in none stays.
fn absolute(path: String) -> PathBuf {
    let path = PathBuf::from(path);
    match path.exists() {
        true => std::path::absolute(&path).unwrap_or(path),
        false => path,
    }
}
