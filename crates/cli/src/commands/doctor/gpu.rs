//! GPUs, their driver, and the libraries that work on them.

use super::check::Check;

const AREA: &str = "GPU";

/// A build without the operations for GPUs.
#[cfg(not(feature = "cuda"))]
pub(super) fn checks() -> Vec<Check> {
    let found = match cfg!(feature = "cuda-host") {
        true => "none in this build: its GPU operations run on the processor, for tests",
        false => "none in this build: it computes on the processor (`--features cuda` adds them)",
    };
    vec![Check::note(AREA, "GPU", found)]
}

/// Checks the driver, the GPUs and the libraries.
#[cfg(feature = "cuda")]
pub(super) fn checks() -> Vec<Check> {
    let mut checks = match embodied_r_kernels::device::gpus() {
        Ok(found) => of_gpus(&found),
        Err(error) => {
            let advice = "check with `nvidia-smi` that the driver runs, and in a container that it may see GPUs";
            vec![Check::warning(AREA, "GPU", error.to_string(), advice)]
        }
    };
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    checks.extend(libraries(&maps));
    checks
}

/// The oldest cards that kernels are compiled for.
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
            let advice = format!("the runtime is of {runtime}: update the driver");
            Check::warning(AREA, "driver", versions, advice)
        }
    }];
    checks.push(Check::ok(AREA, "runtime", runtime));
    for (ordinal, gpu) in found.gpus.iter().enumerate() {
        let (name, capability) = (format!("GPU {ordinal}"), words(gpu.compute_capability));
        let found = format!("{}, {}, {capability}", gpu.name, size(gpu.memory_bytes));
        checks.push(match gpu.compute_capability >= OLDEST {
            true => Check::ok(AREA, &name, found),
            false => {
                let advice = format!("kernels need compute capability {}", words(OLDEST));
                Check::warning(AREA, &name, found, advice)
            }
        });
    }
    if found.gpus.is_empty() {
        let advice = "in a container, pass GPUs through to it";
        checks.push(Check::warning(AREA, "GPU", "the driver has none", advice));
    }
    checks
}

/// Where the libraries in use lie, by the list of what is mapped into this process.
#[cfg(any(feature = "cuda", test))]
fn libraries(maps: &str) -> Vec<Check> {
    const LIBRARIES: [&str; 5] =
        ["libcuda.so", "libcudart.so", "libcublas.so", "libcublasLt.so", "libnccl.so"];
    let path = |name: &str| {
        let paths = maps.lines().filter_map(|line| line.find('/').map(|at| &line[at..]));
        paths
            .into_iter()
            .find(|path| path.rsplit('/').next().is_some_and(|file| file.starts_with(name)))
    };
    let found = LIBRARIES.iter().filter_map(|name| Some((name, path(name)?)));
    found.map(|(name, path)| Check::note(AREA, name.trim_end_matches(".so"), path)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_is_found_by_its_name_and_not_by_one_that_begins_alike() {
        let maps = "7f00-7f01 r-xp 00000000 08:01 12 /usr/lib/libcublasLt.so.13.0.2\n\
                    7f01-7f02 rw-p 00001000 08:01 12 /usr/lib/libcublasLt.so.13.0.2\n\
                    7f02-7f03 rw-p 00000000 00:00 0 [heap]\n";
        let found = libraries(maps);
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].name.as_str(), found[0].found.as_str()),
            ("libcublasLt", "/usr/lib/libcublasLt.so.13.0.2")
        );
    }
}
