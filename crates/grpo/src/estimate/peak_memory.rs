//! Peak memory: of this process, as Linux reports it, or of its tensors on a GPU.

use std::fs;

use candle_core::Device;
use embodied_r_kernels::device;

use crate::error::Result;

/// The peak memory on `device` in bytes since the last call, where it is known; resets it. A process on a CPU counts as a
/// whole, on a GPU its tensors.
///
/// # Errors
/// The GPU cannot be queried.
pub fn take_peak_bytes(device: &Device) -> Result<Option<u64>> {
    let peak = match device::memory(device)? {
        Some(memory) => memory.peak_bytes,
        None => peak_bytes(),
    };
    match device.is_cpu() {
        true => reset_peak(),
        false => device::reset_peak_memory(device)?,
    }
    Ok(peak)
}

/// Resets the peak, so that [`peak_bytes`] covers what follows.
fn reset_peak() {
    // Best effort: not supported on other systems.
    let _ = fs::write("/proc/self/clear_refs", "5");
}

/// Peak resident memory in bytes since the last [`take_peak_bytes`] on a CPU, if there was one.
pub fn peak_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = peak.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn the_peak_covers_an_allocation() {
        let held = std::hint::black_box(vec![1u8; 64 << 20]);
        assert!(peak_bytes().unwrap() > held.len() as u64);
        assert!(take_peak_bytes(&Device::Cpu).unwrap().unwrap() > held.len() as u64);
    }
}
