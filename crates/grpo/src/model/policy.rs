//! The decoder and its tokenizer as the trainer's model and tokenizer.

use std::path::Path;

use candle_core::Tensor;
use embodied_r_policy::tokenizer::{SpecialTokens, Tokenizer};
use embodied_r_policy::weights::SaveOptions;
use embodied_r_policy::{ActivationCache, Gradients, Policy, SharedPrompt};

use super::{
    ActivationCacheOptions, ChatMessage, ChatTokenizer, GenerateOptions, GenerationPrompt,
    GenerationRequest, GradientReadyHook, Group, LayerHook, LoadOptions, Model, MultimodalMessage,
    NamedGradients, Prompt, RenderedChat, Samples, SamplingParams, TokenScores, TrainingPass,
    WriterRank,
};
use crate::error::Result;

impl Model for Policy {
    type Gradients = Gradients;
    type ActivationCache = ActivationCache;

    fn zero_gradients(&self) -> Result<Self::Gradients> {
        Ok(Policy::zero_gradients(self)?)
    }

    fn score(&self, groups: &[Group], temperature: f64) -> Result<TokenScores> {
        Ok(Policy::score(self, groups, temperature)?)
    }

    fn backward(
        &self,
        groups: &[Group],
        training: &TrainingPass<'_, ActivationCache>,
        gradients: &mut Self::Gradients,
        derivative: &mut dyn FnMut(&TokenScores) -> Result<Vec<f32>>,
        on_final: &mut GradientReadyHook<'_>,
    ) -> Result<()> {
        let &TrainingPass { temperature, dropout_seed, activation_cache } = training;
        let forward = self.training_forward(groups, temperature, dropout_seed, activation_cache)?;
        let derivative = derivative(forward.scores())?;
        Ok(forward.backward_with_hook(&derivative, gradients, on_final)?)
    }

    fn score_chunks(
        &self,
        prompt: &Prompt,
        parts: &[&[Vec<u32>]],
        temperature: f64,
    ) -> Result<Vec<TokenScores>> {
        Ok(Policy::score_chunks(self, prompt, parts, temperature)?)
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
        let tokens = |part: &&[Vec<u32>]| part.iter().map(Vec::len).sum::<usize>();
        let longest = parts.iter().map(tokens).max().unwrap_or(0);
        let &TrainingPass { temperature, dropout_seed, activation_cache } = training;
        let shared = SharedPrompt::new(
            self,
            prompt,
            longest,
            temperature,
            (Some(dropout_seed), activation_cache),
        )?;
        for (index, part) in parts.iter().enumerate() {
            let forward = shared.forward_chunk(part)?;
            let derivative = derivative(index, forward.scores())?;
            forward.backward(&derivative, gradients)?;
        }
        Ok(shared.backward_with_hook(gradients, on_final)?)
    }

    fn with_layer_hook(self, on_layer: LayerHook) -> Self {
        Policy::with_layer_hook(self, on_layer)
    }

    fn context_length(&self) -> usize {
        self.config().max_position_embeddings
    }

    fn forward_flops(&self, groups: &[Group]) -> f64 {
        self.config().forward_flops(groups)
    }

    fn activation_cache(&self, options: ActivationCacheOptions) -> ActivationCache {
        ActivationCache::new(self.config(), options)
    }

    fn generate(
        &self,
        requests: &[GenerationRequest],
        sampling: &SamplingParams,
        options: GenerateOptions,
        on_step: &dyn Fn(),
    ) -> Result<(Samples, Option<ActivationCache>)> {
        Ok(self.generate_with_activation_cache(requests, sampling, options, &|_| on_step())?)
    }

    fn parameters(&self) -> Vec<(String, Tensor)> {
        let tensors = Policy::parameters(self).iter();
        tensors.map(|(name, tensor)| (name.to_owned(), tensor.clone())).collect()
    }

    fn all_tensors(&self) -> Vec<(String, Tensor)> {
        let adapter = Model::parameters(self);
        let tensors = self.weights().iter();
        let mut tensors: Vec<(String, Tensor)> =
            tensors.map(|(name, tensor)| (name.to_owned(), tensor.clone())).collect();
        // The parameters are an adapter's, or some of the weights.
        tensors.extend(adapter.into_iter().filter(|(name, _)| self.weights().get(name).is_none()));
        tensors
    }

    fn frozen_copy(&self) -> Result<Self> {
        Ok(Policy::frozen_copy(self)?)
    }

    fn load_frozen(&self, dir: &Path) -> Result<Self> {
        Ok(Policy::load_frozen(self, dir)?)
    }

    fn save(&self, dir: &Path, share: WriterRank) -> Result<()> {
        Ok(self.save_sharded(dir, &SaveOptions::default(), share)?)
    }

    fn load(dir: &Path, load_options: &LoadOptions<'_>) -> Result<Self> {
        let LoadOptions { base, precision, activation_bytes, trainable, seed, device, .. } =
            load_options;
        let policy = Policy::load_trainable_on(device, (dir, base), trainable, *seed, *precision)?;
        Ok(policy.with_activation_bytes(*activation_bytes))
    }
}

impl NamedGradients for Gradients {
    fn get(&self, name: &str) -> Option<&Tensor> {
        Gradients::get(self, name)
    }

    fn norm(&self) -> Result<f64> {
        Ok(Gradients::norm(self)?)
    }
}

impl ChatTokenizer for Tokenizer {
    fn apply_chat_template(
        &self,
        messages: &[ChatMessage],
        generation: GenerationPrompt,
    ) -> Result<RenderedChat> {
        Ok(Tokenizer::apply_chat_template(self, messages, generation)?)
    }

    fn apply_multimodal_template(
        &self,
        messages: &[MultimodalMessage],
        generation: GenerationPrompt,
    ) -> Result<RenderedChat> {
        Ok(Tokenizer::apply_chat_template(self, messages, generation)?)
    }

    fn plain(&self, text: &str) -> RenderedChat {
        Tokenizer::plain(self, text)
    }

    fn encode(&self, chat: &RenderedChat) -> Result<Vec<u32>> {
        Ok(self.encode_chat(chat)?)
    }

    fn decode(&self, ids: &[u32]) -> Result<String> {
        Ok(Tokenizer::decode(self, ids, SpecialTokens::Skip)?)
    }

    fn stop_ids(&self) -> &[u32] {
        Tokenizer::stop_ids(self)
    }

    fn save(&self, dir: &Path) -> Result<()> {
        Ok(Tokenizer::save(self, dir)?)
    }
}
