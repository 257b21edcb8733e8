//! SIMD level: the instruction set of the micro-kernels.
//!
//! It is the fastest that the CPU supports. The environment variable `EMBODIED_R_SIMD` sets it to `portable`, `avx2`,
//! `avx512` or `avx512bf16`, to test or measure the code paths of older CPUs. An unknown value, or a level that the
//! CPU lacks, is ignored with a warning.
//!
//! The level governs the GEMMs of [`crate::panels`] and all loops that run through [`SimdLevel::arch`], among them
//! attention. It does not govern
//! - loops under `#[multiversion]`, which detects the CPU itself. They are plain Rust, which the compiler neither
//!   reassociates nor contracts, so every instruction set gives the same bits;
//! - the `gemm` crate (f32 GEMMs of training, but for large ones at `avx2`), which detects the CPU itself.

use std::sync::OnceLock;

use pulp::Arch;

/// Environment variable that lowers the level.
const VARIABLE: &str = "EMBODIED_R_SIMD";

/// Instruction sets that loops are specialized for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum SimdLevel {
    /// The build target's baseline.
    Portable,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512 (F, BW, DQ, VL).
    Avx512,
    /// AVX-512 with bf16 dot products.
    Avx512Bf16,
}

impl SimdLevel {
    /// All levels, in ascending order.
    const ALL: [Self; 4] = [Self::Portable, Self::Avx2, Self::Avx512, Self::Avx512Bf16];

    /// The value of the environment variable.
    fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Avx512Bf16 => "avx512bf16",
        }
    }

    /// Whether this machine has the instructions.
    pub(crate) fn is_supported(self) -> bool {
        self <= detected()
    }

    /// The levels of this machine, in ascending order.
    #[cfg(test)]
    pub(crate) fn supported() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|level| level.is_supported())
    }

    /// The instructions for loops written with `pulp`.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn arch(self) -> Arch {
        let v4 = || pulp::x86::V4::try_new().map(Arch::V4);
        let v3 = || pulp::x86::V3::try_new().map(Arch::V3);
        let best = match self {
            Self::Portable => None,
            Self::Avx2 => v3(),
            Self::Avx512 | Self::Avx512Bf16 => v4().or_else(v3),
        };
        best.unwrap_or(Arch::Scalar)
    }

    /// The instructions for loops written with `pulp`.
    #[cfg(not(target_arch = "x86_64"))]
    pub(crate) fn arch(self) -> Arch {
        Arch::new()
    }
}

/// The level in use.
pub(crate) fn simd_level() -> SimdLevel {
    static LEVEL: OnceLock<SimdLevel> = OnceLock::new();
    *LEVEL.get_or_init(|| {
        let Some(value) = std::env::var_os(VARIABLE) else { return fastest() };
        lowered(detected(), &value.to_string_lossy()).unwrap_or_else(|error| {
            tracing::warn!("ignored `{VARIABLE}`: {error}");
            fastest()
        })
    })
}

/// The level that `value` lowers `detected` to.
///
/// # Errors
/// The value is unknown, or above `detected`: the message.
fn lowered(detected: SimdLevel, value: &str) -> Result<SimdLevel, String> {
    let names = || SimdLevel::ALL.map(SimdLevel::name).join("`, `");
    let level = SimdLevel::ALL.into_iter().find(|level| level.name() == value);
    match level {
        None => Err(format!("`{value}` is unknown, expected one of `{}`", names())),
        Some(level) if level > detected => {
            Err(format!("`{value}` is not supported, this CPU has `{}`", detected.name()))
        }
        Some(level) => Ok(level),
    }
}

/// The level without the variable: [`detected`], but plain AVX-512 on Intel's CPUs. Their bf16 dot products of 32 values
/// take two cycles, in which two f32 units multiply 64.
fn fastest() -> SimdLevel {
    #[cfg(target_arch = "x86_64")]
    if detected() == SimdLevel::Avx512Bf16 && is_intel() {
        return SimdLevel::Avx512;
    }
    detected()
}

#[cfg(target_arch = "x86_64")]
fn is_intel() -> bool {
    let leaf = std::arch::x86_64::__cpuid(0);
    [leaf.ebx, leaf.edx, leaf.ecx].map(u32::to_le_bytes).as_flattened() == b"GenuineIntel"
}

/// The best level of this machine.
fn detected() -> SimdLevel {
    static DETECTED: OnceLock<SimdLevel> = OnceLock::new();
    *DETECTED.get_or_init(detect)
}

#[cfg(target_arch = "x86_64")]
fn detect() -> SimdLevel {
    let avx512 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    if avx512 && is_x86_feature_detected!("avx512bf16") {
        SimdLevel::Avx512Bf16
    } else if avx512 {
        SimdLevel::Avx512
    } else if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        SimdLevel::Avx2
    } else {
        SimdLevel::Portable
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn detect() -> SimdLevel {
    SimdLevel::Portable
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn the_variable_lowers_the_level_and_never_raises_it() {
        for detected in SimdLevel::ALL {
            for level in SimdLevel::ALL {
                let found = lowered(detected, level.name());
                assert_eq!(found.ok(), (level <= detected).then_some(level), "{detected:?}");
            }
        }
        assert_eq!(
            lowered(SimdLevel::Avx2, "avx512").unwrap_err(),
            "`avx512` is not supported, this CPU has `avx2`"
        );
        assert_eq!(
            lowered(SimdLevel::Avx512, "sse2").unwrap_err(),
            "`sse2` is unknown, expected one of `portable`, `avx2`, `avx512`, `avx512bf16`"
        );
        assert!(lowered(SimdLevel::Avx512, "").is_err());
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn every_level_dispatches_to_its_own_instructions() {
        for level in SimdLevel::supported() {
            let own = match level {
                SimdLevel::Portable => matches!(level.arch(), Arch::Scalar),
                SimdLevel::Avx2 => matches!(level.arch(), Arch::V3(_)),
                SimdLevel::Avx512 | SimdLevel::Avx512Bf16 => matches!(level.arch(), Arch::V4(_)),
            };
            assert!(own, "{level:?}: {:?}", level.arch());
        }
    }

    /// Meaningful in the child processes below.
    #[test]
    fn the_level_in_use_is_that_of_the_variable() {
        let named = std::env::var(VARIABLE).ok();
        let named = named.and_then(|value| lowered(detected(), &value).ok());
        assert_eq!(simd_level(), named.unwrap_or_else(fastest));
    }

    /// Attention calls [`simd_level`] deep inside, so its tests run in a child process for each level.
    #[test]
    fn kernels_pass_their_tests_at_every_lower_level() {
        let in_use = "simd_level::tests::the_level_in_use_is_that_of_the_variable";
        let lower = SimdLevel::supported().filter(|level| *level < detected());
        for level in lower {
            let child = Command::new(std::env::current_exe().unwrap())
                .args([in_use, "attention::tests::", "math::tests::", "peak::tests::"])
                .args(["weight::tests::", "lm_head::tests::", "--skip", "cuda::"])
                .args(["--skip", "check::"])
                .env(VARIABLE, level.name())
                .env_remove("EMBODIED_R_CUDA_HOST")
                .output()
                .unwrap();
            let output = String::from_utf8_lossy(&child.stdout);
            assert!(child.status.success(), "{level:?}: {output}");
            for test in [
                in_use,
                "attention::tests::the_forward_equals_the_reference_for_every_pattern",
                "attention::tests::the_gradients_equal_finite_differences_for_every_pattern",
                "paged_attention::tests::every_token_equals_the_reference",
            ] {
                assert!(output.contains(&format!("{test} ... ok")), "{level:?}: {output}");
            }
        }
    }
}
