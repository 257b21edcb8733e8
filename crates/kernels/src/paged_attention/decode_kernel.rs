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
    use std::process::Command;

    use super::*;

    #[test]
    fn an_unknown_kernel_is_an_error_that_names_the_known_ones() {
        assert!(DecodeKernel::named("simt").unwrap_err().contains("`tensor-cores`, `cuda-cores`"));
    }

    /// Meaningful in the child processes below.
    #[test]
    fn the_kernel_in_use_is_that_of_the_variable() {
        let expected = match std::env::var(VARIABLE).as_deref() {
            Ok("cuda-cores") => DecodeKernel::CudaCores,
            _ => DecodeKernel::TensorCores,
        };
        assert_eq!(DecodeKernel::in_use(), expected);
    }

    #[test]
    fn the_variable_selects_the_kernel() {
        let test =
            "paged_attention::decode_kernel::tests::the_kernel_in_use_is_that_of_the_variable";
        for value in ["tensor-cores", "cuda-cores", "unknown"] {
            let child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", test])
                .env(VARIABLE, value)
                .output()
                .unwrap();
            let output = String::from_utf8_lossy(&child.stdout);
            assert!(child.status.success() && output.contains("1 passed"), "{value}: {output}");
        }
    }
}
