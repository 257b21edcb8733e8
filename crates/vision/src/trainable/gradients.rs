//! The gradients of a vision tower.

use candle_core::{Device, Tensor};
use embodied_r_kernels::memory;
use indexmap::IndexMap;

use super::modules::TowerModules;
use super::tensors::TowerTensors;
use crate::config::VisionConfig;
use crate::error::Result;

/// The gradients of all trained tensors, in one flat buffer; backward passes accumulate into them.
pub struct TowerGradients {
    buffer: Tensor,
    /// Views into the buffer.
    tensors: IndexMap<String, Tensor>,
    pub(super) modules: TowerModules<Option<Tensor>>,
}

impl TowerGradients {
    /// Zeros for each trained tensor.
    pub(super) fn zeros(
        config: &VisionConfig,
        parameters: &TowerTensors,
        device: &Device,
    ) -> Result<Self> {
        let trained = || parameters.trained();
        let (buffer, views) = memory::flat_zeros(trained().map(|(_, tensor)| tensor), device)?;
        let names = trained().map(|(name, _)| name.to_owned());
        let tensors: IndexMap<String, Tensor> = names.zip(views).collect();
        let of = |name: &str| parameters.trained_name(name).and_then(|name| tensors.get(name));
        let modules = TowerModules::new(
            config,
            |name| parameters.dropout_site(name),
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
