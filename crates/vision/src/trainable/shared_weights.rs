//! The weights of a forward pass: views of the trained tensors.

use candle_core::Tensor;
use embodied_r_kernels::device::has_kernels;
use embodied_r_kernels::weight::Weight;
use embodied_r_policy::Precision;

use super::modules::View;
use super::tensors::{A, B, TowerTensors};
use crate::config::VisionConfig;
use crate::error::Result;
use crate::layout::{PATCHES, POSITIONS, TowerPart};
use crate::linear::{Linear, LowRank};
use crate::tower_weights::TowerWeights;

/// The weights of a tower that share the tensors, or are rounded copies of them on the CPU in bf16.
pub(super) struct SharedWeights<'a> {
    pub(super) tensors: &'a TowerTensors,
    pub(super) precision: Precision,
}

impl SharedWeights<'_> {
    fn matrix(&self, matrix: &Tensor) -> Result<Weight> {
        // On a device, the dtype of the tensor decides.
        let packs = self.precision == Precision::Bf16 && !has_kernels(matrix.device());
        Ok(if packs { Weight::bf16(matrix)? } else { Weight::f32(matrix)? })
    }

    /// The adapter of a layer, with the `rows` of its `B`.
    fn low_rank(
        &self,
        layer: &str,
        rows: impl Fn(&Tensor) -> Result<Tensor>,
    ) -> Result<Option<LowRank>> {
        let Some(site) = self.tensors.dropout_site(layer) else { return Ok(None) };
        let part = |part: &str| self.tensors.get(&format!("{layer}.{part}"));
        let (a, b) = (Weight::f32(&part(A)?)?, Weight::f32(&rows(&part(B)?)?)?);
        Ok(Some(LowRank {
            a,
            b,
            scale: self.tensors.lora_scale(),
            dropout: self.tensors.dropout(site),
        }))
    }
}

impl TowerWeights for SharedWeights<'_> {
    fn patches(&self, config: &VisionConfig) -> Result<Weight> {
        let patches = self.tensors.get(PATCHES)?;
        self.matrix(&patches.matrix(config.hidden_size, config.patch_elements())?)
    }

    fn vector(&self, name: &str, _width: usize) -> Result<Tensor> {
        self.tensors.get(name)
    }

    fn positions(&self, _side: usize, _hidden_size: usize) -> Result<Tensor> {
        self.tensors.get(POSITIONS)
    }

    fn linear(&self, name: &str, _outputs: usize, _inputs: usize) -> Result<Linear> {
        let weight = self.matrix(&self.tensors.get(&format!("{name}.weight"))?)?;
        let low_rank = self.low_rank(name, |b| Ok(b.clone()))?;
        Ok(Linear { weight, bias: self.tensors.get(&format!("{name}.bias"))?, low_rank })
    }

    fn qkv(&self, name: &str, width: usize) -> Result<[Linear; 3]> {
        let part = |part: &str| self.tensors.get(&format!("{name}.{part}"));
        let (weight, bias) = (part("weight")?, part("bias")?);
        let rows = |index: usize| -> Result<Linear> {
            let rows = |of: &Tensor| of.rows(index * width, width);
            let low_rank = self.low_rank(name, rows)?;
            Ok(Linear { weight: self.matrix(&rows(&weight)?)?, bias: rows(&bias)?, low_rank })
        };
        Ok([rows(0)?, rows(1)?, rows(2)?])
    }

    /// The tensors' shapes have been checked.
    fn check(&self, _part: &TowerPart, _config: &VisionConfig) -> Result<()> {
        Ok(())
    }
}
