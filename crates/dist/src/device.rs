//! Numbers on a GPU, as the collectives over NCCL take them.

use std::any::Any;
use std::fmt;

/// What the numbers of a buffer are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Dtype {
    /// 32 bits.
    F32,
    /// 16 bits: the upper half of an `f32`.
    Bf16,
    /// Bytes.
    U8,
}

impl Dtype {
    /// Bytes of a number.
    pub fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
            Self::U8 => 1,
        }
    }
}

/// Memory on the rank's own GPU, that some stream of it writes or reads.
///
/// What was queued on that stream before a collective begins is done before the collective reads; when the
/// collective's [`crate::Pending`] gives the buffer back, its data are there for all streams.
pub struct DeviceBuffer {
    pub(crate) address: u64,
    pub(crate) length: usize,
    pub(crate) dtype: Dtype,
    pub(crate) stream: u64,
    /// What owns the memory, for as long as the buffer lives.
    owner: Box<dyn Any + Send>,
}

impl DeviceBuffer {
    /// `length` numbers at `address` of the GPU's memory, which `owner` keeps there, and the stream (a `CUstream`)
    /// that works on them.
    ///
    /// # Safety
    ///
    /// The memory must lie on the GPU that the communicator was made with, be as long as is told, and stay where it is
    /// until `owner` is dropped; nobody may write to it, and of a buffer that receives nobody may read, until the
    /// collective that it is given to is done.
    #[allow(unsafe_code)]
    pub unsafe fn new(
        address: u64,
        length: usize,
        dtype: Dtype,
        stream: u64,
        owner: Box<dyn Any + Send>,
    ) -> Self {
        Self { address, length, dtype, stream, owner }
    }

    /// How many numbers it holds.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// What its numbers are.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Gives back what owns the memory.
    pub fn into_owner(self) -> Box<dyn Any + Send> {
        self.owner
    }
}

impl fmt::Debug for DeviceBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { length, dtype, .. } = self;
        f.debug_struct("DeviceBuffer")
            .field("length", length)
            .field("dtype", dtype)
            .finish_non_exhaustive()
    }
}
