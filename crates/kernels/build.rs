//! Compiles the device's kernels: with feature `cuda` by nvcc for GPUs, with `cuda-host` by the host's compiler.

fn main() {
    println!("cargo::rustc-check-cfg=cfg(device)");
    println!("cargo::rerun-if-changed=cuda");
    let on = |feature: &str| std::env::var_os(feature).is_some();
    if on("CARGO_FEATURE_CUDA") || on("CARGO_FEATURE_CUDA_HOST") {
        println!("cargo::rustc-cfg=device");
    }
    #[cfg(any(feature = "cuda", feature = "cuda-host"))]
    if let Err(fault) = kernels::compile() {
        println!("cargo::error={fault}");
    }
}

#[cfg(any(feature = "cuda", feature = "cuda-host"))]
mod kernels {
    use std::path::PathBuf;

    /// The library of all kernels.
    const LIBRARY: &str = "embodied_r_kernels";

    /// Compiles every kernel file of the folder `cuda` into one static library.
    pub(super) fn compile() -> Result<(), String> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir("cuda").map_err(|e| format!("cannot read `cuda`: {e}"))? {
            let path = entry.map_err(|e| format!("cannot read `cuda`: {e}"))?.path();
            if path.extension().is_some_and(|extension| extension == "cu") {
                files.push(path);
            }
        }
        files.sort();
        let mut build = cc::Build::new();
        build.std("c++17").include("cuda").files(&files).cargo_warnings(true);
        prepare(&mut build)?;
        build.try_compile(LIBRARY).map_err(|e| format!("cannot compile the kernels: {e}"))
    }

    #[cfg(all(feature = "cuda", feature = "cuda-host"))]
    fn prepare(_: &mut cc::Build) -> Result<(), String> {
        Err("features `cuda` and `cuda-host` exclude each other: choose one".into())
    }

    /// For the host: C++ with the stand-in for CUDA's language.
    #[cfg(all(feature = "cuda-host", not(feature = "cuda")))]
    fn prepare(build: &mut cc::Build) -> Result<(), String> {
        build
            .cpp(true)
            .define("EMBODIED_R_HOST", None)
            .file(PathBuf::from("cuda/host.cpp"))
            .opt_level(2)
            // Fibers leave and enter by longjmp, which a fortified C library takes for a fault.
            .flag("-U_FORTIFY_SOURCE")
            .flag("-xc++")
            .flag("-Wno-unknown-pragmas");
        Ok(())
    }

    /// For GPUs: machine code for A100 and H100 with their kin, and PTX for what comes later.
    #[cfg(all(feature = "cuda", not(feature = "cuda-host")))]
    fn prepare(build: &mut cc::Build) -> Result<(), String> {
        let roots = ["CUDA_HOME", "CUDA_PATH", "CUDA_ROOT", "CUDA_TOOLKIT_ROOT_DIR"];
        let roots: Vec<PathBuf> = roots
            .iter()
            .inspect(|name| println!("cargo::rerun-if-env-changed={name}"))
            .filter_map(|name| std::env::var_os(name).map(PathBuf::from))
            .chain([PathBuf::from("/usr/local/cuda")])
            .collect();
        let nvcc = roots
            .iter()
            .map(|root| root.join("bin/nvcc"))
            .find(|nvcc| nvcc.is_file())
            .unwrap_or_else(|| PathBuf::from("nvcc"));
        let runs = std::process::Command::new(&nvcc).arg("--version").output();
        if !runs.is_ok_and(|output| output.status.success()) {
            return Err(
                "feature `cuda` needs nvcc of a CUDA 13 toolkit: set CUDA_HOME to its folder, \
                        or make one by scripts/cuda_toolkit.sh"
                    .into(),
            );
        }
        for lib in roots.iter().flat_map(|root| [root.join("lib64"), root.join("lib")]) {
            if lib.is_dir() {
                println!("cargo::rustc-link-search=native={}", lib.display());
            }
        }
        build
            .cuda(true)
            .cudart("shared")
            .compiler(nvcc)
            .opt_level(3)
            .flag("-gencode=arch=compute_80,code=sm_80")
            .flag("-gencode=arch=compute_90,code=[sm_90,compute_90]")
            .flag("--expt-relaxed-constexpr")
            .warnings(false);
        Ok(())
    }
}
