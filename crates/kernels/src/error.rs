//! The crate's error.

/// What can go wrong in an operation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// candle refused a tensor.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
    /// The tensors do not fit together.
    #[error("`{op}`: {what}")]
    Shape {
        /// The operation.
        op: &'static str,
        /// Which tensor, and what was expected.
        what: String,
    },
    /// The tensor is not contiguous `f32` on the CPU.
    #[error("`{op}` needs contiguous f32 tensors on the CPU")]
    Storage {
        /// The operation.
        op: &'static str,
    },
    /// The tensor is not one that the device's kernel takes.
    #[error("`{op}` needs contiguous tensors of one device, f32 or bf16 as the others are")]
    DeviceStorage {
        /// The operation.
        op: &'static str,
    },
    /// The device refused to work.
    #[error("`{op}` on the device: {what}")]
    Device {
        /// The operation.
        op: &'static str,
        /// What it said.
        what: String,
    },
}

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Fails with [`Error::Shape`] unless `holds`.
pub(crate) fn check(holds: bool, op: &'static str, what: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::Shape { op, what: what() }) }
}
