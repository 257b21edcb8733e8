//! The video and the images that a conversation is about.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Context as _;
use embodied_r_inference::Model;
use embodied_r_media::embedding_cache::EmbeddingCache;
use embodied_r_perception::captioner::VideoFrames;
use embodied_r_video::{self as video, Limits};
use embodied_r_vision::{Frames, ImageEmbeddings, ImageLayout, image_file};

use super::conversation::Conversation;
use crate::args::chat::ChatArgs;
use crate::chat_session::ChatSession;
use crate::direct::{self, Direct};
use crate::exit;
use crate::video_captioner::VideoCaptioner;

/// Bytes of embeddings that are kept for images and videos which are attached again.
const EMBEDDING_CACHE_BYTES: usize = 1 << 30;

/// The media of a conversation.
pub(super) struct Attachments<'a> {
    args: &'a ChatArgs,
    /// How the model sees videos itself.
    direct: Option<Direct>,
    /// The model's vision encoder, if it has one.
    encoder: Option<EmbeddingCache>,
    stop: Arc<AtomicBool>,
    /// Loaded with the first video that is captioned.
    captioner: Option<VideoCaptioner>,
    /// The video that is captioned.
    video: Option<(PathBuf, VideoFrames)>,
    /// Attached to the next message.
    images: Vec<ImageEmbeddings>,
}

impl<'a> Attachments<'a> {
    /// None yet, for the model of `session`, whose stop flag ends the decoding of a video.
    pub(super) fn new(args: &'a ChatArgs, direct: Option<Direct>, session: &ChatSession) -> Self {
        let encoder = session.model().vision_encoder.clone();
        Self {
            args,
            direct,
            encoder: encoder.map(|encoder| EmbeddingCache::new(encoder, EMBEDDING_CACHE_BYTES)),
            stop: Arc::clone(session.stop()),
            captioner: None,
            video: None,
            images: Vec::new(),
        }
    }

    /// Sets the video that questions are about, or clears it if `file` is empty. Errors are printed.
    pub(super) fn set_video(
        &mut self,
        file: &str,
        session: &ChatSession,
        conversation: &mut Conversation,
    ) {
        self.video = None;
        conversation.set_frames(None);
        if file.is_empty() {
            return;
        }
        let path = Path::new(file);
        let opened = match (&self.direct, &self.encoder) {
            (Some(direct), Some(encoder)) => self
                .frames(path, direct, encoder, session.max_prompt_tokens())
                .map(|frames| conversation.set_frames(Some(frames))),
            _ => self.open_video(path, session.model()),
        };
        if let Err(error) = opened {
            exit::print(&error);
        }
    }

    /// The encoded frames of the video, which the model sees itself, if they have fewer than `most` tokens.
    fn frames(
        &self,
        file: &Path,
        direct: &Direct,
        encoder: &EmbeddingCache,
        most: usize,
    ) -> anyhow::Result<Vec<ImageEmbeddings>> {
        let limits = Limits::default().with_stop(&self.stop);
        let processor = encoder.vision_encoder().vision_processor();
        let shown = format!("cannot show `{}`", file.display());
        let frames = direct.frames_of(file, processor.processor(), &limits);
        let frames = frames.with_context(|| shown.clone())?;
        let layouts = frames.iter().map(|frames| processor.layout(frames));
        let layouts: Vec<ImageLayout> = layouts.collect::<Result<_, _>>()?;
        let tokens: usize = layouts.iter().map(ImageLayout::tokens).sum();
        if tokens >= most {
            let what = format!("{shown}: it has {tokens} tokens, a prompt has at most {most}");
            return Err(exit::hint(what, direct::FEWER_TOKENS));
        }
        let seen = frames.iter().map(|frames| encoder.encode(frames));
        let seen = seen.collect::<Result<Vec<_>, _>>()?;
        eprintln!("questions are now about `{}`, {tokens} tokens", file.display());
        Ok(seen)
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
    pub(super) fn add_image(&mut self, file: &str) {
        let Some(encoder) = &self.encoder else {
            eprintln!("this model is text-only; images need a vision-language model");
            return;
        };
        let image = image_file::read(Path::new(file)).map(Frames::Image);
        match image.and_then(|image| encoder.encode(&image)) {
            Ok(seen) => {
                eprintln!("`{file}` adds {} tokens to the next message", seen.tokens());
                self.images.push(seen);
            }
            Err(error) => exit::print(&error.into()),
        }
    }

    /// Logs how often the vision encoder ran.
    pub(super) fn log_counts(&self) {
        if let Some(encoder) = &self.encoder {
            let (encoded, from_memory) = (encoder.misses(), encoder.hits());
            tracing::info!(encoded, from_memory, "images of the conversation");
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
            Ok(captions) => Some(captioner.prompt(&captions, text)),
            Err(error) => {
                exit::print(&error);
                // The next message tries again, after Ctrl-C for example.
                *frames = captioner.video(file);
                None
            }
        }
    }
}
