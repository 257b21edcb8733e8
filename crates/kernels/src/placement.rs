//! What a model's weights are held as, and where.

use candle_core::{DType, Device, Tensor};

use crate::error::Result;
use crate::memory::to_device;
use crate::quantized::QuantizedMatrix;
use crate::weight::{Weight, WeightFormat};

/// What a model's weights are held as, and where. A format alone means the host's memory.
#[derive(Debug, Clone)]
pub struct Placement {
    /// What matrices are held as.
    pub format: WeightFormat,
    /// Where they are, and what is computed with them.
    pub device: Device,
}

impl From<WeightFormat> for Placement {
    fn from(format: WeightFormat) -> Self {
        Self { format, device: Device::Cpu }
    }
}

impl Placement {
    /// A copy of a matrix, there.
    ///
    /// # Errors
    /// As [`Weight::in_format`], and if there is no room.
    pub fn matrix(&self, weight: &Tensor) -> Result<Weight> {
        Weight::in_format(&self.vector(weight)?, self.format)
    }

    /// The blocks of a quantised file, there. On a device they stay blocks too, and the format tells what activations
    /// are: f32, or else bf16.
    ///
    /// # Errors
    /// There is no room.
    pub fn blocks(&self, blocks: QuantizedMatrix) -> Result<Weight> {
        let activations = match self.format {
            WeightFormat::F32 => DType::F32,
            _ => DType::BF16,
        };
        Weight::quantized_on(blocks, &self.device, activations)
    }

    /// A tensor as it is, there.
    ///
    /// # Errors
    /// There is no room.
    pub fn vector(&self, tensor: &Tensor) -> Result<Tensor> {
        to_device(tensor, &self.device)
    }
}
