//! Completions of conversations with images, on one rank or several.

mod options;
mod request;
mod tensor_parallel;

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use embodied_r_media::embedding_cache::EmbeddingCache;
use embodied_r_policy::tokenizer::GenerationPrompt;
use embodied_r_policy::{Engine, EngineStats, SamplingSettings, TensorParallel};
use embodied_r_vision::MultimodalMessage;
use image::RgbImage;

use crate::completion::Completion;
use crate::engine_core::{EngineClient, EngineCore};
use crate::error::{Error, Result};
use crate::generation::{Generation, GenerationOptions};
use crate::model::Model;
pub use options::VisionEngineOptions;
use request::one_completion;
use tensor_parallel::{SentImage, TensorParallelRequest, TensorParallelWorker};

/// A vision-language model with its engine on a thread of its own, which is joined on drop. Image embeddings and shared
/// prompt prefixes are computed once.
pub struct VisionEngine {
    model: Model,
    image_cache: Arc<EmbeddingCache>,
    defaults: SamplingSettings,
    /// Before `_thread`, which ends when the client is dropped.
    client: Client,
    _thread: JoinOnDrop,
}

enum Client {
    SingleRank(EngineClient<Engine>),
    /// On this rank and others.
    TensorParallel(EngineClient<TensorParallelWorker>),
}

/// The shutdown message of a thread to other ranks must precede any later message.
struct JoinOnDrop(Option<JoinHandle<()>>);

impl Drop for JoinOnDrop {
    fn drop(&mut self) {
        if let Some(thread) = self.0.take() {
            let _ = thread.join();
        }
    }
}

/// A conversation with images, and how to complete it.
#[derive(Debug, Clone)]
pub struct ImageChat {
    /// The messages, with a placeholder for each image.
    pub messages: Vec<MultimodalMessage>,
    /// The images, in order.
    pub images: Vec<RgbImage>,
    /// Sampling temperature; `None` uses the model's default.
    pub temperature: Option<f64>,
    /// Maximum tokens of the completion.
    pub max_tokens: usize,
    /// The random stream.
    pub stream: u64,
}

/// A conversation that is ready for the engine.
pub struct PreparedChat<'a> {
    /// Its number of tokens, those of images included.
    pub prompt_tokens: usize,
    submit: Box<dyn FnOnce() -> Generation + Send + 'a>,
}

impl PreparedChat<'_> {
    /// Submits the conversation to the engine.
    #[must_use]
    pub fn submit(self) -> Generation {
        (self.submit)()
    }
}

impl VisionEngine {
    /// Loads the model in `dir`, a Hugging Face folder or a GGUF file with its vision encoder's GGUF next to it, with
    /// tensor parallelism over `ranks`. Rank 0 gets the engine; the other ranks serve its requests until it is dropped,
    /// then get `None`.
    ///
    /// # Errors
    /// It is not a vision-language model, cannot be loaded or partitioned so, or a rank fails.
    pub fn load(
        dir: &Path,
        options: &VisionEngineOptions,
        ranks: &TensorParallel,
    ) -> Result<Option<Self>> {
        let model = Model::load_shard(dir, &options.vision, ranks)?;
        if ranks.is_first() {
            return Self::new(dir, model, options).map(Some);
        }
        TensorParallelWorker::new(dir, &model, options)?.run()?;
        Ok(None)
    }

    /// An engine for `model`, which was loaded from `dir` with [`VisionEngineOptions::vision`].
    ///
    /// # Errors
    /// It has no vision encoder, or the KV cache does not fit in memory.
    pub fn new(dir: &Path, model: Model, options: &VisionEngineOptions) -> Result<Self> {
        let defaults = SamplingSettings::from_dir(dir)?;
        let (image_cache, client, thread) = match model.decoder.ranks().is_single_rank() {
            true => {
                let image_cache = options.image_cache(dir, &model)?;
                let (client, core) = EngineCore::new(options.engine(&model)?);
                (image_cache, Client::SingleRank(client), core.spawn()?)
            }
            false => {
                let worker = TensorParallelWorker::new(dir, &model, options)?;
                let image_cache = worker.image_cache().clone();
                let (client, core) = EngineCore::new(worker);
                (image_cache, Client::TensorParallel(client), core.spawn()?)
            }
        };
        let thread = JoinOnDrop(Some(thread));
        Ok(Self { model, image_cache, defaults, client, _thread: thread })
    }

    /// The image embedding cache.
    #[must_use]
    pub fn image_cache(&self) -> &EmbeddingCache {
        &self.image_cache
    }

    /// The engine's statistics after its last step.
    #[must_use]
    pub fn stats(&self) -> EngineStats {
        match &self.client {
            Client::SingleRank(client) => client.stats(),
            Client::TensorParallel(client) => client.stats(),
        }
    }

    /// Renders and tokenizes the conversation, and encodes its images unless all ranks do.
    ///
    /// # Errors
    /// The chat template rejects the messages, or an image is invalid.
    pub async fn prepare(&self, chat: ImageChat) -> Result<PreparedChat<'_>> {
        let ImageChat { messages, images, temperature, max_tokens, stream } = chat;
        let given = SamplingSettings { temperature, ..SamplingSettings::default() };
        let sampling = given.or(self.defaults);
        match &self.client {
            Client::SingleRank(client) => {
                let (model, cache) = (self.model.clone(), self.image_cache.clone());
                // On a blocking thread, since the vision encoder is slow.
                let work = move || -> Result<_> {
                    let embeddings = cache.encode_images(&images.iter().collect::<Vec<_>>())?;
                    Ok(model.prompt(&messages, &embeddings)?.prompt)
                };
                let prompt =
                    tokio::task::spawn_blocking(work).await.map_err(Error::TaskFailed)??;
                let prompt_tokens = prompt.len();
                let request = one_completion(&self.model, sampling, prompt, max_tokens, stream);
                let submit = || client.submit(vec![request], GenerationOptions::default());
                Ok(PreparedChat { prompt_tokens, submit: Box::new(submit) })
            }
            Client::TensorParallel(client) => {
                let tokenizer = &self.model.tokenizer;
                let chat = tokenizer.apply_chat_template(&messages, GenerationPrompt::Append)?;
                let ids = tokenizer.encode_chat(&chat)?;
                let mut prompt_tokens = ids.len() - images.len().min(ids.len());
                for image in &images {
                    let size = image.dimensions();
                    prompt_tokens += self.image_cache.vision_encoder().image_tokens(size)?;
                }
                let images = images.into_iter().map(SentImage::from).collect();
                let request = TensorParallelRequest { ids, images, sampling, max_tokens, stream };
                let submit = || client.submit(vec![request], GenerationOptions::default());
                Ok(PreparedChat { prompt_tokens, submit: Box::new(submit) })
            }
        }
    }

    /// Waits for the completion of a conversation.
    ///
    /// # Errors
    /// The engine rejects the prompt, or has failed.
    pub async fn completion(&self, generation: Generation) -> Result<Completion> {
        let tokenizer = &self.model.tokenizer;
        Completion::new(tokenizer, tokenizer.stop_ids()).read(generation).await
    }
}
