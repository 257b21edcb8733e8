//! GEMM by cuBLASLt: f32 without TF32, bf16 with f32 accumulation.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};

use candle_core::Device;
use cudarc::cublaslt::result::{self, CublasError};
use cudarc::cublaslt::sys::{
    self, cublasComputeType_t, cublasLtMatmulAlgo_t,
    cublasLtMatmulDescAttributes_t as MatmulAttribute,
    cublasLtMatmulPreferenceAttributes_t as PreferenceAttribute,
    cublasLtMatrixLayoutAttribute_t as LayoutAttribute, cublasLtReductionScheme_t as Reduction,
    cublasStatus_t, cudaDataType,
};
use cudarc::driver::{CudaSlice, CudaStream, DevicePtr};

use super::gemm::{Addend, Algorithm, Destination, GemmOptions, Operand};
use super::{Dtype, Stream};
use crate::error::{Error, Result};

/// Workspace of the algorithms: NVIDIA's recommendation for Hopper.
const WORKSPACE: usize = 32 << 20;

/// Maximum cached plans: the micro-batches of a long run keep changing in size.
const MAX_PLANS: usize = 1 << 12;

/// Maximum alignment considered: that of fresh allocations.
const ALIGNMENT: usize = 256;

/// A cuBLASLt handle for one stream.
struct Library {
    handle: sys::cublasLtHandle_t,
    workspace: CudaSlice<u8>,
    /// Cached plans; `None` where the library has no algorithm.
    plans: Mutex<HashMap<Problem, Option<Arc<GemmPlan>>>>,
}

// SAFETY: cuBLASLt's handle may be used by several threads at once.
unsafe impl Send for Library {}
// SAFETY: as above.
unsafe impl Sync for Library {}

impl Drop for Library {
    fn drop(&mut self) {
        // SAFETY: the handle was created with this value and is not used elsewhere. At process exit an error is
        // irrelevant.
        let _ = unsafe { result::destroy_handle(self.handle) };
    }
}

/// Everything that the choice of an algorithm depends on.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Problem {
    /// n, m and k of the row-major GEMM.
    size: [usize; 3],
    transposed: [bool; 2],
    row_strides: [usize; 3],
    batch: usize,
    batch_strides: [usize; 3],
    bf16: bool,
    bf16_out: bool,
    adds: bool,
    /// Of both operands, the addend and the output.
    alignments: [usize; 4],
}

/// The library's descriptors and chosen algorithm for a problem.
struct GemmPlan {
    descriptors: Descriptors,
    algorithm: cublasLtMatmulAlgo_t,
}

// SAFETY: they are immutable once created, and the library only reads them.
unsafe impl Send for GemmPlan {}
// SAFETY: as above.
unsafe impl Sync for GemmPlan {}

/// Libraries by GPU ordinal and stream address.
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
    // SAFETY: the workspace is read only by the algorithms that write it.
    let workspace = unsafe { stream.alloc::<u8>(WORKSPACE) }.map_err(candle_core::Error::wrap)?;
    let handle = result::create_handle().map_err(|e| device_error("gemm", e))?;
    let library = Arc::new(Library { handle, workspace, plans: Mutex::default() });
    libraries.insert(key, library.clone());
    Ok(library)
}

fn device_error(op: &'static str, error: CublasError) -> Error {
    Error::Device { op, what: format!("cuBLASLt: {error}") }
}

/// The largest power of two, up to [`ALIGNMENT`], that divides the addresses of all matrices of a batch, `stride` bytes
/// apart.
fn alignment(at: *const c_void, stride: usize) -> usize {
    1 << (at as usize | stride | ALIGNMENT).trailing_zeros()
}

/// See [`super::gemm::gemm`], which has checked the shapes.
pub(super) fn gemm(
    device: &Device,
    out: Destination,
    a: Operand,
    b: Operand,
    options: GemmOptions,
    op: &'static str,
) -> Result<Algorithm> {
    let Device::Cuda(cuda) = device else { return Err(Error::DeviceStorage { op }) };
    let stream = cuda.cuda_stream();
    let Stream(raw) = Stream::of_device(device)?;
    let library = library(&stream)?;
    let base = match options.addend {
        Addend::At(base) => base,
        Addend::Zero | Addend::Destination => out.ptr.cast_const(),
    };
    let batch_stride = |stride: usize, dtype: Dtype| match options.batch {
        1 => 0,
        _ => stride * dtype.bytes(),
    };
    let of_out = batch_stride(out.batch_stride, out.dtype);
    let alignments = [
        alignment(b.ptr, batch_stride(b.batch_stride, b.dtype)),
        alignment(a.ptr, batch_stride(a.batch_stride, a.dtype)),
        alignment(base, of_out),
        alignment(out.ptr, of_out),
    ];
    // Row-major matrices are transposed column-major ones: outᵀ = bᵀ · aᵀ.
    let problem = Problem {
        size: [out.cols, out.rows, a.shape().1],
        transposed: [b.transposed, a.transposed],
        row_strides: [b.row_stride, a.row_stride, out.row_stride],
        batch: options.batch,
        batch_strides: [b.batch_stride, a.batch_stride, out.batch_stride],
        bf16: a.dtype == Dtype::Bf16,
        bf16_out: out.dtype == Dtype::Bf16,
        adds: options.addend != Addend::Zero,
        alignments,
    };
    let Some(plan) = plan(&library, problem).map_err(|e| device_error(op, e))? else {
        return Ok(Algorithm::Missing);
    };
    let GemmPlan { descriptors, algorithm } = plan.as_ref();
    let beta: f32 = if problem.adds { options.beta } else { 0.0 };
    let workspace = library.workspace.device_ptr(&stream).0 as usize as *mut c_void;
    // SAFETY: the layouts describe memory that the caller holds; GEMMs use the workspace one after the other, in
    // stream order.
    unsafe {
        result::matmul(
            library.handle,
            descriptors.matmul,
            std::ptr::from_ref(&options.alpha).cast(),
            std::ptr::from_ref(&beta).cast(),
            b.ptr,
            descriptors.layouts[0],
            a.ptr,
            descriptors.layouts[1],
            base,
            descriptors.layouts[2],
            out.ptr,
            descriptors.layouts[2],
            std::ptr::from_ref(algorithm),
            workspace,
            WORKSPACE,
            raw.cast(),
        )
    }
    .map_err(|e| device_error(op, e))?;
    Ok(Algorithm::Found)
}

/// cuBLASLt descriptors of a GEMM.
struct Descriptors {
    matmul: sys::cublasLtMatmulDesc_t,
    /// Of both operands and the output.
    layouts: [sys::cublasLtMatrixLayout_t; 3],
}

impl Drop for Descriptors {
    fn drop(&mut self) {
        for layout in self.layouts.into_iter().filter(|layout| !layout.is_null()) {
            // SAFETY: it was created by `layout` and is not used elsewhere.
            let _ = unsafe { result::destroy_matrix_layout(layout) };
        }
        // SAFETY: it was created by `create_matmul_desc` and is not used elsewhere.
        let _ = unsafe { result::destroy_matmul_desc(self.matmul) };
    }
}

impl Descriptors {
    fn new(problem: &Problem) -> std::result::Result<Self, CublasError> {
        let f32_sums = cublasComputeType_t::CUBLAS_COMPUTE_32F;
        let matmul = result::create_matmul_desc(f32_sums, cudaDataType::CUDA_R_32F)?;
        let mut descriptors = Self { matmul, layouts: [std::ptr::null_mut(); 3] };
        let sides = [
            MatmulAttribute::CUBLASLT_MATMUL_DESC_TRANSA,
            MatmulAttribute::CUBLASLT_MATMUL_DESC_TRANSB,
        ];
        for (side, transposed) in sides.into_iter().zip(problem.transposed) {
            // `CUBLAS_OP_T` and `CUBLAS_OP_N`.
            let operation = i32::from(transposed);
            // SAFETY: the attribute is an operation, of the size of an int.
            unsafe {
                result::set_matmul_desc_attribute(
                    matmul,
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
            descriptors.layouts[i] = layout(problem, i, shape, bf16)?;
        }
        Ok(descriptors)
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
            LayoutAttribute::CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT,
            std::ptr::from_ref(&batch).cast(),
            size_of::<i32>(),
        )?;
        result::set_matrix_layout_attribute(
            layout,
            LayoutAttribute::CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET,
            std::ptr::from_ref(&stride).cast(),
            size_of::<i64>(),
        )?;
    }
    Ok(layout)
}

/// The cached plan of a problem, created on first use; `None` if the library has no algorithm for it.
fn plan(
    library: &Library,
    problem: Problem,
) -> std::result::Result<Option<Arc<GemmPlan>>, CublasError> {
    if let Some(plan) = locked(&library.plans).get(&problem) {
        return Ok(plan.clone());
    }
    let descriptors = Descriptors::new(&problem)?;
    let plan = match algorithm(library, &problem, &descriptors) {
        Ok(algorithm) => Some(Arc::new(GemmPlan { descriptors, algorithm })),
        Err(CublasError(cublasStatus_t::CUBLAS_STATUS_NOT_SUPPORTED)) => None,
        Err(error) => return Err(error),
    };
    let mut plans = locked(&library.plans);
    if plans.len() >= MAX_PLANS {
        // Frequent problems are soon cached again.
        plans.clear();
    }
    plans.insert(problem, plan.clone());
    Ok(plan)
}

/// The heuristic's first choice for a problem. Split-K parts are added in the compute type, f32: in the output's type
/// each partial sum would be rounded to bf16.
fn algorithm(
    library: &Library,
    problem: &Problem,
    descriptors: &Descriptors,
) -> std::result::Result<cublasLtMatmulAlgo_t, CublasError> {
    let preference = result::create_matmul_pref()?;
    let set = |attribute, value: *const c_void, size| {
        // SAFETY: the attribute's type is the value's.
        unsafe { result::set_matmul_pref_attribute(preference, attribute, value, size) }
    };
    let alignments = [
        PreferenceAttribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
        PreferenceAttribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        PreferenceAttribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
        PreferenceAttribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
    ];
    let found = set(
        PreferenceAttribute::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
        std::ptr::from_ref(&WORKSPACE).cast(),
        size_of::<usize>(),
    )
    .and_then(|()| {
        let scheme = Reduction::CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE as u32;
        let attribute = PreferenceAttribute::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK;
        set(attribute, std::ptr::from_ref(&scheme).cast(), size_of::<u32>())
    })
    .and_then(|()| {
        alignments.into_iter().zip(problem.alignments).try_for_each(|(attribute, bytes)| {
            let bytes = bytes as u32;
            set(attribute, std::ptr::from_ref(&bytes).cast(), size_of::<u32>())
        })
    })
    .and_then(|()| {
        let [b, a, out] = descriptors.layouts;
        // SAFETY: all handles were created above and are alive.
        unsafe {
            let (handle, matmul) = (library.handle, descriptors.matmul);
            result::get_matmul_algo_heuristic(handle, matmul, b, a, out, out, preference)
        }
    });
    // SAFETY: it was created above and is not used elsewhere.
    unsafe { result::destroy_matmul_pref(preference)? };
    Ok(found?.algo)
}
