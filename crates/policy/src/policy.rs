//! A decoder with its weights: loaded, copied, saved, scored, differentiated.

mod pass;
mod trained;

use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use embodied_r_kernels::attention::Heads;
use embodied_r_kernels::device::has_kernels;
use embodied_r_kernels::lm_head::Head;
use embodied_r_kernels::rope::{Angles, Frequencies};
use embodied_r_kernels::{Precision, embedding};
use indexmap::IndexMap;

use crate::config::ModelConfig;
use crate::decoder::{Decoder, Sharing};
use crate::error::Result;
use crate::forward::{Forward, HeadPass};
use crate::gguf::{self, GgufModel};
use crate::lora::{self, Adapter, Lora};
use crate::packed::{Group, PackedBatch};
use crate::parameters::{Gradients, Parameters};
use crate::tape::Tape;
use crate::weights::{self, Multimodal, SaveOptions, Share};

/// Memory that a forward pass may fill with activations before the backward computes them anew.
const ACTIVATION_BYTES: usize = 4 << 30;

/// A decoder and its weights. Engine and trainer share them: a step of the optimiser is seen by the
/// next rollout at no cost.
pub struct Policy {
    pub(crate) config: ModelConfig,
    /// All tensors of the model; an adapter's are apart.
    weights: Parameters,
    /// Those that are trained.
    parameters: Parameters,
    /// The adapter that is trained in place of the model.
    pub(crate) lora: Option<Lora>,
    pub(crate) decoder: Decoder,
    frequencies: Frequencies,
    activation_bytes: usize,
    precision: Precision,
    /// What the decoder was taken out of, if that was a vision-language checkpoint.
    multimodal: Option<Multimodal>,
    on_layer: Option<OnLayer>,
}

/// Called after every layer of a pass, forward and backward: a sign that it gets on.
pub type OnLayer = Arc<dyn Fn() + Send + Sync>;

/// What a pass gives for the tokens of all completions, end to end in the order of the groups.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenScores {
    /// Natural log-probability of each token.
    pub logps: Vec<f32>,
    /// Entropy, in nats, of the distribution that each token was drawn from.
    pub entropies: Vec<f32>,
}

impl Policy {
    /// Reads the model in `dir`, a folder in Hugging Face's layout, or a GGUF file or a folder with one; its weights
    /// become `f32`. An adapter's folder gives the model that it stands on with the adapter merged into it.
    ///
    /// # Errors
    /// The folder lacks a file, configuration and weights do not fit each other, or the adapter does not fit its model.
    pub fn load(dir: &Path) -> Result<Self> {
        if let Some(base) = lora::base_of(dir)? {
            let policy = Self::load(&base)?;
            Adapter::open(dir, &policy.config)?.apply(&policy.weights)?;
            return Ok(policy);
        }
        if let Some(file) = gguf::find(dir)? {
            let model = GgufModel::open(&file)?;
            return Self::new(model.config().clone(), Parameters::new(model.dequantize()?));
        }
        let config = ModelConfig::from_dir(dir)?;
        let files = weights::open(dir)?;
        let tensors = weights::decoder(dir, &files, &config)?;
        let multimodal = Multimodal::find(dir, &files)?;
        Ok(Self { multimodal, ..Self::new(config, Parameters::new(tensors))? })
    }

    /// A model with fresh weights, the same for the same seed.
    ///
    /// # Errors
    /// The configuration is impossible.
    pub fn random(config: &ModelConfig, seed: u64) -> Result<Self> {
        Self::new(config.clone(), Parameters::random(config, seed)?)
    }

    /// The same model with its tensors on `device`, where all that it is asked for is computed then. On a device with
    /// kernels of its own activations and matrices are bf16 in [`Precision::Bf16`]; who trains the model keeps masters of
    /// the matrices.
    ///
    /// # Errors
    /// There is no room on the device.
    pub fn to_device(self, device: &Device) -> Result<Self> {
        let matrices = match self.precision {
            Precision::Bf16 if has_kernels(device) => DType::BF16,
            _ => DType::F32,
        };
        if self.device().same_device(device) && self.decoder.embedding.dtype() == matrices {
            return Ok(self);
        }
        let mut weights = self.weights.to_device(device, matrices)?;
        if has_kernels(device) {
            weights = weights.side_by_side(self.config.num_hidden_layers)?;
        }
        let trained: Vec<&str> = self.parameters.iter().map(|(name, _)| name).collect();
        let parameters = weights.only(&trained);
        let lora = self.lora.as_ref().map(|lora| lora.to_device(device)).transpose()?;
        let decoder = Decoder::new(weights.tensors(), &self.config)?;
        let moved = Self { weights, parameters, decoder, lora: None, ..self };
        Ok(match lora {
            Some(lora) => moved.with_lora(lora),
            None => moved,
        })
    }

    /// Where its tensors are.
    pub fn device(&self) -> &Device {
        self.decoder.norm.device()
    }

    pub(crate) fn new(config: ModelConfig, weights: Parameters) -> Result<Self> {
        let decoder = Decoder::new(weights.tensors(), &config)?;
        let frequencies = config.rope.frequencies(config.head_dim);
        let activation_bytes = ACTIVATION_BYTES;
        let (precision, multimodal) = (Precision::F32, None);
        Ok(Self {
            config,
            parameters: weights.clone(),
            weights,
            lora: None,
            decoder,
            frequencies,
            activation_bytes,
            precision,
            multimodal,
            on_layer: None,
        })
    }

    /// Sets what is called after every layer of scoring and training, in frozen copies of this model too.
    pub fn with_on_layer(self, on_layer: OnLayer) -> Self {
        Self { on_layer: Some(on_layer), ..self }
    }

    /// A pass has left a layer.
    pub(crate) fn passed_layer(&self) {
        if let Some(on_layer) = &self.on_layer {
            on_layer();
        }
    }

    /// Sets how many bytes of activations a forward pass may keep; 0 keeps each layer's input only.
    pub fn with_activation_bytes(mut self, bytes: usize) -> Self {
        self.activation_bytes = bytes;
        self
    }

    /// Sets what the products with weights are made of, in sampling, scoring and the gradients. The
    /// weights themselves stay f32; in bf16 they are rounded as they are used, and so are tokens as
    /// they are looked up.
    pub fn with_precision(mut self, precision: Precision) -> Self {
        self.precision = precision;
        self
    }

    /// What the products with weights are made of.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// The decoder alone: saved, it is a plain text model, whatever it was taken out of.
    pub fn text_only(self) -> Self {
        Self { multimodal: None, ..self }
    }

    /// Writes configuration and weights to `dir` in Hugging Face's layout; the tokenizer is apart. Of a model with an
    /// adapter only the adapter is written, in `peft`'s layout.
    ///
    /// The decoder of a vision-language checkpoint goes back into that checkpoint: its vision tower, its configuration
    /// and its image processor are written as they were read, and its tensors keep their names.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn save(&self, dir: &Path, options: &SaveOptions) -> Result<()> {
        self.save_share(dir, options, Share::ALL)
    }

    /// As [`Self::save`], but this writer's share of the files only; an adapter is the first writer's. The folder is whole
    /// once all writers are done.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn save_share(&self, dir: &Path, options: &SaveOptions, share: Share) -> Result<()> {
        if let Some(lora) = &self.lora {
            if !share.is_first() {
                return Ok(());
            }
            let within = match self.multimodal {
                Some(_) => lora::Within::VisionLanguage,
                None => lora::Within::Text,
            };
            return lora.save(dir, within, options.dtype);
        }
        if let Some(multimodal) = &self.multimodal {
            return multimodal.save(dir, self.weights.iter(), options, share);
        }
        if share.is_first() {
            ModelConfig { dtype: options.dtype, ..self.config.clone() }.save(dir)?;
        }
        weights::save_share(dir, self.weights.iter(), options, share)
    }

    /// The model's shape.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The trainable tensors: all, unless [`Self::with_trainable`] has said otherwise.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// All tensors of the model, trained or not; those of an adapter are apart.
    pub fn weights(&self) -> &Parameters {
        &self.weights
    }

    /// Whether every tensor is trained.
    pub(crate) fn trains_all(&self) -> bool {
        self.lora.is_none() && self.parameters.numbers() == self.weights.numbers()
    }

    /// The model's shape and its tensors, which nothing else holds then.
    pub(crate) fn into_weights(self) -> (ModelConfig, IndexMap<String, Tensor>) {
        (self.config, self.weights.into_tensors())
    }

    /// The lowest layer that a gradient has to reach; the number of layers if none.
    pub(crate) fn lowest_trained(&self) -> usize {
        self.parameters.lowest_layer(self.config.num_hidden_layers)
    }

    /// Zero gradients for each trainable tensor.
    ///
    /// # Errors
    /// There is no room for them.
    pub fn zero_gradients(&self) -> Result<Gradients> {
        Gradients::zeros(&self.parameters, &self.config)
    }

    /// Log-probabilities and entropies of all completions' tokens at `temperature`, without gradient.
    ///
    /// # Errors
    /// A group is not one that the model can take.
    pub fn score(&self, groups: &[Group], temperature: f64) -> Result<TokenScores> {
        let batch = self.pack(groups)?;
        let pass = self.pass(&batch, None);
        let x = self.embedded(&batch.ids)?;
        let x = self.through(x, &pass, |_| Sharing::Alone, |_, _, _| Ok(()))?;
        let picked = embedding::gather(&x, &batch.sources)?;
        Ok(HeadPass::forward(self, picked, &batch.targets, temperature)?.scores)
    }

    /// As [`Self::score`], keeping what [`Forward::backward`] needs.
    ///
    /// # Errors
    /// As [`Self::score`].
    pub fn forward(&self, groups: &[Group], temperature: f64) -> Result<Forward<'_>> {
        Forward::new(self, self.pack(groups)?, temperature, None)
    }

    /// As [`Self::forward`], with the dropout of an adapter. What is dropped follows from `noise` and from the tokens
    /// alone, however they are packed. Without dropout what is on the `tape` of a rollout with these weights is not
    /// computed again.
    ///
    /// # Errors
    /// As [`Self::score`].
    pub fn training_forward<'a>(
        &'a self,
        groups: &[Group],
        temperature: f64,
        noise: u64,
        tape: Option<&'a Tape>,
    ) -> Result<Forward<'a>> {
        let batch = self.pack(groups)?;
        let tape = tape.filter(|_| !self.drops());
        match tape.and_then(|tape| tape.packed(groups, &batch.ends)) {
            Some(taped) => Forward::taped(self, batch, temperature, taped),
            None => Forward::new(self, batch, temperature, Some(noise)),
        }
    }

    /// Whether training drops something.
    pub(crate) fn drops(&self) -> bool {
        self.lora.as_ref().is_some_and(|lora| lora.config.lora_dropout > 0.0)
    }

    /// How many layers may keep the activations of `tokens` tokens.
    pub(crate) fn kept_layers(&self, tokens: usize) -> usize {
        let layer = self.config.pass_bytes(tokens, size_of::<f32>()).layer.max(1);
        (self.activation_bytes / layer).min(self.config.num_hidden_layers)
    }

    pub(crate) fn pack(&self, groups: &[Group]) -> Result<PackedBatch> {
        PackedBatch::new(groups, self.config.vocab_size, self.config.max_position_embeddings)
    }

    /// The tokens as the first layer takes them (tokens, hidden).
    pub(crate) fn embedded(&self, ids: &[usize]) -> Result<Tensor> {
        Ok(embedding::gather_in(&self.decoder.embedding, ids, self.precision)?)
    }

    pub(crate) fn head(&self, temperature: f64) -> Head<'_> {
        Head { weight: &self.decoder.head, temperature, precision: self.precision }
    }

    /// The angles of text: a token's place in time, height and width is the same.
    pub(crate) fn angles(&self, positions: &[usize]) -> Angles {
        Angles::new(positions, &self.frequencies)
    }

    pub(crate) fn heads(&self) -> Heads {
        Heads {
            query: self.config.num_attention_heads,
            kv: self.config.num_key_value_heads,
            dim: self.config.head_dim,
        }
    }
}
