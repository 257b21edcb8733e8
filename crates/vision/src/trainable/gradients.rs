//! The gradients of a vision tower.

use candle_core::{Device, Tensor};
use embodied_r_kernels::memory;
use indexmap::IndexMap;

use super::modules::Modules;
use super::tensors::TowerTensors;
use crate::config::VisionConfig;
use crate::error::Result;

/// The gradients of all trained tensors, in one flat buffer; backward passes accumulate into them.
pub struct TowerGradients {
    buffer: Tensor,
    /// Views into the buffer.
    tensors: IndexMap<String, Tensor>,
    pub(super) modules: Modules<Option<Tensor>>,
}

impl TowerGradients {
    /// Zeros for each trained tensor.
    pub(super) fn zeros(
        config: &VisionConfig,
        parameters: &TowerTensors,
        device: &Device,
    ) -> Result<Self> {
        let elements: usize = parameters.trained().map(|(_, tensor)| tensor.elem_count()).sum();
        let buffer = memory::zeros(&[elements], device)?;
        let mut first = 0;
        let view = |(name, tensor): (&str, &Tensor)| {
            let view = buffer.narrow(0, first, tensor.elem_count())?.reshape(tensor.shape())?;
            first += tensor.elem_count();
            Ok((name.to_owned(), view))
        };
        let tensors: IndexMap<String, Tensor> = parameters
            .trained()
            .map(view)
            .collect::<candle_core::Result<_>>()
            .map_err(embodied_r_kernels::Error::from)?;
        let of = |name: &str| parameters.trained_name(name).and_then(|name| tensors.get(name));
        let modules = Modules::new(
            config,
            |name| parameters.has_adapter(name),
            |name| Ok(of(name).cloned()),
        )?;
        Ok(Self { buffer, tensors, modules })
    }

    /// All gradients, flattened in the order of the parameters (elements).
    #[must_use]
    pub fn buffer(&self) -> &Tensor {
        &self.buffer
    }

    /// The gradients with the names of their tensors in the checkpoint.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// The gradient of the tensor of that name; `None` if it is frozen.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    /// The global L2 norm; not finite if any gradient is not.
    ///
    /// # Errors
    /// The device fails.
    pub fn norm(&self) -> Result<f64> {
        Ok(memory::squared_norm(&self.buffer)?.sqrt())
    }
}
