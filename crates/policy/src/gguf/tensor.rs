//! A tensor in its stored format.

use candle_core::Tensor;
use embodied_r_kernels::quantized::QuantizedMatrix;

use crate::error::Result;

/// A tensor of a GGUF file.
#[derive(Debug, Clone)]
pub enum GgufTensor {
    /// A linear weight or an embedding, in its stored format.
    Matrix(QuantizedMatrix),
    /// A bias or a norm, as `f32`.
    Vector(Tensor),
}

impl GgufTensor {
    /// The tensor as `f32`.
    ///
    /// # Errors
    /// Out of memory.
    pub fn dequantize(&self) -> Result<Tensor> {
        match self {
            Self::Matrix(matrix) => Ok(matrix.dequantize()?),
            Self::Vector(tensor) => Ok(tensor.clone()),
        }
    }
}
