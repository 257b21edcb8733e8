//! The policy: a decoder with its weights, for scoring and training.

mod encoder;
mod pass;
mod scores;
mod trained;

use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use embodied_r_kernels::attention::Heads;
use embodied_r_kernels::device::has_kernels;
use embodied_r_kernels::lm_head::LmHead;
use embodied_r_kernels::rope::Frequencies;
use embodied_r_kernels::{Precision, embedding};
use indexmap::IndexMap;

use crate::config::ModelConfig;
use crate::decoder::Decoder;
use crate::error::{Error, Result};
use crate::gguf::{self, GgufModel};
use crate::image_rows::{BatchImage, Embedded, ImageBackward, ImageGradients};
use crate::lora::{self, Adapter, Lora};
use crate::packed::{Group, PackedBatch};
use crate::parameters::{Gradients, Parameters};
use crate::prompt::{ImageEmbedder, Prompt};
use crate::weights::{self, Multimodal, SaveOptions, WriterRank};

/// Default memory for saved activations; the rest is recomputed in the backward.
const ACTIVATION_BYTES: usize = 4 << 30;

/// A decoder and its weights. Engine and trainer share them, so that the next rollout sees an optimizer
/// step without a weight sync.
pub struct Policy {
    pub(crate) config: ModelConfig,
    /// All tensors of the model, without an adapter's.
    weights: Parameters,
    /// The trained tensors.
    parameters: Parameters,
    /// The LoRA adapter that is trained in place of the model.
    pub(crate) lora: Option<Lora>,
    pub(crate) decoder: Decoder,
    frequencies: Frequencies,
    activation_bytes: usize,
    precision: Precision,
    /// The rest of a multimodal checkpoint that the decoder comes from.
    multimodal: Option<Multimodal>,
    layer_hook: Option<LayerHook>,
    images: PolicyImages,
}

/// The images in the prompts of a policy.
#[derive(Clone, Default)]
struct PolicyImages {
    /// Has the embeddings that prompts lack.
    embedder: Option<Arc<dyn ImageEmbedder>>,
    /// Whether backward passes compute the gradients of embeddings.
    trained: bool,
}

/// The dtype of matrices on `device` in `precision`.
fn matrix_dtype(device: &Device, precision: Precision) -> DType {
    match precision {
        Precision::Bf16 if has_kernels(device) => DType::BF16,
        _ => DType::F32,
    }
}

/// Called after every layer of a forward or backward pass, for heartbeats.
pub type LayerHook = Arc<dyn Fn() + Send + Sync>;

/// Scores of the tokens of all completions, concatenated in the order of the groups.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenScores {
    /// Natural log-probability of each token.
    pub logps: Vec<f32>,
    /// Entropy, in nats, of the distribution at each token.
    pub entropies: Vec<f32>,
}

impl Policy {
    /// Loads the model in `dir`, a folder in Hugging Face's layout, a GGUF file or a folder with one; weights are
    /// converted to `f32`. An adapter folder loads the base model with the adapter merged.
    ///
    /// # Errors
    /// A file is missing, configuration and weights do not match, or the adapter does not match its base model.
    pub fn load(dir: &Path) -> Result<Self> {
        Self::load_on(&Device::Cpu, dir, Precision::F32)
    }

    /// As [`Self::load`], on `device` in `precision`, as [`Self::to_device`] says. A GPU gets the tensors one by one in the
    /// dtype that it keeps them in, so that the host never holds the model; a GGUF file, or an adapter's base model, is in
    /// host memory as a whole.
    ///
    /// # Errors
    /// As [`Self::load`], or the device is out of memory.
    pub fn load_on(device: &Device, dir: &Path, precision: Precision) -> Result<Self> {
        if let Some(base) = lora::base_model_dir(dir)? {
            lora::check_base(dir, &base)?;
            let policy = Self::load(&base)?;
            let adapter = Adapter::open(dir, &policy.config)?;
            return policy.merged(Arc::new(adapter))?.with_precision(precision).to_device(device);
        }
        if let Some(file) = gguf::find(dir)? {
            let model = GgufModel::open(&file)?;
            let weights = Parameters::new(model.dequantize()?);
            return Self::new(model.config().clone(), weights)?
                .with_precision(precision)
                .to_device(device);
        }
        let config = ModelConfig::from_dir(dir)?;
        let files = weights::open(dir)?;
        let tensors = match has_kernels(device) {
            true => {
                let matrices = matrix_dtype(device, precision);
                weights::decoder_on(device, dir, &files, &config, matrices)?
            }
            false => weights::decoder(dir, &files, &config)?,
        };
        let multimodal = Multimodal::find(dir, &files)?;
        let policy = Self::of_tensors_on(device, config, tensors, precision)?;
        Ok(Self { multimodal, ..policy })
    }

    /// A model with random weights, determined by the seed.
    ///
    /// # Errors
    /// The configuration is inconsistent.
    pub fn random(config: &ModelConfig, seed: u64) -> Result<Self> {
        Self::new(config.clone(), Parameters::random(config, seed)?)
    }

    /// A model on `device` with the random weights that [`weights::write_random`] writes, of which the host holds one tensor
    /// at a time. `precision` is as in [`Self::to_device`].
    ///
    /// # Errors
    /// The configuration is inconsistent, or the device is out of memory.
    pub fn random_on(
        device: &Device,
        config: &ModelConfig,
        seed: u64,
        precision: Precision,
    ) -> Result<Self> {
        let matrices = matrix_dtype(device, precision);
        let tensors = weights::random_on(device, config, seed, matrices)?;
        Self::of_tensors_on(device, config.clone(), tensors, precision)
    }

    /// A model of `tensors` that are on `device`, matrices in the dtype of `precision` there.
    fn of_tensors_on(
        device: &Device,
        config: ModelConfig,
        tensors: IndexMap<String, Tensor>,
        precision: Precision,
    ) -> Result<Self> {
        let mut weights = Parameters::new(tensors);
        if has_kernels(device) {
            weights = weights.with_contiguous_projections(config.num_hidden_layers)?;
        }
        Ok(Self::new(config, weights)?.with_precision(precision))
    }

    /// Moves the model to `device`. On a GPU, [`Precision::Bf16`] stores activations and matrices in bf16, an
    /// adapter's too; the optimizer keeps f32 master weights of the trained matrices.
    ///
    /// # Errors
    /// The device is out of memory.
    pub fn to_device(self, device: &Device) -> Result<Self> {
        let matrices = matrix_dtype(device, self.precision);
        if self.device().same_device(device) && self.decoder.embedding.dtype() == matrices {
            return Ok(self);
        }
        let mut weights = self.weights.to_device(device, matrices)?;
        if has_kernels(device) {
            weights = weights.with_contiguous_projections(self.config.num_hidden_layers)?;
        }
        let trained: Vec<&str> = self.parameters.iter().map(|(name, _)| name).collect();
        let parameters = weights.only(&trained);
        let decoder = Decoder::new(weights.tensors(), &self.config)?;
        let moved = Self { weights, parameters, decoder, lora: None, ..self };
        match self.lora {
            Some(lora) => moved.with_lora(&lora),
            None => Ok(moved),
        }
    }

    /// The device of its tensors.
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
            layer_hook: None,
            images: PolicyImages::default(),
        })
    }

    /// Sets a hook that is called after every layer of scoring and training, also in frozen copies of this model.
    pub fn with_layer_hook(self, layer_hook: LayerHook) -> Self {
        Self { layer_hook: Some(layer_hook), ..self }
    }

    /// Sets where the embeddings of images come from that prompts lack, and whether backward passes also compute the
    /// gradients of all image embeddings ([`Gradients::images`]).
    #[must_use]
    pub fn with_images(self, embedder: Arc<dyn ImageEmbedder>, trained: bool) -> Self {
        Self { images: PolicyImages { embedder: Some(embedder), trained }, ..self }
    }

    /// The prompt with the embeddings of its images.
    ///
    /// # Errors
    /// As [`Prompt::embedded`].
    pub(crate) fn embedded(&self, prompt: &Prompt) -> Result<Prompt> {
        prompt.embedded(self.images.embedder.as_deref())
    }

    /// Calls the layer hook, if set.
    pub(crate) fn call_layer_hook(&self) {
        if let Some(layer_hook) = &self.layer_hook {
            layer_hook();
        }
    }

    /// Sets how many bytes of activations a forward pass may save; with 0, every layer is recomputed from its input.
    pub fn with_activation_bytes(mut self, bytes: usize) -> Self {
        self.activation_bytes = bytes;
        self
    }

    /// Sets the matmul precision of sampling, scoring and gradients. On the CPU, weights stay f32; in bf16,
    /// weights and embeddings are rounded when they are used.
    pub fn with_precision(mut self, precision: Precision) -> Self {
        self.precision = precision;
        self
    }

    /// The matmul precision.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Writes configuration and weights to `dir` in Hugging Face's layout, without the tokenizer. With an adapter, only
    /// the adapter is written, in `peft`'s layout.
    ///
    /// The decoder of a multimodal checkpoint is saved as a multimodal checkpoint: encoder, configuration and processor
    /// are written unchanged, and tensors keep their names.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn save(&self, dir: &Path, options: &SaveOptions) -> Result<()> {
        self.save_sharded(dir, options, WriterRank::SINGLE)
    }

    /// As [`Self::save`], but only this rank's shards of the weights; an adapter is written by the first rank. The
    /// checkpoint is complete once all ranks are done.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn save_sharded(
        &self,
        dir: &Path,
        options: &SaveOptions,
        writer: WriterRank,
    ) -> Result<()> {
        if let Some(lora) = &self.lora {
            if !writer.is_first() {
                return Ok(());
            }
            let base_model = match self.multimodal {
                Some(_) => lora::BaseModel::Multimodal,
                None => lora::BaseModel::Text,
            };
            return lora.save(dir, base_model, options.dtype);
        }
        if let Some(multimodal) = &self.multimodal {
            return multimodal.save(dir, self.weights.iter(), options, writer);
        }
        if writer.is_first() {
            ModelConfig { dtype: options.dtype, ..self.config.clone() }.save(dir)?;
        }
        weights::save_sharded(dir, self.weights.iter(), options, writer)
    }

    /// The model's configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The trainable tensors: all, unless restricted by [`Self::with_trainable`].
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// All tensors of the model, trained or frozen, without an adapter's.
    pub fn weights(&self) -> &Parameters {
        &self.weights
    }

    /// Whether every tensor is trained.
    pub(crate) fn trains_all(&self) -> bool {
        self.lora.is_none() && self.parameters.elem_count() == self.weights.elem_count()
    }

    /// The model's configuration and its tensors.
    pub(crate) fn into_weights(self) -> (ModelConfig, IndexMap<String, Tensor>) {
        (self.config, self.weights.into_tensors())
    }

    /// The lowest layer that a gradient has to reach; the number of layers if none.
    pub(crate) fn lowest_trained(&self) -> usize {
        match self.images.trained {
            true => 0,
            false => self.parameters.lowest_layer(self.config.num_hidden_layers),
        }
    }

    /// Zero gradients for each trainable tensor.
    ///
    /// # Errors
    /// Out of memory.
    pub fn zero_gradients(&self) -> Result<Gradients> {
        let gradients = Gradients::zeros(&self.parameters, &self.config)?;
        let levels = self.images.embedder.as_ref().map_or(1, |embedder| embedder.levels());
        Ok(gradients.with_images(self.images.trained.then(|| ImageGradients::new(levels))))
    }

    /// Whether training uses dropout.
    pub(crate) fn has_dropout(&self) -> bool {
        self.lora.as_ref().is_some_and(|lora| lora.config.lora_dropout > 0.0)
    }

    /// How many layers may save the activations of `tokens` tokens.
    pub(crate) fn layers_to_save(&self, tokens: usize) -> usize {
        let layer = self.config.pass_bytes(tokens, size_of::<f32>()).layer.max(1);
        (self.activation_bytes / layer).min(self.config.num_hidden_layers)
    }

    pub(crate) fn pack(&self, groups: &[Group]) -> Result<PackedBatch> {
        let is_multimodal = self.config.rope.mrope_section.is_some();
        if let Some(index) = groups.iter().position(|group| !group.prompt.is_text())
            && !is_multimodal
        {
            let fault = "the prompt has an image, but the model is text-only".to_owned();
            return Err(Error::Sequence { index, fault });
        }
        PackedBatch::new(groups, self.config.vocab_size, self.config.max_position_embeddings)
    }

    /// The embeddings of the tokens and images of a batch.
    pub(crate) fn embed(&self, batch: &PackedBatch) -> Result<Embedded> {
        let x = self.embed_tokens(&batch.ids)?;
        let features =
            |image: &'_ BatchImage| image.image.embedded(self.images.embedder.as_deref());
        let features = batch.images.iter().map(features).collect::<Result<Vec<_>>>()?;
        let images: Vec<_> = batch.images.iter().zip(features).collect();
        Embedded::new(x, &images)
    }

    /// What a backward pass of `batch` needs for the gradients of image features that are added after a layer.
    pub(crate) fn image_backward<'a>(
        &self,
        batch: &'a PackedBatch,
        images: Option<&'a ImageGradients>,
    ) -> Option<ImageBackward<'a>> {
        images.map(|gradients| ImageBackward { gradients, images: &batch.images })
    }

    /// The tokens' embeddings (tokens, hidden).
    pub(crate) fn embed_tokens(&self, ids: &[usize]) -> Result<Tensor> {
        Ok(embedding::gather_cast(&self.decoder.embedding, ids, self.precision)?)
    }

    pub(crate) fn head(&self, temperature: f64) -> LmHead<'_> {
        LmHead { weight: &self.decoder.head, temperature, precision: self.precision }
    }

    pub(crate) fn heads(&self) -> Heads {
        Heads {
            query: self.config.num_attention_heads,
            kv: self.config.num_key_value_heads,
            dim: self.config.head_dim,
        }
    }
}
