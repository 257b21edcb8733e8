//! The crate's error type.

/// An operation's error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An error from candle.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
    /// Shapes or arguments are inconsistent.
    #[error("`{op}`: {what}")]
    Shape {
        /// The operation.
        op: &'static str,
        /// Which argument, and what was expected.
        what: String,
    },
    /// The tensor is not contiguous `f32` on the CPU.
    #[error("`{op}` needs contiguous f32 tensors on the CPU")]
    Storage {
        /// The operation.
        op: &'static str,
    },
    /// The tensor's device, layout or dtype is not supported by the CUDA kernel.
    #[error("`{op}` needs contiguous f32 or bf16 tensors of one dtype on one device")]
    DeviceStorage {
        /// The operation.
        op: &'static str,
    },
    /// A CUDA call failed.
    #[error("`{op}` on the device: {what}")]
    Device {
        /// The operation.
        op: &'static str,
        /// The device's error message.
        what: String,
    },
}

/// The crate's result type.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Fails with [`Error::Shape`] unless `holds`.
pub(crate) fn check(holds: bool, op: &'static str, what: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::Shape { op, what: what() }) }
}
