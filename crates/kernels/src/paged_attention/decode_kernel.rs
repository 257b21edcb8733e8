//! The kernel that computes partial results when decoding on a device.

use std::sync::OnceLock;

/// Environment variable that selects the kernel.
const VARIABLE: &str = "EMBODIED_R_PAGED_ATTENTION";

/// Kernel that decodes over pages in bf16. Pages in f32 are always computed on CUDA cores.
///
/// Tensor cores are the default. The environment variable `EMBODIED_R_PAGED_ATTENTION` selects `tensor-cores` or
/// `cuda-cores` for the process, to compare their speed; an unknown value is ignored with a warning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecodeKernel {
    /// Products on tensor cores with f32 accumulation; the attention weights are rounded to bf16.
    TensorCores,
    /// Products and weights in f32.
    CudaCores,
}

impl DecodeKernel {
    const ALL: [Self; 2] = [Self::TensorCores, Self::CudaCores];

    /// The value of the environment variable.
    fn name(self) -> &'static str {
        match self {
            Self::TensorCores => "tensor-cores",
            Self::CudaCores => "cuda-cores",
        }
    }

    /// The kernel that the process uses.
    pub(crate) fn in_use() -> Self {
        static IN_USE: OnceLock<DecodeKernel> = OnceLock::new();
        *IN_USE.get_or_init(|| {
            let Some(value) = std::env::var_os(VARIABLE) else { return Self::TensorCores };
            Self::named(&value.to_string_lossy()).unwrap_or_else(|error| {
                tracing::warn!("ignored `{VARIABLE}`: {error}");
                Self::TensorCores
            })
        })
    }

    fn named(value: &str) -> Result<Self, String> {
        let names = || Self::ALL.map(Self::name).join("`, `");
        let kernel = Self::ALL.into_iter().find(|kernel| kernel.name() == value);
        kernel.ok_or_else(|| format!("`{value}` is unknown, expected one of `{}`", names()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_are_selected_by_name() {
        for kernel in DecodeKernel::ALL {
            assert_eq!(DecodeKernel::named(kernel.name()), Ok(kernel));
        }
        assert!(DecodeKernel::named("simt").unwrap_err().contains("`tensor-cores`, `cuda-cores`"));
    }
}
