//! The decoder and its tokenizer as the trainer's model and text.

use std::path::Path;
use std::sync::Arc;

use candle_core::Tensor;
use embodied_r_policy::tokenizer::{Special, Tokenizer};
use embodied_r_policy::weights::SaveOptions;
use embodied_r_policy::{GenerateEvent, Gradients as PolicyGradients, Policy};

use super::{
    ChatMessage, Generation, Gradients, Group, Model, Precision, Request, Sample, Sampling, Text,
    TokenScores,
};
use crate::error::Result;

impl Model for Policy {
    type Gradients = PolicyGradients;

    fn zero_gradients(&self) -> Result<Self::Gradients> {
        Ok(Policy::zero_gradients(self)?)
    }

    fn score(&self, groups: &[Group], temperature: f64) -> Result<TokenScores> {
        Ok(Policy::score(self, groups, temperature)?)
    }

    fn backward(
        &self,
        groups: &[Group],
        temperature: f64,
        gradients: &mut Self::Gradients,
        derivative: &mut dyn FnMut(&TokenScores) -> Result<Vec<f32>>,
    ) -> Result<()> {
        let forward = self.forward(groups, temperature)?;
        let derivative = derivative(forward.scores())?;
        Ok(forward.backward(&derivative, gradients)?)
    }

    fn generate(
        &self,
        requests: &[Request],
        sampling: &Sampling,
        precision: Option<Precision>,
        done: &dyn Fn(u64),
    ) -> Result<Vec<Vec<Sample>>> {
        let on_event = |event| {
            if let GenerateEvent::Tokens(tokens) = event {
                done(tokens as u64);
            }
        };
        let precision = precision.unwrap_or_else(|| self.precision());
        let model = Arc::new(self.inference_model(precision)?);
        Ok(model.generate(requests, sampling, &on_event)?)
    }

    fn parameters(&self) -> Vec<(String, Tensor)> {
        let tensors = Policy::parameters(self).iter();
        tensors.map(|(name, tensor)| (name.to_owned(), tensor.clone())).collect()
    }

    fn frozen_copy(&self) -> Result<Self> {
        Ok(Policy::frozen_copy(self)?)
    }

    fn save(&self, dir: &Path) -> Result<()> {
        Ok(Policy::save(self, dir, &SaveOptions::default())?)
    }

    fn load(dir: &Path, precision: Precision) -> Result<Self> {
        Ok(Policy::load(dir)?.with_precision(precision))
    }
}

impl Gradients for PolicyGradients {
    fn clear(&mut self) -> Result<()> {
        Ok(PolicyGradients::clear(self)?)
    }

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
