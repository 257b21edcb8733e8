//! Loads a decoder for inference from a policy, a folder or a GGUF file; each rank reads its shard.

use std::cell::RefCell;
use std::path::Path;

use candle_core::{DType, Tensor};
use embodied_r_kernels::device::has_kernels;
use embodied_r_kernels::weight::{self, Weight, WeightFormat};
use embodied_r_kernels::{Precision, WeightPlacement};

use super::super::linear::{Layer, Linear, LowRank};
use super::InferenceModel;
use crate::config::ModelConfig;
use crate::error::{Error, Result, TensorContext as _};
use crate::gguf::{self, GgufModel, GgufTensor};
use crate::lora::{self, Adapter, Module};
use crate::policy::Policy;
use crate::tensor_parallel::{Shard, TensorParallel, TensorSlice};
use crate::tensors::{EMBEDDING, FINAL_NORM, HEAD, layer_of};
use crate::weights;

impl Policy {
    /// The model for inference. In f32 it shares the policy's weights and sees later updates; in bf16 it is a copy
    /// of the current weights. An adapter's tensors are shared in both.
    ///
    /// # Errors
    /// Out of memory.
    pub fn inference_model(&self, precision: Precision) -> Result<InferenceModel> {
        self.inference(|weight| match precision {
            Precision::Bf16 if !is_shared(weight, precision) => Weight::bf16(weight),
            _ => Weight::f32(weight),
        })
    }

    /// The model for a rollout with the current weights. In full-parameter training on the CPU it is a copy in f32 too:
    /// its layout is faster to sample from, and it is freed before the update's gradients are allocated.
    ///
    /// # Errors
    /// As [`Self::inference_model`].
    pub fn rollout_model(&self, precision: Precision) -> Result<InferenceModel> {
        match self.trains_all() {
            true => self.inference(|weight| match is_shared(weight, precision) {
                true => Weight::f32(weight),
                false => Weight::in_format(weight, precision.into()),
            }),
            false => self.inference_model(precision),
        }
    }

    fn inference(
        &self,
        weight: impl Fn(&Tensor) -> embodied_r_kernels::Result<Weight>,
    ) -> Result<InferenceModel> {
        let tensors = self.weights();
        let get = |name: &str| tensors.get(name).cloned().ok_or_else(|| missing(name));
        let weight = |name: &str| Ok(weight(&get(name)?)?);
        let low_rank = |name: &str| {
            let get = |part: &str| self.parameters().get(&format!("{name}.{part}"));
            match (&self.lora, get(lora::A), get(lora::B)) {
                (Some(lora), Some(a), Some(b)) => LowRank::new(a, b, lora.config.scale()).map(Some),
                _ => Ok(None),
            }
        };
        let ranks = TensorParallel::single_rank();
        let shard = Shard::new(self.config(), (0, 1), 1)?;
        InferenceModel::new(self.config().clone(), (&shard, &ranks), weight, get, low_rank)
    }
}

/// Whether inference in `precision` can share the training weight: on a device, if the dtypes are equal.
fn is_shared(weight: &Tensor, precision: Precision) -> bool {
    let held = match precision {
        Precision::F32 => DType::F32,
        Precision::Bf16 => DType::BF16,
    };
    has_kernels(weight.device()) && weight.dtype() == held
}

/// A matrix of an unmerged adapter: on a device in the activations' dtype, so that no product converts it.
fn adapter_matrix(tensor: &Tensor, placement: &WeightPlacement) -> Result<Tensor> {
    let tensor = placement.vector(tensor)?;
    match placement.format {
        WeightFormat::F32 => Ok(tensor),
        _ if !has_kernels(&placement.device) => Ok(tensor),
        _ => tensor.to_dtype(DType::BF16).context("convert an adapter"),
    }
}

fn missing(name: &str) -> Error {
    Error::MissingTensor { name: name.to_owned() }
}

impl InferenceModel {
    /// Loads a model: a folder in Hugging Face's layout, with matrices in the format of `placement`, or a GGUF file,
    /// whose quantized blocks are kept. An adapter folder loads the base model with the adapter: merged into
    /// unquantized weights, unmerged next to quantized ones.
    ///
    /// # Errors
    /// As [`Policy::load`].
    pub fn load(path: &Path, placement: impl Into<WeightPlacement>) -> Result<Self> {
        Self::load_shard(path, placement, &TensorParallel::single_rank())
    }

    /// As [`Self::load`], but only this rank's tensor-parallel shard; nothing else is read from the files.
    ///
    /// # Errors
    /// As [`Self::load`]; [`Error::ShardSize`], [`Error::ShardBlock`] or [`Error::ShardAdapter`] if the model cannot be
    /// sharded over so many ranks.
    pub fn load_shard(
        path: &Path,
        placement: impl Into<WeightPlacement>,
        ranks: &TensorParallel,
    ) -> Result<Self> {
        let placement = placement.into();
        let base = lora::base_model_dir(path)?;
        if base.is_some() && !ranks.is_single_rank() {
            return Err(Error::ShardAdapter { dir: path.to_owned() });
        }
        let Some(file) = gguf::find(base.as_deref().unwrap_or(path))? else {
            return match base {
                Some(_) => Self::of_policy(Policy::load(path)?, &placement),
                None => Self::of_folder(path, &placement, ranks),
            };
        };
        let model = GgufModel::open(&file)?;
        let shard =
            Shard::new(model.config(), (ranks.rank(), ranks.world_size()), gguf_block(&model)?)?;
        let adapter = match &base {
            Some(base) => {
                lora::check_base(path, base)?;
                Some(Adapter::open(path, model.config())?)
            }
            None => None,
        };
        // The embedding is also used for lookups, which do not support an unmerged adapter.
        let unmerged = |name: &str| {
            let adapter = adapter.as_ref().filter(|adapter| !adapter.replaces(name))?;
            adapter.update(name).filter(|_| layer_of(name).is_some())
        };
        let changed = |name: &str| -> Result<Tensor> {
            let tensor = model.tensor_slice(name, &shard.of(name))?.dequantize()?;
            if let Some(adapter) = &adapter {
                adapter.apply_to(name, &tensor)?;
            }
            Ok(tensor)
        };
        let weight = |name: &str| {
            let stays = unmerged(name).is_some()
                || !adapter.as_ref().is_some_and(|adapter| adapter.changes(name));
            match model.tensor_slice(name, &shard.of(name))? {
                GgufTensor::Matrix(matrix) if stays => Ok(placement.blocks(&matrix)?),
                _ => Ok(Weight::f32(&placement.vector(&changed(name)?)?)?),
            }
        };
        let vector = |name: &str| Ok(placement.vector(&changed(name)?)?);
        let low_rank = |name: &str| match unmerged(&format!("{name}.weight")) {
            Some(update) => {
                let [a, b] =
                    [&update.a, &update.b].map(|tensor| adapter_matrix(tensor, &placement));
                LowRank::new(&a?, &b?, update.scale).map(Some)
            }
            None => Ok(None),
        };
        Self::new(model.config().clone(), (&shard, ranks), weight, vector, low_rank)?
            .with_fused_projections()
    }

    /// Loads a folder's model. Tensors are read one by one, so that at most one exists in f32.
    fn of_folder(dir: &Path, placement: &WeightPlacement, ranks: &TensorParallel) -> Result<Self> {
        let (config, format) = (ModelConfig::from_dir(dir)?, placement.format);
        let shard = Shard::new(
            &config,
            (ranks.rank(), ranks.world_size()),
            format.block_len(config.intermediate_size),
        )?;
        let tensors = weights::find(dir, &weights::open(dir)?, &config)?;
        let stored = |name: &str| tensors.get(name).ok_or_else(|| missing(name));
        let read = |name: &str| stored(name)?.read_slice(name, &shard.of(name));
        let weight = |name: &str| {
            let (slice, stored) = (shard.of(name), stored(name)?);
            // A slice has the format of the whole matrix.
            let format = format.for_rows(stored.shape().last().copied().unwrap_or_default());
            if let (TensorSlice::Columns(taken), [_, inputs]) = (&slice, stored.shape()) {
                let block = format.block_len(*inputs);
                let mut ends = [taken.start, taken.end].into_iter();
                if let Some(column) = ends.find(|column| !column.is_multiple_of(block)) {
                    let (name, format) = (name.to_owned(), format.name());
                    return Err(Error::ShardBlock { name, column, format, block });
                }
            }
            let placement = WeightPlacement { format, ..placement.clone() };
            Ok(placement.matrix(&stored.read_slice(name, &slice)?)?)
        };
        let vector = |name: &str| Ok(placement.vector(&read(name)?)?);
        Self::new(config, (&shard, ranks), weight, vector, |_| Ok(None))?.with_fused_projections()
    }

    /// Converts a policy. Each tensor is freed as soon as it is copied.
    fn of_policy(policy: Policy, placement: &WeightPlacement) -> Result<Self> {
        let (config, tensors) = policy.into_weights();
        let shard = Shard::new(&config, (0, 1), 1)?;
        let tensors = RefCell::new(tensors);
        let take = |name: &str| tensors.borrow_mut().swap_remove(name).ok_or_else(|| missing(name));
        let weight = |name: &str| Ok(placement.matrix(&take(name)?)?);
        let vector = |name: &str| Ok(placement.vector(&take(name)?)?);
        Self::new(config, (&shard, &TensorParallel::single_rank()), weight, vector, |_| Ok(None))?
            .with_fused_projections()
    }

    /// Fuses the projections with the same input on a device. The weights must not be shared.
    fn with_fused_projections(mut self) -> Result<Self> {
        for layer in &mut self.layers {
            self.ranks.heartbeat();
            let Layer { q, k, v, gate, up, .. } = layer;
            let weights =
                weight::fuse_projections([&q.weight, &k.weight, &v.weight].map(Weight::clone))?;
            [q.weight, k.weight, v.weight] = weights;
            [gate.weight, up.weight] =
                weight::fuse_projections([&gate.weight, &up.weight].map(Weight::clone))?;
        }
        Ok(self)
    }

    /// A model of its shard of each tensor, by canonical name, and the adapters of its linear modules.
    fn new(
        config: ModelConfig,
        (shard, ranks): (&Shard, &TensorParallel),
        weight: impl Fn(&str) -> Result<Weight>,
        vector: impl Fn(&str) -> Result<Tensor>,
        low_rank: impl Fn(&str) -> Result<Option<LowRank>>,
    ) -> Result<Self> {
        let layer = |index: usize| -> Result<Layer> {
            ranks.heartbeat();
            let linear = |name: &str, bias| -> Result<Linear> {
                let weight = weight(&format!("{name}.weight"))?;
                Ok(Linear { weight, bias, low_rank: low_rank(name)? })
            };
            Layer::new(&config, index, &vector, linear)
        };
        let embedding = weight(EMBEDDING)?;
        let head = match config.tie_word_embeddings {
            true => embedding.clone(),
            false => weight(HEAD)?,
        };
        Ok(Self {
            frequencies: config.rope.frequencies(config.head_dim),
            embedding,
            layers: (0..config.num_hidden_layers).map(layer).collect::<Result<_>>()?,
            norm: vector(FINAL_NORM)?,
            head,
            shard: shard.clone(),
            ranks: ranks.clone(),
            config,
        })
    }
}

/// The largest quantization block of the down projections, in weights.
fn gguf_block(model: &GgufModel) -> Result<usize> {
    let layers = 0..model.config().num_hidden_layers;
    let block = |layer| model.block_len(&format!("{}.weight", Module::Down.name(layer)));
    layers.map(block).try_fold(1, |max, block| Ok(max.max(block?)))
}
