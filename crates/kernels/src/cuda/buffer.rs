//! Tensors as raw memory for kernel launchers.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int, c_void};

#[cfg(feature = "cuda-host")]
use candle_core::CpuStorage;
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
#[cfg(feature = "cuda")]
use candle_core::backend::BackendStorage;
#[cfg(feature = "cuda")]
use candle_core::cuda_backend::cudarc::driver::{DevicePtr, DevicePtrMut};
use candle_core::{
    DType, Device, InplaceOp1, Layout, Shape, Storage, StorageRef, Tensor, WithDType,
};

use super::profile::recorded;
use crate::error::{Error, Result};
use crate::precision::Precision;

/// Element type in the launchers' ABI (`Dtype` of `device.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub(crate) enum Dtype {
    F32 = 0,
    Bf16 = 1,
    U32 = 2,
}

impl Dtype {
    /// Bytes per element.
    pub(crate) fn bytes(self) -> usize {
        if self == Self::Bf16 { 2 } else { 4 }
    }

    /// The dtype of activations; `None` keeps the embedding table's.
    pub(crate) fn of_activations(precision: Precision) -> Option<Self> {
        (precision == Precision::Bf16).then_some(Self::Bf16)
    }

    /// The tensor's dtype.
    pub(crate) fn of(tensor: &Tensor, op: &'static str) -> Result<Self> {
        Self::named(tensor.dtype(), op)
    }

    /// That of candle's `dtype`.
    pub(crate) fn named(dtype: DType, op: &'static str) -> Result<Self> {
        match dtype {
            DType::F32 => Ok(Self::F32),
            DType::BF16 => Ok(Self::Bf16),
            DType::U32 => Ok(Self::U32),
            _ => Err(Error::DeviceStorage { op }),
        }
    }
}

impl From<Precision> for Dtype {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self::F32,
            Precision::Bf16 => Self::Bf16,
        }
    }
}

/// A CUDA stream.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Stream(pub(crate) *mut c_void);

impl Stream {
    /// The stream of a tensor's device; makes its context current on the calling thread.
    pub(crate) fn of(tensor: &Tensor) -> Result<Self> {
        Self::of_device(tensor.device())
    }

    /// See [`Self::of`].
    pub(crate) fn of_device(device: &Device) -> Result<Self> {
        match device {
            #[cfg(feature = "cuda")]
            Device::Cuda(device) => {
                let stream = device.cuda_stream();
                stream.context().bind_to_thread().map_err(candle_core::Error::wrap)?;
                Ok(Self(stream.cu_stream().cast()))
            }
            _ => Ok(Self(std::ptr::null_mut())),
        }
    }
}

/// Read access to a contiguous tensor on the device.
pub(crate) struct DeviceSlice<'a> {
    /// Pointer to the first element.
    pub(crate) ptr: *const c_void,
    pub(crate) dtype: Dtype,
    op: &'static str,
    storage: StorageRef<'a>,
}

impl DeviceSlice<'_> {
    /// Whether `next` starts `count` elements after the start of this slice, in the same allocation.
    pub(crate) fn is_followed_by(&self, next: &Self, count: usize) -> bool {
        let end = self.ptr.wrapping_byte_add(count * self.dtype.bytes());
        std::ptr::eq(&raw const *self.storage, &raw const *next.storage) && end == next.ptr
    }

    /// Fails unless the dtype is f32 or bf16.
    pub(crate) fn expect_float(self) -> Result<Self> {
        match self.dtype {
            Dtype::F32 | Dtype::Bf16 => Ok(self),
            Dtype::U32 => Err(Error::DeviceStorage { op: self.op }),
        }
    }

    /// Fails unless the dtype is `dtype`.
    pub(crate) fn expect_dtype(self, dtype: Dtype) -> Result<Self> {
        match self.dtype == dtype {
            true => Ok(self),
            false => Err(Error::DeviceStorage { op: self.op }),
        }
    }
}

/// Read access to `tensor`, in row-major order.
///
/// # Errors
/// [`Error::DeviceStorage`] unless it is contiguous f32, bf16 or u32 on the device.
pub(crate) fn read<'a>(tensor: &'a Tensor, op: &'static str) -> Result<DeviceSlice<'a>> {
    let dtype = Dtype::of(tensor, op)?;
    let (storage, layout) = tensor.storage_and_layout();
    let Some((start, _)) = layout.contiguous_offsets() else {
        return Err(Error::DeviceStorage { op });
    };
    let ptr = match &*storage {
        #[cfg(feature = "cuda-host")]
        Storage::Cpu(cpu) if super::host::is_on() => match cpu {
            CpuStorage::F32(x) => x.as_ptr().wrapping_add(start).cast(),
            CpuStorage::BF16(x) => x.as_ptr().wrapping_add(start).cast(),
            CpuStorage::U32(x) => x.as_ptr().wrapping_add(start).cast(),
            _ => return Err(Error::DeviceStorage { op }),
        },
        #[cfg(feature = "cuda")]
        Storage::Cuda(cuda) => {
            let stream = cuda.device.cuda_stream();
            let bytes = |at: u64, size: usize| (at as usize + start * size) as *const c_void;
            match dtype {
                Dtype::F32 => bytes(cuda.as_cuda_slice::<f32>()?.device_ptr(&stream).0, 4),
                Dtype::Bf16 => bytes(cuda.as_cuda_slice::<half::bf16>()?.device_ptr(&stream).0, 2),
                Dtype::U32 => bytes(cuda.as_cuda_slice::<u32>()?.device_ptr(&stream).0, 4),
            }
        }
        _ => return Err(Error::DeviceStorage { op }),
    };
    Ok(DeviceSlice { ptr, dtype, op, storage })
}

/// A new tensor on the device, whose elements `act` writes through the pointer.
///
/// # Errors
/// Out of memory, or the error of `act`.
pub(crate) fn create(
    device: &Device,
    shape: impl Into<Shape>,
    dtype: Dtype,
    op: &'static str,
    act: impl FnOnce(*mut c_void) -> Result<()>,
) -> Result<Tensor> {
    let shape = shape.into();
    let len = shape.elem_count();
    let storage = match device {
        #[cfg(feature = "cuda-host")]
        Device::Cpu if super::host::is_on() => Storage::Cpu(match dtype {
            Dtype::F32 => CpuStorage::F32(guarded(len, f32::NAN, op, act)?),
            Dtype::Bf16 => CpuStorage::BF16(guarded(len, half::bf16::NAN, op, act)?),
            Dtype::U32 => CpuStorage::U32(guarded(len, 0xdead_beef, op, act)?),
        }),
        #[cfg(feature = "cuda")]
        Device::Cuda(cuda) => Storage::Cuda(match dtype {
            Dtype::F32 => fresh::<f32>(cuda, len, act)?,
            Dtype::Bf16 => fresh::<half::bf16>(cuda, len, act)?,
            Dtype::U32 => fresh::<u32>(cuda, len, act)?,
        }),
        _ => return Err(Error::DeviceStorage { op }),
    };
    let no_graph = candle_core::op::BackpropOp::none();
    Ok(Tensor::from_storage(storage, shape, no_graph, false))
}

#[cfg(feature = "cuda")]
fn fresh<T>(
    device: &candle_core::CudaDevice,
    len: usize,
    act: impl FnOnce(*mut c_void) -> Result<()>,
) -> Result<CudaStorage>
where
    T: candle_core::cuda_backend::cudarc::driver::DeviceRepr + candle_core::cuda_backend::CudaDType,
{
    let stream = device.cuda_stream();
    // SAFETY: `act` launches a kernel that writes all of it before anything on the same stream reads it. CUDA cannot
    // allocate 0 bytes.
    let mut slice = unsafe { device.alloc::<T>(len.max(1))? };
    act(slice.device_ptr_mut(&stream).0 as usize as *mut c_void)?;
    Ok(CudaStorage::wrap_cuda_slice(slice, device.clone()))
}

/// Host memory filled with `poison`; fails if a kernel writes past its end.
#[cfg(feature = "cuda-host")]
fn guarded<T: Copy>(
    len: usize,
    poison: T,
    op: &'static str,
    act: impl FnOnce(*mut c_void) -> Result<()>,
) -> Result<Vec<T>> {
    const GUARD: usize = 64;
    let mut values = vec![poison; len + GUARD];
    act(values.as_mut_ptr().cast())?;
    let size = size_of::<T>();
    let bytes = |x: &T| {
        // SAFETY: the elements are plain data.
        unsafe { std::slice::from_raw_parts(std::ptr::from_ref(x).cast::<u8>(), size) }.to_vec()
    };
    if values[len..].iter().any(|x| bytes(x) != bytes(&poison)) {
        return Err(Error::Device { op, what: "a kernel wrote past the end of its output".into() });
    }
    values.truncate(len);
    Ok(values)
}

/// In-place access to tensors; all tensors that share their storage change. `act` gets the pointers. No two may share
/// memory.
///
/// # Errors
/// [`Error::DeviceStorage`] unless each is contiguous on the device and of the given dtype; the error of `act`.
pub(crate) fn write<const N: usize>(
    tensors: [(&Tensor, Dtype); N],
    op: &'static str,
    act: impl FnOnce([*mut c_void; N]) -> Result<()>,
) -> Result<()> {
    write_all(&tensors, op, |pointers| match pointers.try_into() {
        Ok(pointers) => act(pointers),
        Err(_) => Err(write_failed(op)),
    })
}

/// [`write`] for any number of tensors.
pub(crate) fn write_all(
    tensors: &[(&Tensor, Dtype)],
    op: &'static str,
    act: impl FnOnce(&[*mut c_void]) -> Result<()>,
) -> Result<()> {
    for (tensor, dtype) in tensors {
        drop(read(tensor, op)?.expect_dtype(*dtype)?);
    }
    let mut pointers = vec![std::ptr::null_mut(); tensors.len()];
    let mut act = Some(act);
    let mut run = |pointers: &[*mut c_void]| act.take().map_or(Ok(()), |act| act(pointers));
    nested(tensors, op, &mut pointers, 0, &mut run)
}

/// Borrows the tensors from the `i`-th on, recursively.
fn nested(
    tensors: &[(&Tensor, Dtype)],
    op: &'static str,
    pointers: &mut [*mut c_void],
    i: usize,
    act: &mut dyn FnMut(&[*mut c_void]) -> Result<()>,
) -> Result<()> {
    let Some((tensor, _)) = tensors.get(i) else { return act(pointers) };
    let mut result = Err(write_failed(op));
    {
        let inner = |at| {
            pointers[i] = at;
            result = nested(tensors, op, pointers, i + 1, act);
        };
        tensor.inplace_op1(&Access { name: op, act: Cell::new(Some(inner)) })?;
    }
    result
}

/// The in-place update did not run.
pub(crate) fn write_failed(op: &'static str) -> Error {
    Error::DeviceStorage { op }
}

struct Access<F> {
    name: &'static str,
    act: Cell<Option<F>>,
}

impl<F: FnOnce(*mut c_void)> Access<F> {
    fn run(&self, at: *mut c_void) {
        if let Some(act) = self.act.take() {
            act(at);
        }
    }
}

impl<F: FnOnce(*mut c_void)> InplaceOp1 for Access<F> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(
        &self,
        storage: &mut candle_core::CpuStorage,
        layout: &Layout,
    ) -> candle_core::Result<()> {
        #[cfg(feature = "cuda-host")]
        {
            let start = layout.start_offset();
            match storage {
                CpuStorage::F32(x) => self.run(x[start..].as_mut_ptr().cast()),
                CpuStorage::BF16(x) => self.run(x[start..].as_mut_ptr().cast()),
                CpuStorage::U32(x) => self.run(x[start..].as_mut_ptr().cast()),
                _ => (),
            }
        }
        let _ = (storage, layout);
        Ok(())
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, storage: &mut CudaStorage, layout: &Layout) -> candle_core::Result<()> {
        let (start, stream) = (layout.start_offset(), storage.device.cuda_stream());
        let bytes = |at: u64, size: usize| (at as usize + start * size) as *mut c_void;
        match storage.dtype() {
            DType::F32 => {
                let slice = storage.as_cuda_slice_mut::<f32>()?;
                self.run(bytes(slice.device_ptr_mut(&stream).0, 4));
            }
            DType::BF16 => {
                let slice = storage.as_cuda_slice_mut::<half::bf16>()?;
                self.run(bytes(slice.device_ptr_mut(&stream).0, 2));
            }
            DType::U32 => {
                let slice = storage.as_cuda_slice_mut::<u32>()?;
                self.run(bytes(slice.device_ptr_mut(&stream).0, 4));
            }
            _ => (),
        }
        Ok(())
    }
}

/// Uploads indices as u32.
///
/// # Errors
/// An index exceeds 32 bits, or out of memory.
pub(crate) fn upload(indices: &[usize], device: &Device, op: &'static str) -> Result<Tensor> {
    let indices: std::result::Result<Vec<u32>, _> =
        indices.iter().map(|index| u32::try_from(*index)).collect();
    let indices = indices.map_err(|_| Error::Shape { op, what: "an index is too large".into() })?;
    upload_values(&indices, device)
}

/// Uploads a vector. CUDA cannot allocate 0 bytes, and candle tries to.
///
/// # Errors
/// Out of memory.
pub(crate) fn upload_values<T: WithDType>(values: &[T], device: &Device) -> Result<Tensor> {
    const OP: &str = "upload";
    match values.is_empty() {
        true => create(device, 0, Dtype::named(T::DTYPE, OP)?, OP, |_| Ok(())),
        false => recorded(OP, || Ok(Tensor::from_slice(values, values.len(), device)?)),
    }
}

unsafe extern "C" {
    fn er_error(code: c_int) -> *const c_char;
}

/// Description of a launcher's error code.
pub(crate) fn describe_code(code: i32) -> String {
    // SAFETY: it returns a string with static lifetime.
    let description = unsafe { CStr::from_ptr(er_error(code)) };
    format!("CUDA error {code}, {}", description.to_string_lossy())
}
