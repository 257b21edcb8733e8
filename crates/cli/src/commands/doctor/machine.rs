//! The machine: CPU, memory, disk.

use std::path::{Path, PathBuf};

use super::check::{Check, size};

const AREA: &str = "machine";
const GIB: u64 = 1 << 30;

/// Checks the CPU and the memory.
pub(super) fn checks() -> Vec<Check> {
    vec![processor(), cores(), memory(memory_bytes())]
}

/// The widest SIMD instructions that the kernels can use.
fn vector_instructions() -> Option<&'static str> {
    #[cfg(target_arch = "x86_64")]
    {
        if std::arch::is_x86_feature_detected!("avx512f") {
            return Some("AVX-512");
        }
        if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma")
        {
            return Some("AVX2");
        }
        None
    }
    #[cfg(target_arch = "aarch64")]
    {
        Some("NEON")
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        None
    }
}

/// The processor, its widest usable instructions, and the cores.
pub(crate) fn description() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let widest = vector_instructions().map(|widest| format!(", {widest}")).unwrap_or_default();
    let plural = if cores == 1 { "" } else { "s" };
    format!("{}{widest}, {cores} core{plural}", model_name())
}

fn model_name() -> String {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    field(&cpuinfo, "model name").unwrap_or(std::env::consts::ARCH).to_owned()
}

fn processor() -> Check {
    let model = model_name();
    match vector_instructions() {
        Some(widest) => Check::ok(AREA, "processor", format!("{model}, {widest}")),
        None => Check::warning(
            AREA,
            "processor",
            format!("{model}, no AVX2"),
            "training and inference are several times slower without AVX2",
        ),
    }
}

fn cores() -> Check {
    match std::thread::available_parallelism() {
        Ok(cores) => Check::ok(AREA, "cores", cores.to_string()),
        Err(error) => Check::note(AREA, "cores", format!("unknown: {error}")),
    }
}

fn memory(bytes: Option<u64>) -> Check {
    match bytes {
        None => Check::note(AREA, "memory", "unknown"),
        Some(bytes) if bytes < 2 * GIB => Check::warning(
            AREA,
            "memory",
            format!("{} available", size(bytes)),
            "the quickstart needs 2 GiB; larger models need more",
        ),
        Some(bytes) => Check::ok(AREA, "memory", format!("{} available", size(bytes))),
    }
}

/// Available memory: the system's, or the container's if that is less.
pub(crate) fn memory_bytes() -> Option<u64> {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let system = read("/proc/meminfo").and_then(|text| available(&text));
    let limit = read("/sys/fs/cgroup/memory.max").and_then(|text| text.trim().parse::<u64>().ok());
    let used = read("/sys/fs/cgroup/memory.current").and_then(|text| text.trim().parse().ok());
    let container = limit.map(|limit| limit.saturating_sub(used.unwrap_or(0)));
    match (system, container) {
        (Some(system), Some(container)) => Some(system.min(container)),
        (system, container) => system.or(container),
    }
}

/// `MemAvailable` of `/proc/meminfo`, in bytes.
fn available(meminfo: &str) -> Option<u64> {
    let kib: u64 = field(meminfo, "MemAvailable")?.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

/// The value of the first line `name: value`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.trim() == name)
        .map(|(_, value)| value.trim())
}

/// Checks the free disk space at `folder`, which need not exist yet.
pub(super) fn disk(name: &str, folder: &Path) -> Check {
    match free_bytes(folder) {
        None => Check::note(AREA, name, format!("unknown at `{}`", folder.display())),
        Some(free) => {
            let found = format!("{} free at `{}`", size(free), folder.display());
            if free < GIB {
                let advice = "free some space: checkpoints and videos take gigabytes";
                Check::warning(AREA, name, found, advice)
            } else {
                Check::ok(AREA, name, found)
            }
        }
    }
}

/// Free disk space at `folder`, which need not exist yet, if known.
pub(crate) fn free_bytes(folder: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(nearest_present(folder)?).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// `folder`, or its closest existing ancestor.
fn nearest_present(folder: &Path) -> Option<PathBuf> {
    let folder = std::path::absolute(folder).ok()?;
    folder.ancestors().find(|path| path.exists()).map(Path::to_path_buf)
}

#[cfg(test)]
mod tests {
    use super::super::check::State;
    use super::*;

    #[test]
    fn available_memory_is_read_in_bytes() {
        let text = "MemTotal:       24 kB\nMemAvailable:   2048 kB\n";
        assert_eq!(available(text), Some(2 << 20));
        assert_eq!(available("MemTotal: 24 kB\n"), None);
    }

    #[test]
    fn little_memory_is_a_warning() {
        assert_eq!(memory(Some(GIB)).state, State::Warning);
        assert_eq!(memory(Some(4 * GIB)).state, State::Ok);
        assert_eq!(memory(None).state, State::Note);
    }

    #[test]
    fn the_disk_of_a_new_folder_is_that_of_its_closest_ancestor() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("a/b/c");
        assert_eq!(nearest_present(&below), Some(folder.path().to_path_buf()));
    }
}
