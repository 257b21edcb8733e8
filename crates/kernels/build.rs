//! Compiles the CUDA kernels: with feature `cuda` by nvcc, with `cuda-host` by the host compiler.

fn main() {
    println!("cargo::rustc-check-cfg=cfg(device)");
    println!("cargo::rerun-if-changed=cuda");
    let enabled = |feature: &str| std::env::var_os(feature).is_some();
    let result = match (enabled("CARGO_FEATURE_CUDA"), enabled("CARGO_FEATURE_CUDA_HOST")) {
        (false, false) => return,
        (true, true) => Err("features `cuda` and `cuda-host` are mutually exclusive".into()),
        (true, false) => gpu::compile(),
        (false, true) => host::compile(),
    };
    println!("cargo::rustc-cfg=device");
    if let Err(error) = result {
        println!("cargo::error={error}");
    }
}

/// Name of the static library.
const LIBRARY: &str = "embodied_r_kernels";

/// The kernel source files.
fn sources() -> Result<Vec<std::path::PathBuf>, String> {
    let entries = std::fs::read_dir("cuda").map_err(|e| format!("cannot read `cuda`: {e}"))?;
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let mut sources: Vec<_> =
        paths.filter(|path| path.extension().is_some_and(|extension| extension == "cu")).collect();
    sources.sort();
    Ok(sources)
}

/// CPU emulation of the CUDA kernels.
mod host {
    #[cfg(not(feature = "cuda-host"))]
    pub(super) fn compile() -> Result<(), String> {
        Ok(())
    }

    #[cfg(feature = "cuda-host")]
    pub(super) fn compile() -> Result<(), String> {
        cc::Build::new()
            .cpp(true)
            .std("c++17")
            .define("EMBODIED_R_HOST", None)
            .opt_level(2)
            .include("cuda")
            // A fortified C library rejects the longjmp between fibers.
            .flag("-U_FORTIFY_SOURCE")
            .flag("-Wno-unknown-pragmas")
            .flag("-xc++")
            .files(super::sources()?)
            .files(["cuda/host.cpp", "cuda/host_faults.cpp", "cuda/host_probes.cpp"])
            .try_compile(super::LIBRARY)
            .map_err(|e| format!("cannot compile the kernels: {e}"))
    }
}

/// Machine code for A100 and H100 (sm_80, sm_90), and PTX for newer GPUs.
mod gpu {
    use std::ffi::OsString;
    use std::path::{Path, PathBuf};
    use std::process::Command;

    const FLAGS: [&str; 8] = [
        "-O3",
        "-std=c++17",
        "--expt-relaxed-constexpr",
        "--threads=2",
        "-gencode=arch=compute_80,code=sm_80",
        "-gencode=arch=compute_90,code=[sm_90,compute_90]",
        "-Xcompiler=-fPIC",
        "-Icuda",
    ];

    pub(super) fn compile() -> Result<(), String> {
        let roots = ["CUDA_HOME", "CUDA_PATH", "CUDA_ROOT", "CUDA_TOOLKIT_ROOT_DIR"];
        roots.iter().for_each(|name| println!("cargo::rerun-if-env-changed={name}"));
        let roots: Vec<PathBuf> = roots
            .iter()
            .filter_map(|name| std::env::var_os(name).map(PathBuf::from))
            .chain([PathBuf::from("/usr/local/cuda")])
            .collect();
        let nvcc = roots
            .iter()
            .map(|root| root.join("bin/nvcc"))
            .find(|nvcc| nvcc.is_file())
            .unwrap_or_else(|| PathBuf::from("nvcc"));
        let runs = Command::new(&nvcc).arg("--version").output();
        if !runs.is_ok_and(|output| output.status.success()) {
            return Err(
                "feature `cuda` needs nvcc of a CUDA toolkit, 12 or 13: set CUDA_HOME to its folder, \
                        or install one with scripts/cuda_toolkit.sh"
                    .into(),
            );
        }
        let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo has not set OUT_DIR")?);
        let objects = objects(&nvcc, &out)?;
        let library = out.join(format!("lib{}.a", super::LIBRARY));
        let mut arguments = vec![OsString::from("--lib"), "-o".into(), library.into()];
        arguments.extend(objects.into_iter().map(OsString::from));
        run(&nvcc, &arguments)?;

        println!("cargo::rustc-link-search=native={}", out.display());
        println!("cargo::rustc-link-lib=static={}", super::LIBRARY);
        for lib in roots.iter().flat_map(|root| [root.join("lib64"), root.join("lib")]) {
            if lib.is_dir() {
                println!("cargo::rustc-link-search=native={}", lib.display());
            }
        }
        println!("cargo::rustc-link-lib=cudart");
        println!("cargo::rustc-link-lib=stdc++");
        Ok(())
    }

    /// Compiles the files in parallel.
    fn objects(nvcc: &Path, out: &Path) -> Result<Vec<PathBuf>, String> {
        let jobs = std::env::var("NUM_JOBS").ok().and_then(|jobs| jobs.parse().ok()).unwrap_or(1);
        let mut objects = Vec::new();
        for files in super::sources()?.chunks(jobs) {
            let compiled: Vec<Result<PathBuf, String>> = std::thread::scope(|scope| {
                let each = |file: &PathBuf| {
                    let object = out.join(file.with_extension("o").file_name().unwrap_or_default());
                    let mut arguments: Vec<OsString> = FLAGS.iter().map(OsString::from).collect();
                    arguments.extend(["-c".into(), file.into(), "-o".into(), (&object).into()]);
                    scope.spawn(move || run(nvcc, &arguments).map(|()| object))
                };
                let threads: Vec<_> = files.iter().map(each).collect();
                let panicked = |_| Err("a build thread panicked".to_owned());
                threads.into_iter().map(|thread| thread.join().unwrap_or_else(panicked)).collect()
            });
            for object in compiled {
                objects.push(object?);
            }
        }
        Ok(objects)
    }

    fn run(nvcc: &Path, arguments: &[OsString]) -> Result<(), String> {
        let done = Command::new(nvcc)
            .args(arguments)
            .output()
            .map_err(|e| format!("cannot run `{}`: {e}", nvcc.display()))?;
        if done.status.success() {
            return Ok(());
        }
        let stderr = String::from_utf8_lossy(&done.stderr).trim().replace('\n', " | ");
        Err(format!("cannot compile the kernels: {stderr}"))
    }
}
