//! Compiles the device's kernels: with feature `cuda` by nvcc for GPUs, with `cuda-host` by the host's compiler.

fn main() {
    println!("cargo::rustc-check-cfg=cfg(device)");
    println!("cargo::rerun-if-changed=cuda");
    let on = |feature: &str| std::env::var_os(feature).is_some();
    let result = match (on("CARGO_FEATURE_CUDA"), on("CARGO_FEATURE_CUDA_HOST")) {
        (false, false) => return,
        (true, true) => Err("features `cuda` and `cuda-host` exclude each other".into()),
        (true, false) => gpu::compile(),
        (false, true) => host::compile(),
    };
    println!("cargo::rustc-cfg=device");
    if let Err(fault) = result {
        println!("cargo::error={fault}");
    }
}

/// Name of the library of all kernels.
const LIBRARY: &str = "embodied_r_kernels";

/// The kernels' files.
fn sources() -> Result<Vec<std::path::PathBuf>, String> {
    let entries = std::fs::read_dir("cuda").map_err(|e| format!("cannot read `cuda`: {e}"))?;
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let mut sources: Vec<_> =
        paths.filter(|path| path.extension().is_some_and(|extension| extension == "cu")).collect();
    sources.sort();
    Ok(sources)
}

/// C++ with a stand-in for CUDA's language.
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
            // Fibers leave and enter by longjmp, which a fortified C library takes for a fault.
            .flag("-U_FORTIFY_SOURCE")
            .flag("-Wno-unknown-pragmas")
            .flag("-xc++")
            .files(super::sources()?)
            .files(["cuda/host.cpp", "cuda/host_faults.cpp"])
            .try_compile(super::LIBRARY)
            .map_err(|e| format!("cannot compile the kernels: {e}"))
    }
}

/// Machine code for A100 and H100 with their kin, and PTX for what comes later.
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
                "feature `cuda` needs nvcc of a CUDA 13 toolkit: set CUDA_HOME to its folder, \
                        or make one by scripts/cuda_toolkit.sh"
                    .into(),
            );
        }
        let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo tells no OUT_DIR")?);
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

    /// Compiles the files, several at once.
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
                let ended = |_| Err("a thread of the build script ended".to_owned());
                threads.into_iter().map(|thread| thread.join().unwrap_or_else(ended)).collect()
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
        let told = String::from_utf8_lossy(&done.stderr).trim().replace('\n', " | ");
        Err(format!("cannot compile the kernels: {told}"))
    }
}
