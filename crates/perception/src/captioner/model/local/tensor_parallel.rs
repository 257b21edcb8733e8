//! A tensor-parallel model. Rank 0 receives the requests and broadcasts them to the other ranks before each step; all
//! ranks then deterministically compute the same embeddings, schedule and samples.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use embodied_r_policy::tokenizer::Tokenizer;
use embodied_r_policy::{
    Engine, EngineOutput, EngineStats, GenerationRequest, Prompt, RequestId, SamplingDefaults,
    TensorParallel,
};
use embodied_r_vision::{EmbeddingCache, ImageEmbeddings, VisionLanguageModel, image_file};
use image::RgbImage;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::engine::Worker;
use super::options::LocalOptions;
use crate::error::{Error, Result};

/// A request, broadcast to all ranks.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct TensorParallelRequest {
    /// The conversation, with a placeholder token for each image.
    pub(super) ids: Vec<u32>,
    pub(super) jpegs: Vec<Vec<u8>>,
    pub(super) temperature: f64,
    pub(super) max_tokens: usize,
    /// The random stream.
    pub(super) stream: u64,
}

/// What all ranks do before their next step.
#[derive(Debug, Default, Serialize, Deserialize)]
struct StepCommand {
    cancelled: Vec<u64>,
    requests: Vec<TensorParallelRequest>,
    is_last: bool,
}

/// One rank's shard of the model.
pub(super) struct TensorParallelWorker {
    engine: Engine,
    image_cache: Arc<EmbeddingCache>,
    defaults: SamplingDefaults,
    stop_ids: Vec<u32>,
    ranks: TensorParallel,
    /// Requests by their number, which is the same on all ranks.
    requests: BTreeMap<u64, RequestId>,
    next: u64,
}

impl TensorParallelWorker {
    /// The worker of this rank for the model in `dir`.
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
            image_cache: Arc::new(EmbeddingCache::new(
                model.vision_encoder().clone(),
                options.image_cache_bytes,
            )),
            defaults: SamplingDefaults::from_dir(dir)?,
            stop_ids: Tokenizer::from_dir(dir)?.stop_ids().to_vec(),
            ranks: model.decoder().ranks().clone(),
            requests: BTreeMap::new(),
            next: 0,
        })
    }

    pub(super) fn image_cache(&self) -> &Arc<EmbeddingCache> {
        &self.image_cache
    }

    /// Executes rank 0's commands until its shutdown.
    ///
    /// # Errors
    /// A rank has failed.
    pub(super) fn run(mut self) -> Result<()> {
        loop {
            let command = self.ranks.broadcast_bytes(Vec::new())?;
            let command: StepCommand =
                postcard::from_bytes(&command).map_err(Error::RankProtocol)?;
            if command.is_last {
                return Ok(());
            }
            // Rank 0 reports rejected requests.
            drop(self.apply(command)?);
            if self.engine.has_work() {
                self.step()?;
            }
        }
    }

    /// Broadcasts the next command to the other ranks.
    fn broadcast(&self, command: &StepCommand) -> Result<()> {
        let bytes = postcard::to_allocvec(command).map_err(Error::RankProtocol)?;
        self.ranks.broadcast_bytes(bytes)?;
        Ok(())
    }

    /// Applies a command, identically on all ranks.
    fn apply(&mut self, command: StepCommand) -> Result<Vec<Result<RequestId>>> {
        for number in command.cancelled {
            if let Some(request) = self.requests.remove(&number) {
                self.engine.cancel(request);
            }
        }
        let decode = |request: &TensorParallelRequest| -> Result<Vec<RgbImage>> {
            let images = request.jpegs.par_iter().map(|jpeg| image_file::from_bytes(jpeg));
            let images: Vec<RgbImage> = images.collect::<Result<_, _>>()?;
            for image in &images {
                self.image_cache.vision_encoder().image_tokens(image.dimensions())?;
            }
            Ok(images)
        };
        let decoded: Vec<Result<Vec<RgbImage>>> = command.requests.iter().map(decode).collect();
        let images: Vec<&RgbImage> = decoded.iter().flatten().flatten().collect();
        let mut embeddings = self.image_cache.encode_images_over(&images, &self.ranks)?.into_iter();
        let added = command.requests.into_iter().zip(decoded).map(|(request, images)| {
            self.next += 1;
            let embeddings: Vec<ImageEmbeddings> =
                embeddings.by_ref().take(images?.len()).collect();
            let request = self.add(request, &embeddings)?;
            self.requests.insert(self.next, request);
            Ok(request)
        });
        Ok(added.collect())
    }

    fn add(
        &mut self,
        request: TensorParallelRequest,
        embeddings: &[ImageEmbeddings],
    ) -> Result<RequestId> {
        let TensorParallelRequest { ids, temperature, max_tokens, stream, .. } = request;
        let prompt: Prompt =
            self.image_cache.vision_encoder().expand_placeholders(&ids, embeddings)?;
        let defaults = SamplingDefaults { temperature, ..self.defaults };
        let sampling = Arc::new(defaults.sampling(max_tokens, self.stop_ids.clone()));
        Ok(self
            .engine
            .add(&GenerationRequest { prompt, samples: 1, stream, first_sample: 0 }, &sampling)?)
    }

    fn step(&mut self) -> Result<Vec<EngineOutput>> {
        let outputs = self.engine.step()?;
        for output in &outputs {
            if let EngineOutput::Finished { request, .. }
            | EngineOutput::NonFinite { request, .. } = output
            {
                self.requests.retain(|_, other| other != request);
            }
        }
        Ok(outputs)
    }
}

/// On rank 0.
impl Worker for TensorParallelWorker {
    type Request = TensorParallelRequest;

    fn submit(
        &mut self,
        requests: Vec<TensorParallelRequest>,
        cancelled: &[RequestId],
    ) -> Result<Vec<Result<RequestId>>> {
        let numbered = self.requests.iter();
        let cancelled = numbered.filter(|(_, request)| cancelled.contains(request));
        let cancelled = cancelled.map(|(number, _)| *number).collect();
        let command = StepCommand { cancelled, requests, is_last: false };
        let added = self.broadcast(&command).and_then(|()| self.apply(command));
        added.map_err(|error| Error::TensorParallel(Box::new(error)))
    }

    fn step(&mut self) -> Result<Vec<EngineOutput>> {
        TensorParallelWorker::step(self).map_err(|error| Error::TensorParallel(Box::new(error)))
    }

    fn stats(&self) -> EngineStats {
        self.engine.stats()
    }

    fn idle(&self) {
        self.ranks.heartbeat();
    }

    fn end(self) -> Result<()> {
        self.broadcast(&StepCommand { is_last: true, ..StepCommand::default() })
    }
}
