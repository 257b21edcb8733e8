//! The tensors of a vision tower by name.

use std::collections::BTreeSet;

use candle_core::{DType, Device, Tensor};
use embodied_r_kernels::device::has_kernels;
use embodied_r_kernels::memory;
use embodied_r_policy::Precision;
use embodied_r_policy::weights::ENCODER;
use indexmap::IndexMap;

use super::FrozenParts;
use crate::config::VisionConfig;
use crate::error::{Error, Result};
use crate::layout::{POSITIONS, Stage};
use crate::tower::Dropout;

/// An adapter's tensors, after the name of its layer.
pub(super) const A: &str = "lora_A.weight";
pub(super) const B: &str = "lora_B.weight";

/// A tensor of a tower.
struct TowerTensor {
    /// Its name in the checkpoint.
    stored: String,
    tensor: Tensor,
    /// The stage of the forward pass that it belongs to.
    stage: Stage,
    is_trained: bool,
}

/// The tensors of a tower by their names within it, in the order of [`VisionConfig::tensor_shapes`], then its adapters'.
pub(super) struct TowerTensors {
    tensors: IndexMap<String, TowerTensor>,
    /// Without the adapters' tensors.
    whole: usize,
    lora_scale: f32,
    lora_dropout: f64,
}

impl TowerTensors {
    /// `tensors` by their names in a checkpoint.
    pub(super) fn new(config: &VisionConfig, tensors: IndexMap<String, Tensor>) -> Result<Self> {
        let mut left = IndexMap::with_capacity(tensors.len());
        for (stored, tensor) in tensors {
            let Some(name) = within(&stored) else {
                let message = format!("`{stored}` is not a tensor of a vision tower");
                return Err(Error::TowerTensors(message));
            };
            left.insert(name.to_owned(), (stored, tensor));
        }
        let mut found = IndexMap::with_capacity(left.len());
        let parts = config.parts();
        let tensors = parts
            .iter()
            .flat_map(|(stage, part)| part.tensors(config).into_iter().map(|it| (*stage, it)));
        for (stage, (name, shape)) in tensors {
            let Some((stored, tensor)) = left.swap_remove(&name) else {
                return Err(Error::TowerTensors(format!("`visual.{name}` is missing")));
            };
            if tensor.dims() != shape || tensor.dtype() != DType::F32 {
                let (found, dtype) = (tensor.dims(), tensor.dtype().as_str());
                let message = format!(
                    "`{stored}` must have the shape {shape:?} in f32, not {found:?} in {dtype}"
                );
                return Err(Error::TowerTensors(message));
            }
            found.insert(name, TowerTensor { stored, tensor, stage, is_trained: true });
        }
        match left.values().next() {
            Some((stored, _)) => {
                Err(Error::TowerTensors(format!("`{stored}` does not belong to the configuration")))
            }
            None => {
                Ok(Self { whole: found.len(), tensors: found, lora_scale: 1.0, lora_dropout: 0.0 })
            }
        }
    }

    /// On `device`; with kernels of its own, matrices are stored in `precision`.
    pub(super) fn on_device(mut self, device: &Device, precision: Precision) -> Result<Self> {
        for (name, TowerTensor { tensor, .. }) in &mut self.tensors {
            // Positions are interpolated in f32.
            let precision = if name == POSITIONS { Precision::F32 } else { precision };
            *tensor = moved(tensor, device, precision)?;
        }
        Ok(self)
    }

    /// Adds adapters `A` and `B` by the names of their linear layers in the checkpoint, and freezes all else.
    pub(super) fn with_adapters(
        mut self,
        mut adapters: IndexMap<String, [Tensor; 2]>,
        scale: f32,
        place: impl Fn(&Tensor) -> Result<Tensor>,
    ) -> Result<Self> {
        self.freeze(|_| true);
        let weights: Vec<(String, String, Stage, Vec<usize>)> = self
            .tensors
            .iter()
            .map(|(name, TowerTensor { stored, tensor, stage, .. })| {
                (name.clone(), stored.clone(), *stage, tensor.dims().to_vec())
            })
            .collect();
        for (name, stored, stage, shape) in weights {
            let of_layer = |name: &str| name.strip_suffix(".weight").map(str::to_owned);
            let (Some(name), Some(stored)) = (of_layer(&name), of_layer(&stored)) else { continue };
            let [outputs, inputs] = shape[..] else { continue };
            let Some([a, b]) = adapters.shift_remove(&stored) else { continue };
            let (Some(rank), found) = (a.dims().first().copied(), [a.dims(), b.dims()]) else {
                continue;
            };
            if found != [&[rank, inputs], &[outputs, rank]] {
                let message = format!(
                    "the adapter of `{stored}` must have the shapes [rank, {inputs}] and [{outputs}, rank], not \
                     {:?} and {:?}",
                    found[0], found[1]
                );
                return Err(Error::TowerTensors(message));
            }
            for (part, tensor) in [(A, &a), (B, &b)] {
                let stored = format!("{stored}.{part}");
                let tensor = place(tensor)?;
                let adapter = TowerTensor { stored, tensor, stage, is_trained: true };
                self.tensors.insert(format!("{name}.{part}"), adapter);
            }
        }
        if let Some((name, _)) = adapters.first() {
            let message = format!("`{name}` is not a linear layer of the vision tower");
            return Err(Error::TowerTensors(message));
        }
        self.lora_scale = scale;
        Ok(self)
    }

    /// Drops inputs of the adapters with this probability.
    pub(super) fn with_lora_dropout(self, lora_dropout: f64) -> Self {
        Self { lora_dropout, ..self }
    }

    /// Whether inputs of adapters are dropped in training.
    pub(super) fn has_dropout(&self) -> bool {
        self.has_adapters() && self.lora_dropout > 0.0
    }

    /// The dropout site of a linear layer's adapter, by the layer's name within the tower; `None` without an adapter.
    pub(super) fn dropout_site(&self, layer: &str) -> Option<u64> {
        self.tensors.get_index_of(&format!("{layer}.{A}")).map(|index| index as u64)
    }

    /// The dropout at a site.
    pub(super) fn dropout(&self, site: u64) -> Dropout {
        Dropout { site, p: self.lora_dropout }
    }

    /// Whether any linear layer has an adapter.
    pub(super) fn has_adapters(&self) -> bool {
        self.tensors.len() > self.whole
    }

    /// The adapters' tensors with their names in the checkpoint.
    pub(super) fn adapters(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        let adapters = self.tensors.values().skip(self.whole);
        adapters.map(|TowerTensor { stored, tensor, .. }| (stored.as_str(), tensor))
    }

    /// All frozen, with `of` in place of the trained ones, by their names in the checkpoint.
    pub(super) fn frozen_with<E>(
        &self,
        of: impl Fn(&str, &Tensor) -> std::result::Result<Tensor, E>,
    ) -> std::result::Result<Self, E> {
        let frozen = |(name, found): (&String, &TowerTensor)| {
            let TowerTensor { stored, tensor, stage, is_trained } = found;
            let tensor = if *is_trained { of(stored, tensor)? } else { tensor.clone() };
            let (stored, stage) = (stored.clone(), *stage);
            Ok((name.clone(), TowerTensor { stored, tensor, stage, is_trained: false }))
        };
        let tensors = self.tensors.iter().map(frozen).collect::<std::result::Result<_, E>>()?;
        let Self { whole, lora_scale, lora_dropout, .. } = *self;
        Ok(Self { tensors, whole, lora_scale, lora_dropout })
    }

    /// Scale of the adapters' output.
    pub(super) fn lora_scale(&self) -> f32 {
        self.lora_scale
    }

    /// Freezes parts of the tower.
    pub(super) fn with_frozen(mut self, frozen: FrozenParts) -> Self {
        for tensor in self.tensors.values_mut() {
            tensor.is_trained &= match tensor.stage.is_merger() {
                true => !frozen.aligner,
                false => !frozen.vision_tower,
            };
        }
        self
    }

    /// Freezes the tensors with these names in the checkpoint.
    pub(super) fn freeze(&mut self, is_frozen: impl Fn(&str) -> bool) {
        for TowerTensor { stored, is_trained, .. } in self.tensors.values_mut() {
            *is_trained &= !is_frozen(stored);
        }
    }

    /// All tensors but the adapters', with their names in the checkpoint.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        let whole = self.tensors.values().take(self.whole);
        whole.map(|TowerTensor { stored, tensor, .. }| (stored.as_str(), tensor))
    }

    /// The trained tensors with their names in the checkpoint.
    pub(super) fn trained(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        let trained = self.tensors.values().filter(|tensor| tensor.is_trained);
        trained.map(|TowerTensor { stored, tensor, .. }| (stored.as_str(), tensor))
    }

    /// The name in the checkpoint of a trained tensor; `None` if it is frozen.
    pub(super) fn trained_name(&self, name: &str) -> Option<&str> {
        let tensor = self.tensors.get(name).filter(|tensor| tensor.is_trained)?;
        Some(&tensor.stored)
    }

    /// The tensor of that name within the tower.
    pub(super) fn get(&self, name: &str) -> Result<Tensor> {
        let missing = || Error::TowerTensors(format!("`visual.{name}` is missing"));
        self.tensors.get(name).map(|tensor| tensor.tensor.clone()).ok_or_else(missing)
    }

    /// The index, with all trained elements flattened in order, from which on all belong to `stage` or above: their
    /// gradients are final after its backward.
    pub(super) fn first_final(&self, stage: Stage) -> usize {
        let trained = self.tensors.values().filter(|tensor| tensor.is_trained);
        let below = trained.filter(|tensor| tensor.stage < stage);
        below.map(|tensor| tensor.tensor.elem_count()).sum()
    }

    /// The stages that a gradient has to reach.
    pub(super) fn gradient_reach(&self) -> GradientReach {
        let trained = self.tensors.values().filter(|tensor| tensor.is_trained);
        let (mergers, others): (BTreeSet<Stage>, BTreeSet<Stage>) =
            trained.map(|tensor| tensor.stage).partition(|stage| stage.is_merger());
        GradientReach { stream: others.first().copied(), mergers }
    }
}

/// The stages of the forward pass that a gradient has to reach.
pub(super) struct GradientReach {
    /// The lowest stage, besides mergers, with a trained tensor: the gradient of the residual stream passes all from the
    /// last one down to it.
    stream: Option<Stage>,
    /// The mergers with a trained tensor. They have their own gradient, whichever block they are behind.
    mergers: BTreeSet<Stage>,
}

impl GradientReach {
    /// Whether every tensor is frozen.
    pub(super) fn is_empty(&self) -> bool {
        self.stream.is_none() && self.mergers.is_empty()
    }

    /// Whether a gradient has to reach `stage`.
    pub(super) fn has(&self, stage: Stage) -> bool {
        self.stream.is_some_and(|lowest| lowest <= stage) || self.mergers.contains(&stage)
    }
}

/// The tensor on `device`; with kernels of its own, a matrix in `precision`.
pub(super) fn moved(tensor: &Tensor, device: &Device, precision: Precision) -> Result<Tensor> {
    let dtype = match precision {
        Precision::Bf16 if tensor.rank() > 1 && has_kernels(device) => DType::BF16,
        _ => DType::F32,
    };
    let moved = memory::to_device(tensor, device)?.to_dtype(dtype);
    Ok(moved.map_err(embodied_r_kernels::Error::from)?)
}

/// The name within the tower of a checkpoint's tensor, if it belongs to it.
pub(super) fn within(stored: &str) -> Option<&str> {
    stored.strip_prefix("model.").unwrap_or(stored).strip_prefix(ENCODER)
}
