//! Specifications of known GPUs.

use candle_core::Device;
use embodied_r_kernels::{device, peak};
use embodied_r_policy::WeightFormat;

use super::efficiency::{self, Efficiencies};
use super::network::IntraNodeLink;
use crate::error::Result;

/// A GPU by its data sheet.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GpuSpec {
    /// Name without the memory size.
    pub name: &'static str,
    /// Nominal memory in GB.
    pub nominal_gb: f64,
    /// Memory in bytes, as the driver reports it.
    pub memory_bytes: usize,
    /// Peak FLOP/s of dense bf16 matmuls with f32 accumulation.
    pub flops_per_s: f64,
    /// Peak FLOP/s of f32 matmuls, without tensor cores.
    pub f32_flops_per_s: f64,
    /// Memory bandwidth in bytes per second.
    pub bytes_per_s: f64,
    /// The link to the other GPUs of its node.
    pub link: IntraNodeLink,
    /// The efficiencies assumed.
    pub efficiencies: Efficiencies,
}

const MIB: usize = 1 << 20;

/// A GPU by its data sheet: memory in MiB as `nvidia-smi` reports it, TFLOP/s in bf16 and f32, GB/s.
const fn spec(
    name: &'static str,
    (nominal_gb, mib): (f64, usize),
    (tflops, f32_tflops, gigabytes_per_s): (f64, f64, f64),
    link: IntraNodeLink,
    efficiencies: Efficiencies,
) -> GpuSpec {
    GpuSpec {
        name,
        nominal_gb,
        memory_bytes: mib * MIB,
        flops_per_s: tflops * 1e12,
        f32_flops_per_s: f32_tflops * 1e12,
        bytes_per_s: gigabytes_per_s * 1e9,
        link,
        efficiencies,
    }
}

/// Known GPUs, from NVIDIA's data sheets; if a name or a memory size matches several, the first is used.
///
/// NVLink rates are per direction: half of the 400 GB/s of an A800, the 600 of an A100 and the 900 of Hopper. The 4090
/// is a GeForce, whose bf16 matmuls with f32 accumulation run at half rate.
pub const GPU_SPECS: [GpuSpec; 8] = [
    spec(
        "A800",
        (40.0, 40_960),
        (312.0, 19.5, 1_555.0),
        IntraNodeLink::nvlink(200.0),
        efficiency::AMPERE,
    ),
    spec(
        "A800",
        (80.0, 81_920),
        (312.0, 19.5, 2_039.0),
        IntraNodeLink::nvlink(200.0),
        efficiency::AMPERE,
    ),
    spec(
        "A100",
        (40.0, 40_960),
        (312.0, 19.5, 1_555.0),
        IntraNodeLink::nvlink(300.0),
        efficiency::AMPERE,
    ),
    spec(
        "A100",
        (80.0, 81_920),
        (312.0, 19.5, 2_039.0),
        IntraNodeLink::nvlink(300.0),
        efficiency::AMPERE,
    ),
    spec(
        "H100",
        (80.0, 81_559),
        (989.0, 66.9, 3_350.0),
        IntraNodeLink::nvlink(450.0),
        efficiency::HOPPER,
    ),
    spec(
        "H200",
        (141.0, 143_771),
        (989.0, 66.9, 4_800.0),
        IntraNodeLink::nvlink(450.0),
        efficiency::HOPPER,
    ),
    spec("L40S", (48.0, 46_068), (362.0, 91.6, 864.0), IntraNodeLink::pcie(32.0), efficiency::ADA),
    spec(
        "4090",
        (24.0, 24_564),
        (165.2, 82.6, 1_008.0),
        IntraNodeLink::through_host(32.0),
        efficiency::ADA,
    ),
];

/// Peak FLOP/s of the device in matmuls with weights in `format`; `None` for an unknown GPU. A CPU's f32 peak is measured
/// for a tenth of a second.
///
/// # Errors
/// The GPU cannot be queried.
pub fn peak_flops_per_s(device: &Device, format: WeightFormat) -> Result<Option<f64>> {
    let Some(memory) = device::memory(device)? else { return Ok(Some(peak::flops_per_s())) };
    let spec = GpuSpec::of_gpu(&memory.name, memory.total_bytes);
    Ok(spec.map(|spec| match format {
        WeightFormat::F32 => spec.f32_flops_per_s,
        _ => spec.flops_per_s,
    }))
}

impl GpuSpec {
    /// The GPU of this name and nominal memory in GB. Without a name, the first with that memory; without either, the
    /// paper's A800. A known GPU with another memory size is used with that size.
    pub fn find(name: Option<&str>, memory_gb: Option<f64>) -> Option<Self> {
        let named = |spec: &&Self| name.is_none_or(|name| spec.is_called(name));
        let known = || GPU_SPECS.iter().filter(named);
        let Some(gb) = memory_gb else {
            // Among GPUs of the same name, the smaller memory is the safe assumption.
            return known().next().copied();
        };
        let exact = known().find(|spec| spec.nominal_gb == gb);
        let like = exact.or_else(|| known().next())?;
        let bytes = (gb * (1u64 << 30) as f64) as usize;
        let memory_bytes = if exact.is_some() { like.memory_bytes } else { bytes };
        Some(Self { nominal_gb: gb, memory_bytes, ..*like })
    }

    /// The GPU that the driver calls `name` (`NVIDIA H100 80GB HBM3`), with the memory it reports.
    pub fn of_gpu(name: &str, memory_bytes: u64) -> Option<Self> {
        let called = name.to_ascii_lowercase();
        let words = || called.split(|c: char| !c.is_ascii_alphanumeric());
        let named = |spec: &&Self| words().any(|word| word == spec.name.to_ascii_lowercase());
        let difference = |spec: &&Self| (spec.memory_bytes as u64).abs_diff(memory_bytes);
        GPU_SPECS.iter().filter(named).min_by_key(difference).copied()
    }

    /// The known names, without duplicates.
    pub fn names() -> Vec<&'static str> {
        let mut names: Vec<_> = GPU_SPECS.iter().map(|spec| spec.name).collect();
        names.dedup();
        names
    }

    /// Whether `name` matches; `RTX 4090`, `rtx4090`, `A100-40GB` and `a100` are accepted.
    fn is_called(&self, name: &str) -> bool {
        let plain: String =
            name.to_ascii_lowercase().chars().filter(char::is_ascii_alphanumeric).collect();
        let plain = ["nvidia", "geforce", "rtx"]
            .iter()
            .fold(plain.as_str(), |rest, brand| rest.strip_prefix(brand).unwrap_or(rest));
        let own = self.name.to_ascii_lowercase();
        plain == own || plain == format!("{own}{}gb", self.nominal_gb)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: Option<&str>, gb: Option<f64>) -> Option<(&'static str, usize)> {
        GpuSpec::find(name, gb).map(|spec| (spec.name, spec.memory_bytes >> 20))
    }

    #[test]
    fn the_papers_gpu_is_the_default() {
        assert_eq!(found(None, None), Some(("A800", 40_960)));
        assert_eq!(found(None, Some(40.0)), Some(("A800", 40_960)));
    }

    #[test]
    fn a_gpu_is_recognized_by_its_driver_name() {
        let of = |name: &str, gib: u64| {
            GpuSpec::of_gpu(name, gib << 30).map(|spec| (spec.name, spec.nominal_gb))
        };
        assert_eq!(of("NVIDIA A100-SXM4-80GB", 79), Some(("A100", 80.0)));
        assert_eq!(of("NVIDIA A100-PCIE-40GB", 39), Some(("A100", 40.0)));
        assert_eq!(of("NVIDIA H100 80GB HBM3", 79), Some(("H100", 80.0)));
        assert_eq!(of("NVIDIA GeForce RTX 4090", 24), Some(("4090", 24.0)));
        assert_eq!(of("Tesla T4", 15), None);
    }

    #[test]
    fn a_memory_size_selects_the_gpu() {
        let of = |gb| found(None, Some(gb)).map(|(name, _)| name);
        assert_eq!(
            [of(24.0), of(48.0), of(80.0), of(141.0)],
            [Some("4090"), Some("L40S"), Some("A800"), Some("H200")]
        );
    }

    #[test]
    fn names_may_include_brand_and_memory() {
        for name in ["4090", "RTX 4090", "NVIDIA GeForce RTX 4090", "rtx4090"] {
            assert_eq!(found(Some(name), None), Some(("4090", 24_564)), "{name}");
        }
        assert_eq!(found(Some("A100-80GB"), None), Some(("A100", 81_920)));
        assert_eq!(found(Some("h100"), Some(80.0)), Some(("H100", 81_559)));
        assert_eq!(found(Some("MI300"), None), None);
    }

    #[test]
    fn a_known_gpu_with_another_memory_size_keeps_its_speed() {
        let spec = GpuSpec::find(Some("H100"), Some(96.0)).unwrap();
        assert_eq!((spec.memory_bytes >> 30, spec.bytes_per_s), (96, 3_350e9));
    }
}
