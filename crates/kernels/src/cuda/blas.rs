//! Products by cuBLASLt: f32 without TF32, bf16 with f32 sums.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};

use candle_core::Device;
use cudarc::cublaslt::result::{self, CublasError};
use cudarc::cublaslt::sys::{
    self, cublasComputeType_t, cublasLtMatmulAlgo_t, cublasLtMatmulDescAttributes_t as OfProduct,
    cublasLtMatmulPreferenceAttributes_t as OfPreference,
    cublasLtMatrixLayoutAttribute_t as OfLayout, cudaDataType,
};
use cudarc::driver::{CudaSlice, CudaStream, DevicePtr};

use super::product::{Base, Destination, Factor, How};
use super::{Dtype, Stream};
use crate::error::{Error, Result};

/// What algorithms may use beside: what NVIDIA recommends for Hopper.
const WORKSPACE: usize = 32 << 20;

/// Problems that are known at most: micro-batches of a long run have ever other sizes.
const KNOWN: usize = 1 << 12;

/// The alignment of memory fresh from the driver, more than which is never asked for.
const ALIGNMENT: usize = 256;

/// cuBLASLt on one stream.
struct Library {
    handle: sys::cublasLtHandle_t,
    workspace: CudaSlice<u8>,
    /// How products are made that were asked for before.
    known: Mutex<HashMap<Problem, Arc<Prepared>>>,
}

// SAFETY: cuBLASLt's handle may be used by several threads at once.
unsafe impl Send for Library {}
// SAFETY: as above.
unsafe impl Sync for Library {}

impl Drop for Library {
    fn drop(&mut self) {
        // SAFETY: the handle was made with this, and nobody has it any more. At the process' end an error
        // helps nobody.
        let _ = unsafe { result::destroy_handle(self.handle) };
    }
}

/// All that the choice of an algorithm depends on.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Problem {
    /// Columns, rows and depth of the product, row-major.
    size: [usize; 3],
    transposed: [bool; 2],
    row_strides: [usize; 3],
    batch: usize,
    batch_strides: [usize; 3],
    bf16: bool,
    bf16_out: bool,
    adds: bool,
    /// Of both factors, what is added to, and the result.
    alignments: [usize; 4],
}

/// What is asked of the library for a problem once: its words for it, and its choice.
struct Prepared {
    described: Described,
    algorithm: cublasLtMatmulAlgo_t,
}

// SAFETY: nothing changes them once they are made, and the library only reads them.
unsafe impl Send for Prepared {}
// SAFETY: as above.
unsafe impl Sync for Prepared {}

/// The libraries by their streams: the GPU's ordinal, and the stream's address.
type Libraries = HashMap<(usize, usize), Arc<Library>>;

static LIBRARIES: LazyLock<Mutex<Libraries>> = LazyLock::new(Mutex::default);

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn library(stream: &Arc<CudaStream>) -> Result<Arc<Library>> {
    let key = (stream.context().ordinal(), stream.cu_stream() as usize);
    let mut libraries = locked(&LIBRARIES);
    if let Some(library) = libraries.get(&key) {
        return Ok(library.clone());
    }
    // SAFETY: what algorithms put there is read by themselves alone.
    let workspace = unsafe { stream.alloc::<u8>(WORKSPACE) }.map_err(candle_core::Error::wrap)?;
    let handle = result::create_handle().map_err(|e| fault("product", e))?;
    let library = Arc::new(Library { handle, workspace, known: Mutex::default() });
    libraries.insert(key, library.clone());
    Ok(library)
}

fn fault(op: &'static str, error: CublasError) -> Error {
    Error::Device { op, what: format!("cuBLASLt: {error}") }
}

/// The largest power of two, up to [`ALIGNMENT`], that an address is a multiple of.
fn alignment(at: *const c_void) -> usize {
    1 << (at as usize | ALIGNMENT).trailing_zeros()
}

/// As [`super::product::product`], which has checked the shapes.
pub(super) fn product(
    device: &Device,
    out: Destination,
    a: Factor,
    b: Factor,
    how: How,
    op: &'static str,
) -> Result<()> {
    let Device::Cuda(cuda) = device else { return Err(Error::DeviceStorage { op }) };
    let stream = cuda.cuda_stream();
    let Stream(raw) = Stream::of_device(device)?;
    let library = library(&stream)?;
    let base = match how.base {
        Base::At(base) => base,
        Base::Nothing | Base::Destination => out.at.cast_const(),
    };
    // Row-major matrices are the transposed ones of the library's order: outᵀ = bᵀ · aᵀ.
    let problem = Problem {
        size: [out.cols, out.rows, a.shape().1],
        transposed: [b.transposed, a.transposed],
        row_strides: [b.row_stride, a.row_stride, out.row_stride],
        batch: how.batch,
        batch_strides: [b.batch_stride, a.batch_stride, out.batch_stride],
        bf16: a.dtype == Dtype::Bf16,
        bf16_out: out.dtype == Dtype::Bf16,
        adds: how.base != Base::Nothing,
        alignments: [b.at, a.at, base, out.at.cast_const()].map(alignment),
    };
    let prepared = prepared(&library, problem).map_err(|e| fault(op, e))?;
    let Prepared { described, algorithm } = prepared.as_ref();
    let beta: f32 = if problem.adds { 1.0 } else { 0.0 };
    let workspace = library.workspace.device_ptr(&stream).0 as usize as *mut c_void;
    // SAFETY: the layouts describe memory that the caller holds; the workspace is used by one product after
    // the other, in the stream's order.
    unsafe {
        result::matmul(
            library.handle,
            described.product,
            std::ptr::from_ref(&how.alpha).cast(),
            std::ptr::from_ref(&beta).cast(),
            b.at,
            described.layouts[0],
            a.at,
            described.layouts[1],
            base,
            described.layouts[2],
            out.at,
            described.layouts[2],
            std::ptr::from_ref(algorithm),
            workspace,
            WORKSPACE,
            raw.cast(),
        )
    }
    .map_err(|e| fault(op, e))
}

/// The library's words for a product.
struct Described {
    product: sys::cublasLtMatmulDesc_t,
    /// Of both factors and the result.
    layouts: [sys::cublasLtMatrixLayout_t; 3],
}

impl Drop for Described {
    fn drop(&mut self) {
        for layout in self.layouts.into_iter().filter(|layout| !layout.is_null()) {
            // SAFETY: it was made by `layout`, and nobody else has it.
            let _ = unsafe { result::destroy_matrix_layout(layout) };
        }
        // SAFETY: it was made by `create_matmul_desc`, and nobody else has it.
        let _ = unsafe { result::destroy_matmul_desc(self.product) };
    }
}

impl Described {
    fn new(problem: &Problem) -> std::result::Result<Self, CublasError> {
        let f32_sums = cublasComputeType_t::CUBLAS_COMPUTE_32F;
        let product = result::create_matmul_desc(f32_sums, cudaDataType::CUDA_R_32F)?;
        let mut described = Self { product, layouts: [std::ptr::null_mut(); 3] };
        let sides =
            [OfProduct::CUBLASLT_MATMUL_DESC_TRANSA, OfProduct::CUBLASLT_MATMUL_DESC_TRANSB];
        for (side, transposed) in sides.into_iter().zip(problem.transposed) {
            // `CUBLAS_OP_T` and `CUBLAS_OP_N`.
            let operation = i32::from(transposed);
            // SAFETY: the attribute is an operation, of an int's size.
            unsafe {
                result::set_matmul_desc_attribute(
                    product,
                    side,
                    std::ptr::from_ref(&operation).cast(),
                    size_of_val(&operation),
                )?;
            }
        }
        let [cols, rows, depth] = problem.size;
        let stored = |shape: (usize, usize), transposed: bool| match transposed {
            true => (shape.1, shape.0),
            false => shape,
        };
        let [first, second] = problem.transposed;
        let shapes = [stored((cols, depth), first), stored((depth, rows), second), (cols, rows)];
        for (i, shape) in shapes.into_iter().enumerate() {
            let bf16 = if i < 2 { problem.bf16 } else { problem.bf16_out };
            described.layouts[i] = layout(problem, i, shape, bf16)?;
        }
        Ok(described)
    }
}

fn layout(
    problem: &Problem,
    i: usize,
    (rows, cols): (usize, usize),
    bf16: bool,
) -> std::result::Result<sys::cublasLtMatrixLayout_t, CublasError> {
    let dtype = if bf16 { cudaDataType::CUDA_R_16BF } else { cudaDataType::CUDA_R_32F };
    let stride = problem.row_strides[i].max(1) as i64;
    let layout = result::create_matrix_layout(dtype, rows as u64, cols as u64, stride)?;
    let (batch, stride) = (problem.batch as i32, problem.batch_strides[i] as i64);
    // SAFETY: the attributes are an i32 and an i64.
    unsafe {
        result::set_matrix_layout_attribute(
            layout,
            OfLayout::CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT,
            std::ptr::from_ref(&batch).cast(),
            size_of::<i32>(),
        )?;
        result::set_matrix_layout_attribute(
            layout,
            OfLayout::CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET,
            std::ptr::from_ref(&stride).cast(),
            size_of::<i64>(),
        )?;
    }
    Ok(layout)
}

/// How a problem is solved; the library is asked once.
fn prepared(
    library: &Library,
    problem: Problem,
) -> std::result::Result<Arc<Prepared>, CublasError> {
    if let Some(prepared) = locked(&library.known).get(&problem) {
        return Ok(prepared.clone());
    }
    let described = Described::new(&problem)?;
    let algorithm = algorithm(library, &problem, &described)?;
    let prepared = Arc::new(Prepared { described, algorithm });
    let mut known = locked(&library.known);
    if known.len() >= KNOWN {
        // Those that are met often are soon there again.
        known.clear();
    }
    known.insert(problem, prepared.clone());
    Ok(prepared)
}

/// The library's first choice for a problem.
fn algorithm(
    library: &Library,
    problem: &Problem,
    described: &Described,
) -> std::result::Result<cublasLtMatmulAlgo_t, CublasError> {
    let preference = result::create_matmul_pref()?;
    let set = |attribute, value: *const c_void, size| {
        // SAFETY: the attribute's type is that of the value.
        unsafe { result::set_matmul_pref_attribute(preference, attribute, value, size) }
    };
    let alignments = [
        OfPreference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
        OfPreference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        OfPreference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
        OfPreference::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
    ];
    let found = set(
        OfPreference::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
        std::ptr::from_ref(&WORKSPACE).cast(),
        size_of::<usize>(),
    )
    .and_then(|()| {
        alignments.into_iter().zip(problem.alignments).try_for_each(|(attribute, bytes)| {
            let bytes = bytes as u32;
            set(attribute, std::ptr::from_ref(&bytes).cast(), size_of::<u32>())
        })
    })
    .and_then(|()| {
        let [b, a, out] = described.layouts;
        // SAFETY: all of them were made above and live.
        unsafe {
            let (handle, product) = (library.handle, described.product);
            result::get_matmul_algo_heuristic(handle, product, b, a, out, out, preference)
        }
    });
    // SAFETY: it was made above, and nobody else has it.
    unsafe { result::destroy_matmul_pref(preference)? };
    Ok(found?.algo)
}
