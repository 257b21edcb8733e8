//! What the operating system tells of this process, where it does (Linux).

use std::fs;

/// Forgets the most memory that the process has held so far, so that [`peak_bytes`] tells of what comes.
pub fn reset_peak() {
    // Elsewhere there is nothing to forget, and nothing depends on it.
    let _ = fs::write("/proc/self/clear_refs", "5");
}

/// The most memory that the process has held, since the last [`reset_peak`] if there was one.
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
    fn a_peak_is_of_what_was_held() {
        let held = std::hint::black_box(vec![1u8; 64 << 20]);
        assert!(peak_bytes().unwrap() > held.len() as u64);
    }
}
