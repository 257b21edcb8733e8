//! The video and the images that a conversation is about.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use embodied_r_inference::Model;
use embodied_r_perception::captioner::{self, VideoFrames};
use embodied_r_perception::video::{self, Limits};
use embodied_r_vision::{ImageEmbeddings, image_file};

use crate::args::chat::ChatArgs;
use crate::exit;
use crate::video_captioner::VideoCaptioner;

/// The media of a conversation.
pub(super) struct Attachments<'a> {
    args: &'a ChatArgs,
    stop: Arc<AtomicBool>,
    /// Loaded with the first video.
    captioner: Option<VideoCaptioner>,
    video: Option<(PathBuf, VideoFrames)>,
    /// Attached to the next message.
    images: Vec<ImageEmbeddings>,
}

impl<'a> Attachments<'a> {
    /// None yet. `stop` ends the decoding of a video.
    pub(super) fn new(args: &'a ChatArgs, stop: &Arc<AtomicBool>) -> Self {
        Self { args, stop: Arc::clone(stop), captioner: None, video: None, images: Vec::new() }
    }

    /// Sets the video that questions are about, or clears it if `file` is empty. Errors are printed. `model` is the chat
    /// model.
    pub(super) fn set_video(&mut self, file: &str, model: &Model) {
        self.video = None;
        if file.is_empty() {
            return;
        }
        if let Err(error) = self.open_video(Path::new(file), model) {
            exit::print(&error);
        }
    }

    fn open_video(&mut self, file: &Path, model: &Model) -> anyhow::Result<()> {
        // Reports a bad video before a model is loaded.
        video::probe_within(file, &Limits::default().with_stop(&self.stop))?;
        let captioner = match self.captioner.take() {
            Some(captioner) => captioner,
            None => self.captioner(model)?,
        };
        self.video = Some((file.to_owned(), captioner.video(file)));
        self.captioner = Some(captioner);
        eprintln!("questions are now about `{}`", file.display());
        Ok(())
    }

    /// The captioner named by the arguments, else the chat model itself if it accepts images.
    fn captioner(&self, model: &Model) -> anyhow::Result<VideoCaptioner> {
        let ChatArgs { stored, captioner, key_frames, .. } = self.args;
        let chat_model = model.vision_encoder.is_some().then_some((stored, model));
        VideoCaptioner::open(captioner, &stored.weights, key_frames, &self.stop, chat_model)
    }

    /// Attaches the image in `file` to the next message. Errors are printed.
    pub(super) fn add_image(&mut self, file: &str, model: &Model) {
        let Some(encoder) = &model.vision_encoder else {
            eprintln!("this model is text-only; images need a vision-language model");
            return;
        };
        match image_file::read(Path::new(file)).and_then(|image| encoder.encode_image(&image)) {
            Ok(seen) => {
                eprintln!("`{file}` adds {} tokens to the next message", seen.tokens());
                self.images.push(seen);
            }
            Err(error) => exit::print(&error.into()),
        }
    }

    /// Takes the images for a message.
    pub(super) fn take_images(&mut self) -> Vec<ImageEmbeddings> {
        std::mem::take(&mut self.images)
    }

    /// Removes the video and the images.
    pub(super) fn clear(&mut self) {
        self.video = None;
        self.images.clear();
    }

    /// A message preceded by the captions of the video, if there is one; `None`, with the error printed, if captioning
    /// fails.
    pub(super) fn with_captions(&mut self, text: &str) -> Option<String> {
        let Some(((file, frames), captioner)) = self.video.as_mut().zip(self.captioner.as_ref())
        else {
            return Some(text.to_owned());
        };
        match captioner.captions(frames, file, text) {
            Ok(captions) => Some(captioner::prompt(&captions, text)),
            Err(error) => {
                exit::print(&error);
                // The next message tries again, after Ctrl-C for example.
                *frames = captioner.video(file);
                None
            }
        }
    }
}
