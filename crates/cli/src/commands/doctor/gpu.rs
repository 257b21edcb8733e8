//! GPUs, the driver, and the CUDA libraries.

use super::check::Check;

const AREA: &str = "GPU";

/// A build without CUDA.
#[cfg(not(feature = "cuda"))]
pub(super) fn checks() -> Vec<Check> {
    let found = match cfg!(feature = "cuda-host") {
        true => "none: this build emulates CUDA kernels on the CPU, for tests",
        false => "none: this build is CPU-only (`--features cuda` adds GPU support)",
    };
    vec![Check::note(AREA, "GPU", found)]
}

/// Checks the driver, the GPUs and the libraries.
#[cfg(feature = "cuda")]
pub(super) fn checks() -> Vec<Check> {
    let mut checks = match embodied_r_kernels::device::gpus() {
        Ok(found) => of_gpus(&found),
        Err(error) => {
            let advice = "check the driver with `nvidia-smi`; in a container, check that GPUs are passed through";
            vec![Check::warning(AREA, "GPU", error.to_string(), advice)]
        }
    };
    let versions = embodied_r_kernels::device::library_versions();
    checks.extend(libraries(&maps(), &versions));
    checks
}

/// The memory maps of this process.
#[cfg(feature = "cuda")]
pub(super) fn maps() -> String {
    std::fs::read_to_string("/proc/self/maps").unwrap_or_default()
}

/// The lowest compute capability that kernels are compiled for.
#[cfg(feature = "cuda")]
const OLDEST: (i32, i32) = (8, 0);

#[cfg(feature = "cuda")]
fn of_gpus(found: &embodied_r_kernels::device::Gpus) -> Vec<Check> {
    use super::check::size;

    let words = |(major, minor): (i32, i32)| format!("{major}.{minor}");
    let versions = format!("CUDA up to {}", words(found.driver));
    let runtime = format!("CUDA {}", words(found.runtime));
    let mut checks = vec![match found.driver >= (found.runtime.0, 0) {
        true => Check::ok(AREA, "driver", versions),
        false => {
            let advice = format!("older than the runtime ({runtime}): update the driver");
            Check::warning(AREA, "driver", versions, advice)
        }
    }];
    checks.push(Check::ok(AREA, "runtime", runtime));
    for (ordinal, gpu) in found.gpus.iter().enumerate() {
        let (name, capability) = (format!("GPU {ordinal}"), words(gpu.compute_capability));
        let memory = size(gpu.memory_bytes);
        let found = format!("{}, {memory}, compute capability {capability}", gpu.name);
        checks.push(match gpu.compute_capability >= OLDEST {
            true => Check::ok(AREA, &name, found),
            false => {
                let advice = format!("needs compute capability {} or higher", words(OLDEST));
                Check::warning(AREA, &name, found, advice)
            }
        });
    }
    if found.gpus.is_empty() {
        let advice = "in a container, pass the GPUs through";
        checks.push(Check::warning(AREA, "GPU", "the driver reports none", advice));
    }
    checks
}

/// Versions and paths of the CUDA libraries that are linked.
#[cfg(any(feature = "cuda", test))]
fn libraries(maps: &str, versions: &[(&str, [i32; 3])]) -> Vec<Check> {
    const LIBRARIES: [&str; 5] =
        ["libcuda.so", "libcudart.so", "libcublas.so", "libcublasLt.so", "libcurand.so"];
    let check = |name: &&str| {
        let version = versions.iter().find(|(library, _)| library == name);
        let version = version.map(|(_, [major, minor, patch])| format!("{major}.{minor}.{patch}"));
        let path = mapped(maps, name).map(str::to_owned);
        let found: Vec<String> = version.into_iter().chain(path).collect();
        (!found.is_empty())
            .then(|| Check::note(AREA, name.trim_end_matches(".so"), found.join(", ")))
    };
    LIBRARIES.iter().filter_map(check).collect()
}

/// The path of the library `name`, if it is mapped into this process.
#[cfg(any(feature = "cuda", test))]
pub(super) fn mapped<'a>(maps: &'a str, name: &str) -> Option<&'a str> {
    let mut paths = maps.lines().filter_map(|line| line.find('/').map(|at| &line[at..]));
    paths.find(|path| path.rsplit('/').next().is_some_and(|file| file.starts_with(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_is_matched_by_its_full_name() {
        let maps = "7f00-7f01 r-xp 00000000 08:01 12 /usr/lib/libcublasLt.so.13.0.2\n\
                    7f01-7f02 rw-p 00001000 08:01 12 /usr/lib/libcublasLt.so.13.0.2\n\
                    7f02-7f03 rw-p 00000000 00:00 0 [heap]\n";
        let found = libraries(maps, &[("libcublasLt.so", [13, 0, 2])]);
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].name.as_str(), found[0].found.as_str()),
            ("libcublasLt", "13.0.2, /usr/lib/libcublasLt.so.13.0.2")
        );
    }
}
