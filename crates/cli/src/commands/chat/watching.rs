//! The video and the pictures that a conversation is about.

use std::path::{Path, PathBuf};

use embodied_r_perception::captioner::{self, Footage};
use embodied_r_vision::{Seen, VisionLanguageModel, picture};

use crate::args::chat::ChatArgs;
use crate::perceiver::Perceiver;

/// What is looked at.
pub(super) struct Watching<'a> {
    args: &'a ChatArgs,
    /// Opened with the first video.
    perceiver: Option<Perceiver>,
    video: Option<(PathBuf, Footage)>,
    /// Shown with the next message.
    pictures: Vec<Seen>,
}

impl<'a> Watching<'a> {
    pub(super) fn new(args: &'a ChatArgs) -> Self {
        Self { args, perceiver: None, video: None, pictures: Vec::new() }
    }

    /// Asks about the video in `file` from now on, or no longer where that is blank. A fault is told.
    /// `model` is the one that one talks with, if it can see.
    pub(super) fn turn_to(&mut self, file: &str, model: Option<&VisionLanguageModel>) {
        self.video = None;
        if file.is_empty() {
            return;
        }
        if let Err(error) = self.turn_to_video(Path::new(file), model) {
            eprintln!("{error:#}");
        }
    }

    fn turn_to_video(
        &mut self,
        file: &Path,
        model: Option<&VisionLanguageModel>,
    ) -> anyhow::Result<()> {
        // Told at once, and not after a model is loaded.
        embodied_r_perception::video::probe(file)?;
        let perceiver = match self.perceiver.take() {
            Some(perceiver) => perceiver,
            None => self.perceiver(model)?,
        };
        self.video = Some((file.to_owned(), perceiver.footage(file)));
        self.perceiver = Some(perceiver);
        eprintln!("questions are about `{}` now", file.display());
        Ok(())
    }

    /// What the arguments name; else the model that one talks with, which describes what it can see itself.
    fn perceiver(&self, model: Option<&VisionLanguageModel>) -> anyhow::Result<Perceiver> {
        let ChatArgs { stored, perceiver, key_frames, .. } = self.args;
        match model.filter(|_| perceiver.perceiver.is_none() && perceiver.scenes.is_none()) {
            Some(model) => Perceiver::of_model(model, stored, perceiver, key_frames),
            None => Perceiver::open(perceiver, &stored.weights, key_frames),
        }
    }

    /// Shows the picture in `file` with the next message. A fault is told.
    pub(super) fn show(&mut self, file: &str, model: Option<&VisionLanguageModel>) {
        let Some(model) = model else {
            eprintln!("this model reads text alone; one that can see is a vision-language model");
            return;
        };
        match picture::read(Path::new(file)).and_then(|picture| model.eyes().image(&picture)) {
            Ok(seen) => {
                eprintln!("`{file}` takes {} tokens of the next message", seen.tokens());
                self.pictures.push(seen);
            }
            Err(error) => eprintln!("{error}"),
        }
    }

    /// The pictures for a message; the next one has others.
    pub(super) fn pictures(&mut self) -> Vec<Seen> {
        std::mem::take(&mut self.pictures)
    }

    /// No video and no pictures any more.
    pub(super) fn put_away(&mut self) {
        self.video = None;
        self.pictures.clear();
    }

    /// A message with the video in words before it, if there is one; nothing where that cannot be had, which is told.
    pub(super) fn in_words(&self, text: &str) -> Option<String> {
        let Some(((file, footage), perceiver)) = self.video.as_ref().zip(self.perceiver.as_ref())
        else {
            return Some(text.to_owned());
        };
        match perceiver.captions(footage, file, text) {
            Ok(captions) => Some(captioner::prompt(&captions, text)),
            Err(error) => {
                eprintln!("{error:#}");
                None
            }
        }
    }
}
