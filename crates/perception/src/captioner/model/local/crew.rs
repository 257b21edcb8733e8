//! A model whose parts are on several ranks. The first rank is asked, and tells the others what it is asked before each
//! step; what follows from that, each works out for itself and the same: what the pictures are, which tokens a step
//! computes, and which are drawn.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use embodied_r_policy::tokenizer::Tokenizer;
use embodied_r_policy::{
    Engine, EngineStats, Output, Prompt, Request, RequestId, SamplingDefaults, TensorParallel,
};
use embodied_r_vision::{Gallery, Seen, VisionLanguageModel, picture};
use image::RgbImage;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::LocalOptions;
use super::engine::Worker;
use crate::error::{Error, Result};

/// A request as it goes to all ranks.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Asked {
    /// The conversation, with a token for each picture.
    pub(super) ids: Vec<u32>,
    pub(super) jpegs: Vec<Vec<u8>>,
    pub(super) temperature: f64,
    pub(super) max_tokens: usize,
    /// What its random numbers follow from.
    pub(super) stream: u64,
}

/// What all ranks do before their next step.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Turn {
    cancelled: Vec<u64>,
    asked: Vec<Asked>,
    is_last: bool,
}

/// One rank's part of the model.
pub(super) struct Member {
    engine: Engine,
    gallery: Arc<Gallery>,
    defaults: SamplingDefaults,
    stop_ids: Vec<u32>,
    ranks: TensorParallel,
    /// Requests by their number, which is the same on all ranks.
    requests: BTreeMap<u64, RequestId>,
    next: u64,
}

impl Member {
    /// The part of the rank `ranks` of the model in `dir`.
    ///
    /// # Errors
    /// As [`super::LocalModel::load`].
    pub(super) fn new(
        dir: &Path,
        model: &VisionLanguageModel,
        options: &LocalOptions,
    ) -> Result<Self> {
        Ok(Self {
            engine: options.engine(model)?,
            gallery: Arc::new(Gallery::new(model.eyes().clone(), options.gallery_bytes)),
            defaults: SamplingDefaults::from_dir(dir)?,
            stop_ids: Tokenizer::from_dir(dir)?.stop_ids().to_vec(),
            ranks: model.decoder().ranks().clone(),
            requests: BTreeMap::new(),
            next: 0,
        })
    }

    pub(super) fn gallery(&self) -> &Arc<Gallery> {
        &self.gallery
    }

    /// Does what the first rank is asked, until it is asked no more.
    ///
    /// # Errors
    /// A rank is lost, or this one cannot go on.
    pub(super) fn follow(mut self) -> Result<()> {
        loop {
            let turn = self.ranks.of_first(Vec::new())?;
            let turn: Turn = postcard::from_bytes(&turn).map_err(Error::Turn)?;
            if turn.is_last {
                return Ok(());
            }
            // What is wrong with a request, the first rank tells who asked.
            drop(self.begin(turn)?);
            if self.engine.has_work() {
                self.step()?;
            }
        }
    }

    /// Tells the other ranks what is next.
    fn tell(&self, turn: &Turn) -> Result<()> {
        let bytes = postcard::to_allocvec(turn).map_err(Error::Turn)?;
        self.ranks.of_first(bytes)?;
        Ok(())
    }

    /// Begins a turn, the same on all ranks.
    fn begin(&mut self, turn: Turn) -> Result<Vec<Result<RequestId>>> {
        for number in turn.cancelled {
            if let Some(request) = self.requests.remove(&number) {
                self.engine.cancel(request);
            }
        }
        let decode = |asked: &Asked| -> Result<Vec<RgbImage>> {
            let pictures = asked.jpegs.par_iter().map(|jpeg| picture::from_bytes(jpeg));
            let pictures: Vec<RgbImage> = pictures.collect::<Result<_, _>>()?;
            for picture in &pictures {
                self.gallery.eyes().image_tokens(picture.dimensions())?;
            }
            Ok(pictures)
        };
        let decoded: Vec<Result<Vec<RgbImage>>> = turn.asked.iter().map(decode).collect();
        let pictures: Vec<&RgbImage> = decoded.iter().flatten().flatten().collect();
        let mut seen = self.gallery.images_over(&pictures, &self.ranks)?.into_iter();
        let begun = turn.asked.into_iter().zip(decoded).map(|(asked, pictures)| {
            self.next += 1;
            let seen: Vec<Seen> = seen.by_ref().take(pictures?.len()).collect();
            let request = self.add(asked, &seen)?;
            self.requests.insert(self.next, request);
            Ok(request)
        });
        Ok(begun.collect())
    }

    fn add(&mut self, asked: Asked, seen: &[Seen]) -> Result<RequestId> {
        let Asked { ids, temperature, max_tokens, stream, .. } = asked;
        let prompt: Prompt = self.gallery.eyes().filled(&ids, seen)?;
        let defaults = SamplingDefaults { temperature, ..self.defaults };
        let sampling = Arc::new(defaults.sampling(max_tokens, self.stop_ids.clone()));
        Ok(self.engine.add(&Request { prompt, samples: 1, stream }, &sampling)?)
    }

    fn step(&mut self) -> Result<Vec<Output>> {
        let outputs = self.engine.step()?;
        for output in &outputs {
            if let Output::Finished { request, .. } = output {
                self.requests.retain(|_, other| other != request);
            }
        }
        Ok(outputs)
    }
}

/// The first rank's.
impl Worker for Member {
    type Asked = Asked;

    fn take(
        &mut self,
        asked: Vec<Asked>,
        cancelled: &[RequestId],
    ) -> Result<Vec<Result<RequestId>>> {
        let requests = self.requests.iter();
        let cancelled = requests.filter(|(_, request)| cancelled.contains(request));
        let cancelled = cancelled.map(|(number, _)| *number).collect();
        let turn = Turn { cancelled, asked, is_last: false };
        let begun = self.tell(&turn).and_then(|()| self.begin(turn));
        begun.map_err(|error| Error::Ranks(Box::new(error)))
    }

    fn step(&mut self) -> Result<Vec<Output>> {
        Member::step(self).map_err(|error| Error::Ranks(Box::new(error)))
    }

    fn stats(&self) -> EngineStats {
        self.engine.stats()
    }

    fn idle(&self) {
        self.ranks.beat();
    }

    fn end(self) -> Result<()> {
        self.tell(&Turn { is_last: true, ..Turn::default() })
    }
}
