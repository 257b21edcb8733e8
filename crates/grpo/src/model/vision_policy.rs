//! A vision-language model as the trainer's model: the decoder, and the embeddings of its images.

use std::path::Path;
use std::sync::Arc;

use candle_core::Tensor;
use embodied_r_media::store::ImageStore;
use embodied_r_policy::{ActivationCache, Gradients, ImageEmbedder, LoraConfig, Policy};
use embodied_r_vision::{TowerGradients, TowerOptions, TrainableTower, VisionModule};
use indexmap::IndexMap;

use super::{
    ActivationCacheOptions, GenerateOptions, GenerationRequest, GradientReadyHook, Group,
    LayerHook, LoadOptions, Model, NamedGradients, Prompt, Samples, SamplingParams, TokenScores,
    Trainable, TrainingPass, WriterRank,
};
use crate::error::{Error, Result};
use crate::images::trained::{ImagePass, TrainedImages};
use crate::images::{ReferenceTower, RunImages};
use crate::settings::Fault;

/// A vision-language model. Its parameters are those of the vision tower, if it is trained, and then the decoder's.
pub struct VisionPolicy {
    decoder: Policy,
    encoder: Encoder,
    /// The images, for copies of this model.
    images: Arc<RunImages>,
    /// The settings of the adapter that is trained, if one is.
    lora: Option<LoraConfig>,
}

/// What encodes the images.
enum Encoder {
    /// A frozen tower: once per run.
    Frozen(Arc<ImageStore>),
    /// A trained tower: once per step.
    Trained(Arc<TrainedImages>),
}

/// The gradients of a vision-language model.
pub struct VisionGradients {
    /// None if the tower is frozen.
    tower: Option<TowerGradients>,
    decoder: Gradients,
}

impl NamedGradients for VisionGradients {
    fn get(&self, name: &str) -> Option<&Tensor> {
        let of_tower = self.tower.as_ref().and_then(|tower| tower.get(name));
        of_tower.or_else(|| self.decoder.get(name))
    }

    fn norm(&self) -> Result<f64> {
        let tower = self.tower.as_ref().map_or(Ok(0.0), TowerGradients::norm)?;
        Ok(tower.hypot(self.decoder.norm()?))
    }
}

impl VisionPolicy {
    fn frozen(decoder: Policy, store: Arc<ImageStore>, images: Arc<RunImages>) -> Self {
        let embedder: Arc<dyn ImageEmbedder> = store.clone();
        let decoder = decoder.with_images(embedder, false);
        Self { decoder, encoder: Encoder::Frozen(store), images, lora: None }
    }

    /// A frozen copy with a vision tower of its own, saved with it.
    fn with_own_tower(&self, decoder: Policy, tower: TrainableTower) -> Self {
        let decoder = with_tower(decoder.with_encoder_of(&self.decoder), &tower);
        let store = Arc::new(self.images.frozen.with_tower(tower));
        Self::frozen(decoder, store, self.images.clone())
    }

    /// The trained tower, if copies have one of their own.
    fn copied_tower(&self) -> Option<&TrainableTower> {
        let training = self.images.training.as_ref()?;
        match (&self.encoder, training.reference) {
            (Encoder::Trained(images), ReferenceTower::Own) => Some(images.tower()),
            _ => None,
        }
    }

    fn trained(
        decoder: Policy,
        trained: TrainedImages,
        images: Arc<RunImages>,
        lora: Option<LoraConfig>,
    ) -> Self {
        let trained = Arc::new(trained);
        let embedder: Arc<dyn ImageEmbedder> = trained.clone();
        let decoder = with_tower(decoder, trained.tower()).with_images(embedder, true);
        Self { decoder, encoder: Encoder::Trained(trained), images, lora }
    }

    /// The decoder.
    #[must_use]
    pub fn decoder(&self) -> &Policy {
        &self.decoder
    }

    /// Log-probabilities of a prompt's tokens after the first, placeholders included.
    ///
    /// # Errors
    /// The prompt is invalid for the model, or an image cannot be encoded.
    pub fn score_prompt(&self, prompt: &Prompt) -> Result<Vec<f32>> {
        self.prepare([prompt], None)?;
        Ok(self.decoder.score_prompt(prompt)?)
    }

    /// Gets the embeddings of all images of `prompts`. With a seed of dropout masks, a backward pass will follow.
    fn prepare<'a>(
        &self,
        prompts: impl IntoIterator<Item = &'a Prompt>,
        dropout_seed: Option<u64>,
    ) -> Result<()> {
        match &self.encoder {
            Encoder::Frozen(store) => Ok(store.prepare(prompts)?),
            Encoder::Trained(images) => {
                let training = |seed| ImagePass::training(images.tower(), seed);
                images.prepare(prompts, dropout_seed.map_or(ImagePass::Forward, training))
            }
        }
    }

    /// Number of elements of the trained tower, which come first.
    fn tower_elements(&self) -> usize {
        match &self.encoder {
            Encoder::Frozen(_) => 0,
            Encoder::Trained(images) => {
                images.tower().parameters().map(|(_, tensor)| tensor.elem_count()).sum()
            }
        }
    }
}

/// `decoder`, saved with the tensors of `tower`.
fn with_tower(decoder: Policy, tower: &TrainableTower) -> Policy {
    let owned = |(name, tensor): (&str, &Tensor)| (name.to_owned(), tensor.clone());
    match tower.has_adapters() {
        true => decoder.with_encoder_adapter(tower.adapters().map(owned).collect()),
        false => decoder.with_encoder_tensors(tower.tensors().map(owned).collect()),
    }
}

/// `tower` with the adapter in `dir`, or with a new one if that is `base`.
fn adapted(
    tower: TrainableTower,
    lora: &LoraConfig,
    (dir, base): (&Path, &Path),
    seed: u64,
) -> Result<TrainableTower> {
    let adapters = adapters(&tower, lora, (dir, base), seed)?;
    Ok(tower.with_adapters(adapters, lora.scale())?.with_lora_dropout(lora.lora_dropout))
}

/// Name suffixes of the two tensors of an adapter.
const NAMES: [&str; 2] = [".lora_A.weight", ".lora_B.weight"];

/// The adapters of `tower` in `dir`, or new ones if that is `base`, by layer.
fn adapters(
    tower: &TrainableTower,
    lora: &LoraConfig,
    (dir, base): (&Path, &Path),
    seed: u64,
) -> Result<IndexMap<String, [Tensor; 2]>> {
    let shapes = lora.encoder_shapes(tower.tensors().map(|(name, tensor)| (name, tensor.dims())));
    check_targets(tower, lora)?;
    Ok(lora.encoder_adapters(dir, base, &shapes, seed)?)
}

/// Checks that each part of `tower` has layers among those that `lora` names: other families have other names.
fn check_targets(tower: &TrainableTower, lora: &LoraConfig) -> Result<()> {
    let there = VisionModule::of_tower(tower.config());
    for (is_merger, part) in [(false, "vision tower"), (true, "aligner")] {
        let of_part = |module: &&VisionModule| module.is_of_merger() == is_merger;
        let names_any = |modules: &[VisionModule]| {
            let mut modules = modules.iter().filter(of_part);
            modules.any(|module| lora.encoder_modules.contains(module.layer()))
        };
        if names_any(VisionModule::all()) && !names_any(&there) {
            let example = there.iter().find(of_part).map_or("", |module| module.name());
            let what =
                format!("names no layer of this model's {part}; add one, such as `{example}`");
            return Err(Error::Settings(vec![Fault::new("lora_target_modules", what)]));
        }
    }
    Ok(())
}

fn prompts(groups: &[Group]) -> impl Iterator<Item = &Prompt> {
    groups.iter().map(|group| &group.prompt)
}

impl Model for VisionPolicy {
    type Gradients = VisionGradients;
    type ActivationCache = ActivationCache;

    fn zero_gradients(&self) -> Result<VisionGradients> {
        let tower = match &self.encoder {
            Encoder::Frozen(_) => None,
            Encoder::Trained(images) => Some(images.tower().zero_gradients()?),
        };
        Ok(VisionGradients { tower, decoder: Model::zero_gradients(&self.decoder)? })
    }

    fn score(&self, groups: &[Group], temperature: f64) -> Result<TokenScores> {
        self.prepare(prompts(groups), None)?;
        Model::score(&self.decoder, groups, temperature)
    }

    fn backward(
        &self,
        groups: &[Group],
        training: &TrainingPass<'_, ActivationCache>,
        gradients: &mut VisionGradients,
        derivative: &mut dyn FnMut(&TokenScores) -> Result<Vec<f32>>,
        on_final: &mut GradientReadyHook<'_>,
    ) -> Result<()> {
        self.prepare(prompts(groups), Some(training.dropout_seed))?;
        let first = self.tower_elements();
        let on_final = &mut |from: usize| on_final(first + from);
        self.decoder.backward(groups, training, &mut gradients.decoder, derivative, on_final)
    }

    fn score_chunks(
        &self,
        prompt: &Prompt,
        parts: &[&[Vec<u32>]],
        temperature: f64,
    ) -> Result<Vec<TokenScores>> {
        self.prepare([prompt], None)?;
        Model::score_chunks(&self.decoder, prompt, parts, temperature)
    }

    fn backward_chunks(
        &self,
        prompt: &Prompt,
        parts: &[&[Vec<u32>]],
        training: &TrainingPass<'_, ActivationCache>,
        gradients: &mut VisionGradients,
        derivative: &mut dyn FnMut(usize, &TokenScores) -> Result<Vec<f32>>,
        on_final: &mut GradientReadyHook<'_>,
    ) -> Result<()> {
        self.prepare([prompt], Some(training.dropout_seed))?;
        let first = self.tower_elements();
        let on_final = &mut |from: usize| on_final(first + from);
        let gradients = &mut gradients.decoder;
        self.decoder.backward_chunks(prompt, parts, training, gradients, derivative, on_final)
    }

    fn finish_backward(
        &self,
        gradients: &mut VisionGradients,
        on_final: &mut GradientReadyHook<'_>,
    ) -> Result<()> {
        let (Encoder::Trained(images), Some(tower)) = (&self.encoder, &mut gradients.tower) else {
            return Ok(());
        };
        let of_images = gradients.decoder.images().map(|images| images.take()).unwrap_or_default();
        images.backward(of_images, tower, on_final)
    }

    fn parameters_changed(&self) {
        match &self.encoder {
            Encoder::Frozen(store) if store.own_tower().is_none() => {}
            Encoder::Frozen(store) => store.weights_changed(),
            Encoder::Trained(images) => images.weights_changed(),
        }
    }

    fn learning_rate_scale(&self, name: &str) -> f64 {
        let is_of_tower = match &self.encoder {
            Encoder::Frozen(_) => false,
            Encoder::Trained(images) => images.tower().parameters().any(|(own, _)| own == name),
        };
        let training = self.images.training.as_ref().filter(|_| is_of_tower);
        training.map_or(1.0, |training| training.learning_rate_scale)
    }

    fn prefetch(&self, prompts: &[&Prompt]) {
        let prompts = prompts.iter().copied();
        match &self.encoder {
            Encoder::Frozen(store) => store.prefetch(prompts),
            Encoder::Trained(images) => images.prefetch(prompts),
        }
    }

    fn with_layer_hook(self, on_layer: LayerHook) -> Self {
        if let Encoder::Trained(images) = &self.encoder {
            images.tower().set_layer_hook(on_layer.clone());
        }
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
        // A rollout with an activation cache is followed by an update under the same weights.
        let prompts = requests.iter().map(|request| &request.prompt);
        match (&self.encoder, &options.activation_cache) {
            (Encoder::Trained(images), Some(_)) => images.prepare(prompts, ImagePass::Training)?,
            _ => self.prepare(prompts, None)?,
        }
        Model::generate(&self.decoder, requests, sampling, options, on_step)
    }

    fn parameters(&self) -> Vec<(String, Tensor)> {
        let decoder = Model::parameters(&self.decoder);
        match &self.encoder {
            Encoder::Frozen(_) => decoder,
            Encoder::Trained(images) => {
                let tower = images.tower().parameters();
                let tower = tower.map(|(name, tensor)| (name.to_owned(), tensor.clone()));
                tower.chain(decoder).collect()
            }
        }
    }

    fn all_tensors(&self) -> Vec<(String, Tensor)> {
        let decoder = self.decoder.all_tensors();
        let tower = match &self.encoder {
            Encoder::Frozen(store) => store.own_tower(),
            Encoder::Trained(images) => Some(images.tower()),
        };
        let tower = tower.into_iter().flat_map(|tower| tower.tensors().chain(tower.adapters()));
        let tower = tower.map(|(name, tensor)| (name.to_owned(), tensor.clone()));
        tower.chain(decoder).collect()
    }

    /// The tower of a copy is that of the base model, which a run copies before it trains, unless the settings of the
    /// images give it one of its own.
    fn frozen_copy(&self) -> Result<Self> {
        let decoder = Model::frozen_copy(&self.decoder)?;
        if let Some(tower) = self.copied_tower() {
            return Ok(self.with_own_tower(decoder, tower.frozen_copy()?));
        }
        Ok(Self::frozen(decoder, self.images.frozen.clone(), self.images.clone()))
    }

    fn load_frozen(&self, dir: &Path) -> Result<Self> {
        let decoder = Model::load_frozen(&self.decoder, dir)?;
        // What such a run has saved has a tower of its own, also if the reference follows the policy no more.
        let saved = match &self.encoder {
            Encoder::Trained(images) if dir != self.images.frozen.model() => Some(images.tower()),
            _ => None,
        };
        if let Some(tower) = saved.or_else(|| self.copied_tower()) {
            let tower = match &self.lora {
                Some(lora) => {
                    let adapters = adapters(tower, lora, (dir, self.images.frozen.model()), 0)?;
                    tower.frozen_with(|name, _| {
                        let found = NAMES.iter().enumerate().find_map(|(index, part)| {
                            adapters.get(name.strip_suffix(part)?).map(|pair| pair[index].clone())
                        });
                        found.ok_or_else(|| Error::Model { what: format!("has no `{name}`") })
                    })?
                }
                None => tower.load_frozen(dir)?,
            };
            return Ok(self.with_own_tower(decoder, tower));
        }
        Ok(Self::frozen(decoder, self.images.frozen.clone(), self.images.clone()))
    }

    fn save(&self, dir: &Path, share: WriterRank) -> Result<()> {
        Model::save(&self.decoder, dir, share)
    }

    fn load(dir: &Path, load_options: &LoadOptions<'_>) -> Result<Self> {
        let none = || Error::Model { what: "was loaded without the images of its data".into() };
        let images = load_options.images.clone().ok_or_else(none)?;
        let decoder = <Policy as Model>::load(dir, load_options)?;
        let Some(training) = images.training else {
            return Ok(Self::frozen(decoder, images.frozen.clone(), images));
        };
        let options = TowerOptions {
            frozen: training.frozen,
            precision: load_options.precision,
            device: load_options.device.clone(),
        };
        let processor = images.table().processor().clone();
        let tower = match &load_options.trainable {
            Trainable::Lora(lora) => {
                let base = load_options.base;
                let tower = TrainableTower::load(base, processor, &options)?;
                adapted(tower, lora, (dir, base), load_options.seed)?
            }
            _ => TrainableTower::load(dir, processor, &options)?,
        };
        let trained = TrainedImages::new(images.table().clone(), tower, training.activation_bytes);
        let lora = match &load_options.trainable {
            Trainable::Lora(lora) => Some(lora.clone()),
            _ => None,
        };
        Ok(Self::trained(decoder, trained, images, lora))
    }
}
