//! The decoder and its tokenizer as the trainer's model and text.

use std::path::Path;

use candle_core::Tensor;
use embodied_r_policy::tokenizer::{Special, Tokenizer};
use embodied_r_policy::weights::SaveOptions;
use embodied_r_policy::{Gradients as PolicyGradients, Policy, SharedPrompt, Tape};

use super::{
    ChatMessage, Generation, Gradients, Group, Loading, Model, OnFinal, OnLayer, Precision,
    Request, Samples, Sampling, Share, TapeOptions, Text, TokenScores, Training,
};
use crate::error::Result;

impl Model for Policy {
    type Gradients = PolicyGradients;
    type Tape = Tape;

    fn zero_gradients(&self) -> Result<Self::Gradients> {
        Ok(Policy::zero_gradients(self)?)
    }

    fn score(&self, groups: &[Group], temperature: f64) -> Result<TokenScores> {
        Ok(Policy::score(self, groups, temperature)?)
    }

    fn backward(
        &self,
        groups: &[Group],
        training: &Training<'_, Tape>,
        gradients: &mut Self::Gradients,
        derivative: &mut dyn FnMut(&TokenScores) -> Result<Vec<f32>>,
        on_final: &mut OnFinal<'_>,
    ) -> Result<()> {
        let &Training { temperature, noise, tape } = training;
        let forward = self.training_forward(groups, temperature, noise, tape)?;
        let derivative = derivative(forward.scores())?;
        Ok(forward.backward_telling(&derivative, gradients, on_final)?)
    }

    fn score_parts(
        &self,
        prompt: &[u32],
        parts: &[Vec<Vec<u32>>],
        temperature: f64,
    ) -> Result<Vec<TokenScores>> {
        Ok(Policy::score_parts(self, prompt, parts, temperature)?)
    }

    fn backward_parts(
        &self,
        prompt: &[u32],
        parts: &[Vec<Vec<u32>>],
        training: &Training<'_, Tape>,
        gradients: &mut Self::Gradients,
        derivative: &mut dyn FnMut(usize, &TokenScores) -> Result<Vec<f32>>,
        on_final: &mut OnFinal<'_>,
    ) -> Result<()> {
        let tokens = |part: &Vec<Vec<u32>>| part.iter().map(Vec::len).sum::<usize>();
        let longest = parts.iter().map(tokens).max().unwrap_or(0);
        let &Training { temperature, noise, tape } = training;
        let shared = SharedPrompt::new(self, prompt, longest, temperature, (Some(noise), tape))?;
        for (index, part) in parts.iter().enumerate() {
            let forward = shared.part(part)?;
            let derivative = derivative(index, forward.scores())?;
            forward.backward(&derivative, gradients)?;
        }
        Ok(shared.backward_telling(gradients, on_final)?)
    }

    fn with_on_layer(self, on_layer: OnLayer) -> Self {
        Policy::with_on_layer(self, on_layer)
    }

    fn forward_flops(&self, groups: &[Group]) -> f64 {
        self.config().forward_flops(groups)
    }

    fn tape(&self, options: TapeOptions) -> Tape {
        Tape::new(self.config(), options)
    }

    fn generate(
        &self,
        requests: &[Request],
        sampling: &Sampling,
        (precision, tape): (Option<Precision>, Option<Tape>),
        on_step: &dyn Fn(),
    ) -> Result<(Samples, Option<Tape>)> {
        let precision = precision.unwrap_or_else(|| self.precision());
        Ok(self.generate_taped(requests, sampling, (precision, tape), &|_| on_step())?)
    }

    fn parameters(&self) -> Vec<(String, Tensor)> {
        let tensors = Policy::parameters(self).iter();
        tensors.map(|(name, tensor)| (name.to_owned(), tensor.clone())).collect()
    }

    fn frozen_copy(&self) -> Result<Self> {
        Ok(Policy::frozen_copy(self)?)
    }

    fn load_frozen(&self, dir: &Path) -> Result<Self> {
        Ok(Policy::load_frozen(self, dir)?)
    }

    fn save(&self, dir: &Path, share: Share) -> Result<()> {
        Ok(self.save_share(dir, &SaveOptions::default(), share)?)
    }

    fn load(dir: &Path, loading: &Loading<'_>) -> Result<Self> {
        let Loading { base, precision, activation_bytes, trainable, seed, device } = loading;
        let policy = Policy::load_trainable(dir, base, trainable, *seed)?;
        let policy = policy.with_precision(*precision).to_device(device)?;
        Ok(policy.with_activation_bytes(*activation_bytes))
    }
}

impl Gradients for PolicyGradients {
    fn get(&self, name: &str) -> Option<&Tensor> {
        PolicyGradients::get(self, name)
    }

    fn norm(&self) -> Result<f64> {
        Ok(PolicyGradients::norm(self)?)
    }
}

impl Text for Tokenizer {
    fn render(&self, messages: &[ChatMessage], generation: Generation) -> Result<String> {
        Ok(Tokenizer::render(self, messages, generation)?)
    }

    fn encode(&self, text: &str) -> Result<Vec<u32>> {
        Ok(Tokenizer::encode(self, text)?)
    }

    fn decode(&self, ids: &[u32]) -> Result<String> {
        Ok(Tokenizer::decode(self, ids, Special::Skip)?)
    }

    fn stop_ids(&self) -> &[u32] {
        Tokenizer::stop_ids(self)
    }

    fn save(&self, dir: &Path) -> Result<()> {
        Ok(Tokenizer::save(self, dir)?)
    }
}
