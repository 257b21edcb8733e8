//! What the black-box tests share: the binary and small inputs.

#![allow(clippy::expect_used)]

mod api;
mod questions;
mod vision_model;

pub use api::ChatApi;
pub use questions::{write_lamp_questions, write_questions};
pub use vision_model::VisionModel;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The binary `embodied-r` of this checkout, built on first use: cargo builds a binary for the
/// tests of its own package only.
///
/// # Panics
/// The binary cannot be built.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        // The test itself is `<target>/<profile folder>/deps/<name>`.
        let test = std::env::current_exe().expect("a test knows its own path");
        let folder = test.parent().and_then(Path::parent).expect("a test lies in `deps`");
        let profile = match folder.file_name().and_then(|name| name.to_str()) {
            Some("debug") | None => "dev",
            Some(name) => name,
        };
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        // What cargo tells a test about its package would make build scripts run again.
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
                build.env_remove(&*name);
            }
        }
        let features: &[&str] = match () {
            () if cfg!(feature = "mpi") => &["--features", "embodied-r-cli/mpi"],
            () if cfg!(feature = "cuda") => &["--features", "embodied-r-cli/cuda"],
            () => &[],
        };
        let status = build
            // Of the whole workspace: alone, the package would have other features, and all that it
            // uses would be built a second time.
            .args(["build", "--quiet", "--workspace", "--bin", "embodied-r", "--profile", profile])
            .args(features)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status()
            .expect("cargo can be run");
        assert!(status.success(), "the binary cannot be built");
        // Cargo may build in one folder and put what it has built into another.
        let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
        let target = target.filter(|target| target.is_absolute());
        let target = target.zip(folder.file_name()).map(|(target, profile)| target.join(profile));
        target.as_deref().unwrap_or(folder).join("embodied-r")
    })
}
