//! Where a decoder's weights come from: a policy, a folder or a GGUF file, of which each rank reads its part.

use std::cell::RefCell;
use std::path::Path;

use candle_core::{DType, Tensor};
use embodied_r_kernels::device::has_kernels;
use embodied_r_kernels::weight::{self, Weight};
use embodied_r_kernels::{Placement, Precision};

use super::super::linear::{Linear, LowRank};
use super::{InferenceModel, Layer};
use crate::config::ModelConfig;
use crate::error::{Error, Result};
use crate::gguf::{self, GgufModel, GgufTensor};
use crate::lora::{self, Adapter, Module};
use crate::policy::Policy;
use crate::tensor_parallel::{Slice, Split, TensorParallel, block};
use crate::weights;

impl Policy {
    /// The weights for sampling: in f32 they are shared with the policy, so that a later change is
    /// seen; in bf16 they are a copy of what the policy has now. An adapter's are shared either way.
    ///
    /// # Errors
    /// There is no room for the copy.
    pub fn inference_model(&self, precision: Precision) -> Result<InferenceModel> {
        self.inference(|weight| match precision {
            Precision::Bf16 if !is_shared(weight, precision) => Weight::bf16(weight),
            _ => Weight::f32(weight),
        })
    }

    /// The weights for a rollout, as they are now. On the CPU, where all of them are trained, it is a copy in f32 too,
    /// which samples sooner and is gone before the update's gradients come.
    ///
    /// # Errors
    /// As [`Self::inference_model`].
    pub fn sampler(&self, precision: Precision) -> Result<InferenceModel> {
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
        let ranks = TensorParallel::alone();
        let split = Split::new(self.config(), (0, 1), 1)?;
        InferenceModel::new(self.config().clone(), (&split, &ranks), weight, get, low_rank)
    }
}

/// Whether sampling in a precision computes with the weight as training has it: on a device that holds it so.
fn is_shared(weight: &Tensor, precision: Precision) -> bool {
    let held = match precision {
        Precision::F32 => DType::F32,
        Precision::Bf16 => DType::BF16,
    };
    has_kernels(weight.device()) && weight.dtype() == held
}

fn missing(name: &str) -> Error {
    Error::MissingTensor { name: name.to_owned() }
}

impl InferenceModel {
    /// Reads a model: a folder in Hugging Face's layout, whose matrices are held as `placement` says, or a GGUF file,
    /// whose blocks stay as they are. An adapter's folder gives the model that it stands on with the adapter: merged
    /// into weights that are numbers, and beside blocks.
    ///
    /// # Errors
    /// As [`Policy::load`].
    pub fn load(path: &Path, placement: impl Into<Placement>) -> Result<Self> {
        Self::load_part(path, placement, &TensorParallel::alone())
    }

    /// As [`Self::load`], the part of the rank `ranks`; of the files nothing else is read.
    ///
    /// # Errors
    /// As [`Self::load`]; [`Error::Split`], [`Error::SplitBlock`] or [`Error::SplitAdapter`] if the model cannot be
    /// split so.
    pub fn load_part(
        path: &Path,
        placement: impl Into<Placement>,
        ranks: &TensorParallel,
    ) -> Result<Self> {
        let placement = placement.into();
        let base = lora::base_of(path)?;
        if base.is_some() && !ranks.is_alone() {
            return Err(Error::SplitAdapter { dir: path.to_owned() });
        }
        let Some(file) = gguf::find(base.as_deref().unwrap_or(path))? else {
            return match base {
                Some(_) => Self::of_policy(Policy::load(path)?, &placement),
                None => Self::of_folder(path, &placement, ranks),
            };
        };
        let model = GgufModel::open(&file)?;
        let split = Split::new(model.config(), (ranks.rank(), ranks.size()), gguf_block(&model)?)?;
        let adapter = base.map(|_| Adapter::open(path, model.config())).transpose()?;
        // Rows of the embedding are looked up too, beside which nothing can stand.
        let beside = |name: &str| {
            let adapter = adapter.as_ref().filter(|adapter| !adapter.replaces(name))?;
            adapter.pair(name).filter(|_| name.starts_with("model.layers."))
        };
        let changed = |name: &str| -> Result<Tensor> {
            let tensor = model.tensor_slice(name, &split.of(name))?.dequantize()?;
            if let Some(adapter) = &adapter {
                adapter.apply_to(name, &tensor)?;
            }
            Ok(tensor)
        };
        let weight = |name: &str| {
            let stays = beside(name).is_some()
                || !adapter.as_ref().is_some_and(|adapter| adapter.changes(name));
            match model.tensor_slice(name, &split.of(name))? {
                GgufTensor::Matrix(matrix) if stays => Ok(placement.blocks(matrix)?),
                _ => Ok(Weight::f32(&placement.vector(&changed(name)?)?)?),
            }
        };
        let vector = |name: &str| Ok(placement.vector(&changed(name)?)?);
        let low_rank = |name: &str| match beside(&format!("{name}.weight")) {
            Some(pair) => {
                let (a, b) = (placement.vector(&pair.a)?, placement.vector(&pair.b)?);
                LowRank::new(&a, &b, pair.scale).map(Some)
            }
            None => Ok(None),
        };
        Self::new(model.config().clone(), (&split, ranks), weight, vector, low_rank)?.side_by_side()
    }

    /// A folder's model. A tensor is read when its turn comes, so that no more than one of them is there as f32.
    fn of_folder(dir: &Path, placement: &Placement, ranks: &TensorParallel) -> Result<Self> {
        let (config, format) = (ModelConfig::from_dir(dir)?, placement.format);
        let split = Split::new(
            &config,
            (ranks.rank(), ranks.size()),
            block(format, config.intermediate_size),
        )?;
        let tensors = weights::find(dir, &weights::open(dir)?, &config)?;
        let stored = |name: &str| tensors.get(name).ok_or_else(|| missing(name));
        let read = |name: &str| stored(name)?.read_slice(name, &split.of(name));
        let weight = |name: &str| {
            let slice = split.of(name);
            if let (Slice::Columns(taken), [_, inputs]) = (&slice, stored(name)?.shape()) {
                let block = block(format, *inputs);
                let mut ends = [taken.start, taken.end].into_iter();
                if let Some(column) = ends.find(|column| !column.is_multiple_of(block)) {
                    let (name, format) = (name.to_owned(), format.name());
                    return Err(Error::SplitBlock { name, column, format, block });
                }
            }
            Ok(placement.matrix(&stored(name)?.read_slice(name, &slice)?)?)
        };
        let vector = |name: &str| Ok(placement.vector(&read(name)?)?);
        Self::new(config, (&split, ranks), weight, vector, |_| Ok(None))?.side_by_side()
    }

    /// The model of a policy, whose tensors go as soon as their copies are there.
    fn of_policy(policy: Policy, placement: &Placement) -> Result<Self> {
        let (config, tensors) = policy.into_weights();
        let split = Split::new(&config, (0, 1), 1)?;
        let tensors = RefCell::new(tensors);
        let take = |name: &str| tensors.borrow_mut().swap_remove(name).ok_or_else(|| missing(name));
        let weight = |name: &str| Ok(placement.matrix(&take(name)?)?);
        let vector = |name: &str| Ok(placement.vector(&take(name)?)?);
        Self::new(config, (&split, &TensorParallel::alone()), weight, vector, |_| Ok(None))?
            .side_by_side()
    }

    /// The same model, whose weights nobody else has: those that are multiplied with together lie so on a device.
    fn side_by_side(mut self) -> Result<Self> {
        for layer in &mut self.layers {
            self.ranks.beat();
            let Layer { q, k, v, gate, up, .. } = layer;
            let weights =
                weight::side_by_side([&q.weight, &k.weight, &v.weight].map(Weight::clone))?;
            [q.weight, k.weight, v.weight] = weights;
            [gate.weight, up.weight] =
                weight::side_by_side([&gate.weight, &up.weight].map(Weight::clone))?;
        }
        Ok(self)
    }

    /// A model of its part of each tensor, by canonical names, and of what stands beside its linear modules.
    fn new(
        config: ModelConfig,
        (split, ranks): (&Split, &TensorParallel),
        weight: impl Fn(&str) -> Result<Weight>,
        vector: impl Fn(&str) -> Result<Tensor>,
        low_rank: impl Fn(&str) -> Result<Option<LowRank>>,
    ) -> Result<Self> {
        let layer = |index: usize| -> Result<Layer> {
            ranks.beat();
            let linear = |name: &str, bias| -> Result<Linear> {
                let weight = weight(&format!("{name}.weight"))?;
                Ok(Linear { weight, bias, low_rank: low_rank(name)? })
            };
            Layer::new(&config, index, &vector, linear)
        };
        let embedding = weight("model.embed_tokens.weight")?;
        let head = match config.tie_word_embeddings {
            true => embedding.clone(),
            false => weight("lm_head.weight")?,
        };
        Ok(Self {
            frequencies: config.rope.frequencies(config.head_dim),
            embedding,
            layers: (0..config.num_hidden_layers).map(layer).collect::<Result<_>>()?,
            norm: vector("model.norm.weight")?,
            head,
            split: split.clone(),
            ranks: ranks.clone(),
            config,
        })
    }
}

/// Numbers that the rows of every layer's last product hold together.
fn gguf_block(model: &GgufModel) -> Result<usize> {
    let layers = 0..model.config().num_hidden_layers;
    let block = |layer| model.block_len(&format!("{}.weight", Module::Down.name(layer)));
    layers.map(block).try_fold(1, |most, block| Ok(most.max(block?)))
}
