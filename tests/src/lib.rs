//! Shared parts of the black-box tests: the binary, its output and small inputs.

#![allow(clippy::expect_used)]

mod clip;
mod events;
mod id_lists;
mod output;
mod questions;
pub mod small_run;
pub mod tiny_model;
pub mod tiny_run;
mod vision_model;

pub use clip::write_clip;
pub use events::events;
pub use id_lists::id_lists;
pub use output::{stderr, stderr_of, stdout, stdout_of};
pub use questions::{write_lamp_questions, write_questions};
pub use vision_model::VisionModel;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// How many times a test kills the program at random moments: `EMBODIED_R_KILLS`, by default 10.
///
/// # Panics
/// The variable is not a number.
pub fn kills() -> usize {
    let number = |text: String| text.parse().expect("`EMBODIED_R_KILLS` is a number");
    std::env::var("EMBODIED_R_KILLS").map_or(10, number)
}

/// The binary `embodied-r` of this checkout, built on first use, because cargo builds a binary only
/// for the tests of its own package.
///
/// # Panics
/// The binary cannot be built.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        // The test itself is `<target>/<profile folder>/deps/<name>`.
        let test = std::env::current_exe().expect("a test knows its own path");
        let folder = test.parent().and_then(Path::parent).expect("a test is in `deps`");
        let profile = match folder.file_name().and_then(|name| name.to_str()) {
            Some("debug") | None => "dev",
            Some(name) => name,
        };
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        // Cargo's variables about the test's package would make build scripts run again.
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
                build.env_remove(&*name);
            }
        }
        // The features of the tests' own build, so that nothing is built twice.
        let features = [
            ("embodied-r-cli/mpi", cfg!(feature = "mpi")),
            ("embodied-r-cli/cuda", cfg!(feature = "cuda")),
            ("embodied-r-cli/cuda-host", cfg!(feature = "cuda-host")),
            ("embodied-r-grpo/cuda-host", cfg!(feature = "cuda-host")),
            ("embodied-r-vision/cuda-host", cfg!(feature = "cuda-host")),
        ];
        let features = features.into_iter().filter(|(_, is_on)| *is_on);
        let features: Vec<&str> = features.flat_map(|(name, _)| ["--features", name]).collect();
        let status = build
            // For the whole workspace: alone, the package would have other features, and all its
            // dependencies would be built a second time.
            .args(["build", "--quiet", "--workspace", "--bin", "embodied-r", "--profile", profile])
            .args(features)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status()
            .expect("cargo can be run");
        assert!(status.success(), "the binary cannot be built");
        // Cargo may use a build folder other than the target folder.
        let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
        let target = target.filter(|target| target.is_absolute());
        let target = target.zip(folder.file_name()).map(|(target, profile)| target.join(profile));
        target.as_deref().unwrap_or(folder).join("embodied-r")
    })
}

/// Reports on standard error that this test is skipped, and why. Writes directly, since the test runner captures the
/// output of `eprintln!` in passing tests.
pub fn skipped(why: &str) {
    use std::io::Write as _;
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let _ = writeln!(std::io::stderr(), "skipped: {test}: {why}");
}
