//! Peak memory of this process, as Linux reports it.

use std::fs;

/// Resets the peak, so that [`peak_bytes`] covers what follows.
pub fn reset_peak() {
    // Best effort: not supported on other systems.
    let _ = fs::write("/proc/self/clear_refs", "5");
}

/// Peak resident memory in bytes since the last [`reset_peak`], if there was one.
pub fn peak_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = peak.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_peak_covers_an_allocation() {
        let held = std::hint::black_box(vec![1u8; 64 << 20]);
        assert!(peak_bytes().unwrap() > held.len() as u64);
    }
}
