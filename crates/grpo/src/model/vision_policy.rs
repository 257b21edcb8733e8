//! A vision-language model as the trainer's model: the decoder, and the embeddings of its images.

use std::path::Path;
use std::sync::Arc;

use candle_core::Tensor;
use embodied_r_policy::{ActivationCache, Gradients, ImageEmbedder, Policy};

use super::{
    ActivationCacheOptions, GenerateOptions, GenerationRequest, GradientReadyHook, Group,
    LayerHook, LoadOptions, Model, Prompt, Samples, SamplingParams, TokenScores, TrainingPass,
    WriterRank,
};
use crate::error::{Error, Result};
use crate::images::store::ImageStore;

/// A vision-language model with a frozen vision tower. Images are encoded once per run.
pub struct VisionPolicy {
    decoder: Policy,
    images: Arc<ImageStore>,
}

impl VisionPolicy {
    /// `decoder`, whose images are those of `images`.
    #[must_use]
    pub fn new(decoder: Policy, images: Arc<ImageStore>) -> Self {
        let embedder: Arc<dyn ImageEmbedder> = images.clone();
        Self { decoder: decoder.with_images(embedder, false), images }
    }

    /// The decoder.
    #[must_use]
    pub fn decoder(&self) -> &Policy {
        &self.decoder
    }

    /// The embeddings of the images.
    #[must_use]
    pub fn images(&self) -> &Arc<ImageStore> {
        &self.images
    }

    fn prepare(&self, groups: &[Group]) -> Result<()> {
        self.images.prepare(groups.iter().map(|group| &group.prompt))
    }
}

impl Model for VisionPolicy {
    type Gradients = Gradients;
    type ActivationCache = ActivationCache;

    fn zero_gradients(&self) -> Result<Self::Gradients> {
        Model::zero_gradients(&self.decoder)
    }

    fn score(&self, groups: &[Group], temperature: f64) -> Result<TokenScores> {
        self.prepare(groups)?;
        Model::score(&self.decoder, groups, temperature)
    }

    fn backward(
        &self,
        groups: &[Group],
        training: &TrainingPass<'_, ActivationCache>,
        gradients: &mut Self::Gradients,
        derivative: &mut dyn FnMut(&TokenScores) -> Result<Vec<f32>>,
        on_final: &mut GradientReadyHook<'_>,
    ) -> Result<()> {
        self.prepare(groups)?;
        self.decoder.backward(groups, training, gradients, derivative, on_final)
    }

    fn score_chunks(
        &self,
        prompt: &Prompt,
        parts: &[&[Vec<u32>]],
        temperature: f64,
    ) -> Result<Vec<TokenScores>> {
        self.images.prepare([prompt])?;
        Model::score_chunks(&self.decoder, prompt, parts, temperature)
    }

    fn backward_chunks(
        &self,
        prompt: &Prompt,
        parts: &[&[Vec<u32>]],
        training: &TrainingPass<'_, ActivationCache>,
        gradients: &mut Self::Gradients,
        derivative: &mut dyn FnMut(usize, &TokenScores) -> Result<Vec<f32>>,
        on_final: &mut GradientReadyHook<'_>,
    ) -> Result<()> {
        self.images.prepare([prompt])?;
        self.decoder.backward_chunks(prompt, parts, training, gradients, derivative, on_final)
    }

    fn prefetch(&self, prompts: &[&Prompt]) {
        self.images.prefetch(prompts.iter().copied());
    }

    fn with_layer_hook(self, on_layer: LayerHook) -> Self {
        Self { decoder: Policy::with_layer_hook(self.decoder, on_layer), ..self }
    }

    fn context_length(&self) -> usize {
        self.decoder.context_length()
    }

    fn forward_flops(&self, groups: &[Group]) -> f64 {
        self.decoder.forward_flops(groups)
    }

    fn activation_cache(&self, options: ActivationCacheOptions) -> ActivationCache {
        self.decoder.activation_cache(options)
    }

    fn generate(
        &self,
        requests: &[GenerationRequest],
        sampling: &SamplingParams,
        options: GenerateOptions,
        on_step: &dyn Fn(),
    ) -> Result<(Samples, Option<ActivationCache>)> {
        self.images.prepare(requests.iter().map(|request| &request.prompt))?;
        Model::generate(&self.decoder, requests, sampling, options, on_step)
    }

    fn parameters(&self) -> Vec<(String, Tensor)> {
        Model::parameters(&self.decoder)
    }

    fn all_tensors(&self) -> Vec<(String, Tensor)> {
        self.decoder.all_tensors()
    }

    fn frozen_copy(&self) -> Result<Self> {
        let decoder = Model::frozen_copy(&self.decoder)?;
        Ok(Self { decoder, images: self.images.clone() })
    }

    fn load_frozen(&self, dir: &Path) -> Result<Self> {
        let decoder = Model::load_frozen(&self.decoder, dir)?;
        Ok(Self { decoder, images: self.images.clone() })
    }

    fn save(&self, dir: &Path, share: WriterRank) -> Result<()> {
        Model::save(&self.decoder, dir, share)
    }

    fn load(dir: &Path, load_options: &LoadOptions<'_>) -> Result<Self> {
        let decoder = <Policy as Model>::load(dir, load_options)?;
        let none = || Error::Model { what: "was loaded without the images of its data".into() };
        Ok(Self::new(decoder, load_options.images.clone().ok_or_else(none)?))
    }
}
