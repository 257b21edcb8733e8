//! The memory plan of a rank on its device.

use candle_core::Device;
use embodied_r_kernels::device;
use embodied_r_policy::{ModelConfig, Precision};

use super::{MemoryPlan, Placement, Workload};
use crate::error::Result;
use crate::settings::Recompute;

/// The device of each rank, the precision and the number of ranks.
#[derive(Debug, Clone, Copy)]
pub struct RankDevice<'a> {
    /// This rank's device.
    pub device: &'a Device,
    /// Precision of matmuls.
    pub precision: Precision,
    /// The number of ranks.
    pub ranks: usize,
    /// Measures the bytes of the machine's memory that are available to this rank, if they are known.
    pub host_bytes: fn() -> Option<usize>,
}

impl RankDevice<'_> {
    /// Bytes available to a rank now, if known: its GPU's free memory, or its share of the machine's.
    ///
    /// # Errors
    /// The GPU does not answer.
    pub fn free_bytes(&self) -> Result<Option<usize>> {
        Ok(match device::memory(self.device)? {
            Some(memory) => usize::try_from(memory.free_bytes).ok(),
            None => (self.host_bytes)(),
        })
    }

    /// The plan for a rank's part of `load` within its available memory.
    ///
    /// # Errors
    /// As [`Self::free_bytes`].
    pub fn plan(
        &self,
        config: &ModelConfig,
        load: Workload,
        recompute: Recompute,
    ) -> Result<MemoryPlan> {
        let placement = match self.device.is_cpu() {
            true => Placement::Cpu(self.ranks),
            false => Placement::Gpus(self.ranks),
        };
        let load = load.on(placement, self.precision);
        Ok(MemoryPlan::new(config, &load, recompute, self.free_bytes()?))
    }
}
