//! Work that occupies a GPU before a measurement.

use candle_core::Device;

use super::{Dtype, linear, memory};
use crate::error::Result;

/// Rows and columns of the products that [`stall`] queues: a millisecond or two each on a current GPU.
const STALL_SIZE: usize = 8_192;

/// Products that [`stall`] queues: longer than it takes to launch a decoding step.
const STALL_PRODUCTS: usize = 12;

/// Occupies a GPU, so that what follows queues up. A GPU that waits for the host between two marks would count the
/// waiting as work.
pub(crate) fn stall(device: &Device) -> Result<()> {
    if device.is_cpu() {
        return Ok(());
    }
    const OP: &str = "stall";
    let x = memory::zeros(device, (STALL_SIZE, STALL_SIZE), Dtype::Bf16, OP)?;
    for _ in 0..STALL_PRODUCTS {
        linear::forward(&x, &x, None, Dtype::Bf16, OP)?;
    }
    Ok(())
}
