//! A tensor-parallel model. Rank 0 receives the requests and broadcasts them to the other ranks before each step; all
//! ranks then deterministically compute the same embeddings, schedule and samples.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use embodied_r_media::embedding_cache::EmbeddingCache;
use embodied_r_policy::{Engine, EngineOutput, EngineStats, Prompt, RequestId, SamplingSettings};
use embodied_r_vision::ImageEmbeddings;
use image::RgbImage;
use serde::{Deserialize, Serialize};

use super::options::VisionEngineOptions;
use super::request::one_completion;
use crate::error::{Error, Result};
use crate::model::Model;
use crate::worker::Worker;

/// A request, broadcast to all ranks.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct TensorParallelRequest {
    /// The conversation, with a placeholder token for each image.
    pub(super) ids: Vec<u32>,
    /// The images, in order.
    pub(super) images: Vec<SentImage>,
    pub(super) sampling: SamplingSettings,
    pub(super) max_tokens: usize,
    /// The random stream.
    pub(super) stream: u64,
}

/// An image on its way to all ranks.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct SentImage {
    width: u32,
    height: u32,
    /// RGB, by row.
    bytes: Vec<u8>,
}

impl From<RgbImage> for SentImage {
    fn from(image: RgbImage) -> Self {
        let (width, height) = image.dimensions();
        Self { width, height, bytes: image.into_raw() }
    }
}

impl SentImage {
    /// The image; an empty one if the bytes are not as many as its size says.
    fn into_image(self) -> RgbImage {
        RgbImage::from_raw(self.width, self.height, self.bytes).unwrap_or_default()
    }
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
    model: Model,
    image_cache: Arc<EmbeddingCache>,
    /// Requests by their number, which is the same on all ranks.
    requests: BTreeMap<u64, RequestId>,
    next: u64,
}

impl TensorParallelWorker {
    /// The worker of this rank for the model in `dir`.
    ///
    /// # Errors
    /// The model has no vision encoder, or the KV cache does not fit in memory.
    pub(super) fn new(dir: &Path, model: &Model, options: &VisionEngineOptions) -> Result<Self> {
        Ok(Self {
            engine: options.engine(model)?,
            model: model.clone(),
            image_cache: options.image_cache(dir, model)?,
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
            let command = self.model.decoder.ranks().broadcast_bytes(Vec::new())?;
            let command: StepCommand =
                postcard::from_bytes(&command).map_err(Error::RankProtocol)?;
            if command.is_last {
                return Ok(());
            }
            // Rank 0 reports rejected requests.
            drop(self.apply(command)?);
            if self.engine.has_work() {
                self.step_rank()?;
            }
        }
    }

    /// Broadcasts the next command to the other ranks.
    fn broadcast(&self, command: &StepCommand) -> Result<()> {
        let bytes = postcard::to_allocvec(command).map_err(Error::RankProtocol)?;
        self.model.decoder.ranks().broadcast_bytes(bytes)?;
        Ok(())
    }

    /// Applies a command, identically on all ranks.
    fn apply(&mut self, command: StepCommand) -> Result<Vec<Result<RequestId>>> {
        for number in command.cancelled {
            if let Some(request) = self.requests.remove(&number) {
                self.engine.cancel(request);
            }
        }
        let mut requests = command.requests;
        let received = |request: &mut TensorParallelRequest| -> Result<Vec<RgbImage>> {
            let images = std::mem::take(&mut request.images);
            let images: Vec<RgbImage> = images.into_iter().map(SentImage::into_image).collect();
            for image in &images {
                self.image_cache.vision_encoder().image_tokens(image.dimensions())?;
            }
            Ok(images)
        };
        let of_requests: Vec<Result<Vec<RgbImage>>> = requests.iter_mut().map(received).collect();
        let images: Vec<&RgbImage> = of_requests.iter().flatten().flatten().collect();
        let ranks = self.model.decoder.ranks();
        let mut embeddings = self.image_cache.encode_images_over(&images, ranks)?.into_iter();
        let added = requests.into_iter().zip(of_requests).map(|(request, images)| {
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
        let TensorParallelRequest { ids, sampling, max_tokens, stream, .. } = request;
        let prompt: Prompt =
            self.image_cache.vision_encoder().expand_placeholders(&ids, embeddings)?;
        let request = one_completion(&self.model, sampling, prompt, max_tokens, stream);
        Ok(self.engine.add(&request.request, &request.sampling)?)
    }

    fn step_rank(&mut self) -> Result<Vec<EngineOutput>> {
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

    /// The other ranks may wait for another message.
    const ERRORS_ARE_FINAL: bool = true;

    fn samples(_: &TensorParallelRequest) -> usize {
        1
    }

    fn submit(
        &mut self,
        requests: Vec<TensorParallelRequest>,
        cancelled: &[(RequestId, usize)],
    ) -> Result<Vec<Result<RequestId>>> {
        let is_cancelled = |request| cancelled.iter().any(|(other, _)| other == request);
        let numbered = self.requests.iter().filter(|(_, request)| is_cancelled(*request));
        let cancelled = numbered.map(|(number, _)| *number).collect();
        let command = StepCommand { cancelled, requests, is_last: false };
        self.broadcast(&command)?;
        self.apply(command)
    }

    fn step(&mut self) -> Result<Vec<EngineOutput>> {
        self.step_rank()
    }

    fn stats(&self) -> EngineStats {
        self.engine.stats()
    }

    fn idle(&self) {
        self.model.decoder.ranks().heartbeat();
    }

    fn end(self) -> Result<()> {
        self.broadcast(&StepCommand { is_last: true, ..StepCommand::default() })
    }
}
