//! Tensors' memory as launchers take it.
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
use candle_core::{DType, Device, InplaceOp1, Layout, Shape, Storage, StorageRef, Tensor};

use crate::error::{Error, Result};

/// What numbers are held as, as launchers know it (`Dtype` of `device.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub(crate) enum Dtype {
    F32 = 0,
    Bf16 = 1,
    U32 = 2,
}

impl Dtype {
    /// Bytes of a number.
    pub(crate) fn bytes(self) -> usize {
        if self == Self::Bf16 { 2 } else { 4 }
    }

    /// That of a tensor.
    pub(crate) fn of(tensor: &Tensor, op: &'static str) -> Result<Self> {
        match tensor.dtype() {
            DType::F32 => Ok(Self::F32),
            DType::BF16 => Ok(Self::Bf16),
            DType::U32 => Ok(Self::U32),
            _ => Err(Error::DeviceStorage { op }),
        }
    }
}

/// The stream on which a device works.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Stream(pub(crate) *mut c_void);

impl Stream {
    /// The stream of a tensor's device, which becomes the calling thread's current one.
    pub(crate) fn of(tensor: &Tensor) -> Result<Self> {
        Self::of_device(tensor.device())
    }

    /// As [`Self::of`].
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

/// Read access to the numbers of a contiguous tensor on the device.
pub(crate) struct Numbers<'a> {
    /// Where they begin.
    pub(crate) at: *const c_void,
    pub(crate) dtype: Dtype,
    op: &'static str,
    storage: StorageRef<'a>,
}

impl Numbers<'_> {
    /// Whether `next` begins `count` numbers behind the first of these, in the same memory.
    pub(crate) fn is_followed_by(&self, next: &Self, count: usize) -> bool {
        let end = self.at.wrapping_byte_add(count * self.dtype.bytes());
        std::ptr::eq(&raw const *self.storage, &raw const *next.storage) && end == next.at
    }

    /// These, if they are f32 or bf16.
    pub(crate) fn float(self) -> Result<Self> {
        match self.dtype {
            Dtype::F32 | Dtype::Bf16 => Ok(self),
            Dtype::U32 => Err(Error::DeviceStorage { op: self.op }),
        }
    }

    /// These, if they are held as `dtype`.
    pub(crate) fn of(self, dtype: Dtype) -> Result<Self> {
        match self.dtype == dtype {
            true => Ok(self),
            false => Err(Error::DeviceStorage { op: self.op }),
        }
    }
}

/// The numbers of `tensor`, in row-major order, to read.
///
/// # Errors
/// [`Error::DeviceStorage`] unless it is contiguous f32, bf16 or u32 on the device.
pub(crate) fn read<'a>(tensor: &'a Tensor, op: &'static str) -> Result<Numbers<'a>> {
    let dtype = Dtype::of(tensor, op)?;
    let (storage, layout) = tensor.storage_and_layout();
    let Some((start, _)) = layout.contiguous_offsets() else {
        return Err(Error::DeviceStorage { op });
    };
    let at = match &*storage {
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
    Ok(Numbers { at, dtype, op, storage })
}

/// A new tensor on the device, whose numbers `act` writes at the address that it gets.
///
/// # Errors
/// There is no room, or those of `act`.
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
    // SAFETY: `act` launches what writes all of it, before anything on the same stream reads it. CUDA has
    // no memory of no bytes.
    let mut slice = unsafe { device.alloc::<T>(len.max(1))? };
    act(slice.device_ptr_mut(&stream).0 as usize as *mut c_void)?;
    Ok(CudaStorage::wrap_cuda_slice(slice, device.clone()))
}

/// Numbers of the host that begin as `poison`; fails if a kernel writes beyond their end.
#[cfg(feature = "cuda-host")]
fn guarded<T: Copy>(
    len: usize,
    poison: T,
    op: &'static str,
    act: impl FnOnce(*mut c_void) -> Result<()>,
) -> Result<Vec<T>> {
    const GUARD: usize = 64;
    let mut numbers = vec![poison; len + GUARD];
    act(numbers.as_mut_ptr().cast())?;
    let size = size_of::<T>();
    let bytes = |x: &T| {
        // SAFETY: the numbers are plain bits.
        unsafe { std::slice::from_raw_parts(std::ptr::from_ref(x).cast::<u8>(), size) }.to_vec()
    };
    if numbers[len..].iter().any(|x| bytes(x) != bytes(&poison)) {
        return Err(Error::Device {
            op,
            what: "a kernel wrote beyond the end of its result".into(),
        });
    }
    numbers.truncate(len);
    Ok(numbers)
}

/// Changes the numbers of tensors in place, for every tensor that shares their memory: `act` gets their
/// addresses. No two may share memory.
///
/// # Errors
/// [`Error::DeviceStorage`] unless each is contiguous on the device and held as the type beside it; those of
/// `act`.
pub(crate) fn write<const N: usize>(
    tensors: [(&Tensor, Dtype); N],
    op: &'static str,
    act: impl FnOnce([*mut c_void; N]) -> Result<()>,
) -> Result<()> {
    write_all(&tensors, op, |found| match found.try_into() {
        Ok(found) => act(found),
        Err(_) => Err(unwritten(op)),
    })
}

/// As [`write`], for any number of tensors.
pub(crate) fn write_all(
    tensors: &[(&Tensor, Dtype)],
    op: &'static str,
    act: impl FnOnce(&[*mut c_void]) -> Result<()>,
) -> Result<()> {
    for (tensor, dtype) in tensors {
        drop(read(tensor, op)?.of(*dtype)?);
    }
    let mut found = vec![std::ptr::null_mut(); tensors.len()];
    let mut act = Some(act);
    let mut run = |found: &[*mut c_void]| act.take().map_or(Ok(()), |act| act(found));
    nested(tensors, op, &mut found, 0, &mut run)
}

/// Takes hold of the tensors from the `i`-th on, one within the other.
fn nested(
    tensors: &[(&Tensor, Dtype)],
    op: &'static str,
    found: &mut [*mut c_void],
    i: usize,
    act: &mut dyn FnMut(&[*mut c_void]) -> Result<()>,
) -> Result<()> {
    let Some((tensor, _)) = tensors.get(i) else { return act(found) };
    let mut result = Err(unwritten(op));
    {
        let inner = |at| {
            found[i] = at;
            result = nested(tensors, op, found, i + 1, act);
        };
        tensor.inplace_op1(&Access { name: op, act: Cell::new(Some(inner)) })?;
    }
    result
}

/// A change was not made.
pub(crate) fn unwritten(op: &'static str) -> Error {
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

/// Indices as the device's kernels take them.
///
/// # Errors
/// One does not fit into 32 bits, or there is no room.
pub(crate) fn upload(indices: &[usize], device: &Device, op: &'static str) -> Result<Tensor> {
    let indices: std::result::Result<Vec<u32>, _> =
        indices.iter().map(|index| u32::try_from(*index)).collect();
    let indices = indices.map_err(|_| Error::Shape { op, what: "an index is too large".into() })?;
    let len = indices.len();
    Ok(Tensor::from_vec(indices, len, device)?)
}

unsafe extern "C" {
    fn er_error(code: c_int) -> *const c_char;
}

/// What an error code of a launcher means.
pub(crate) fn words(code: i32) -> String {
    // SAFETY: it gives a string that lives as long as the process.
    let words = unsafe { CStr::from_ptr(er_error(code)) };
    format!("CUDA error {code}, {}", words.to_string_lossy())
}
