//! The crates' places in the workspace: who may use whom, and what each is called.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use cargo_metadata::{Metadata, MetadataCommand, Package};

const PREFIX: &str = "embodied-r-";

/// Which crates of ours each crate may use.
const MAY_USE: &[(&str, &[&str])] = &[
    ("data", &[]),
    ("openai", &[]),
    ("kernels", &[]),
    ("dist", &["kernels"]),
    ("sim", &["data"]),
    ("rewards", &["data", "openai"]),
    ("eval", &["data", "rewards"]),
    ("policy", &["kernels", "dist"]),
    ("vision", &["kernels", "policy", "dist"]),
    ("perception", &["data", "policy", "vision", "dist", "openai"]),
    ("grpo", &["data", "rewards", "eval", "kernels", "policy", "dist", "perception"]),
    ("serve", &["policy", "vision"]),
];

/// Crates that may use every other one.
const MAY_USE_ALL: &[&str] = &["cli", "tests"];

fn workspace() -> Metadata {
    MetadataCommand::new()
        .manifest_path(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .no_deps()
        .exec()
        .unwrap()
}

fn short_name(package: &Package) -> &str {
    package.name.strip_prefix(PREFIX).unwrap_or(&package.name)
}

/// Names of the crates of ours that `package` depends on, for its tests and build too.
fn ours(package: &Package) -> BTreeSet<&str> {
    package.dependencies.iter().filter_map(|used| used.name.strip_prefix(PREFIX)).collect()
}

#[test]
fn a_crate_uses_only_the_crates_that_it_may() {
    let table: BTreeMap<_, _> = MAY_USE.iter().copied().collect();
    let workspace = workspace();
    let mut faults = Vec::new();
    for package in workspace.workspace_packages() {
        let name = short_name(package);
        if MAY_USE_ALL.contains(&name) {
            continue;
        }
        let Some(allowed) = table.get(name) else {
            faults.push(format!("`{name}` is not in the table"));
            continue;
        };
        for used in ours(package).iter().filter(|used| !allowed.contains(used)) {
            faults.push(format!("`{name}` may not use `{used}`"));
        }
    }
    assert_eq!(faults, Vec::<String>::new());
}

#[test]
fn the_table_itself_never_goes_round() {
    let mut placed = BTreeSet::new();
    while placed.len() < MAY_USE.len() {
        let next = MAY_USE.iter().find(|(name, uses)| {
            !placed.contains(name) && uses.iter().all(|used| placed.contains(used))
        });
        let (name, _) = next.unwrap_or_else(|| panic!("a circle outside of {placed:?}"));
        placed.insert(name);
    }
}

#[test]
fn a_folder_under_crates_bears_the_name_of_its_crate() {
    let workspace = workspace();
    for package in workspace.workspace_packages() {
        let folder = package.manifest_path.parent().unwrap().file_name().unwrap();
        assert_eq!(package.name.as_str(), format!("{PREFIX}{folder}"));
    }
}

#[test]
fn the_one_binary_is_called_embodied_r() {
    let workspace = workspace();
    let binaries: Vec<_> = workspace
        .workspace_packages()
        .iter()
        .flat_map(|package| package.targets.iter().filter(|target| target.is_bin()))
        .map(|target| target.name.clone())
        .collect();
    assert_eq!(binaries, ["embodied-r"]);
}

#[test]
fn only_the_binary_uses_anyhow() {
    let workspace = workspace();
    let users: Vec<_> = workspace
        .workspace_packages()
        .iter()
        .filter(|package| package.dependencies.iter().any(|used| used.name == "anyhow"))
        .map(|package| short_name(package).to_owned())
        .collect();
    assert_eq!(users, ["cli"]);
}

/// Places under `crates/` that may hold `unsafe`: tensor operations, mapped weight files, and an option of the
/// allocator.
const MAY_BE_UNSAFE: &[&str] =
    &["kernels", "dist", "policy/src/weights/map.rs", "cli/src/allocator.rs"];

#[test]
fn unsafe_code_is_allowed_only_where_the_table_says() {
    let crates = workspace().workspace_root.join("crates").into_std_path_buf();
    let allowing: Vec<_> = rust_files(&crates)
        .into_iter()
        .filter(|path| std::fs::read_to_string(path).unwrap().contains("allow(unsafe_code)"))
        .map(|path| path.strip_prefix(&crates).unwrap().to_path_buf())
        .filter(|path| !MAY_BE_UNSAFE.iter().any(|place| path.starts_with(place)))
        .collect();
    assert_eq!(allowing, Vec::<PathBuf>::new());
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files = entries.flat_map(|path| match path.extension() {
        _ if path.is_dir() => rust_files(&path),
        Some(ending) if ending == "rs" => vec![path],
        _ => Vec::new(),
    });
    files.collect()
}

#[test]
fn no_crate_is_published_by_accident() {
    let workspace = workspace();
    for package in workspace.workspace_packages() {
        assert_eq!(package.publish.as_deref(), Some([].as_slice()), "{}", package.name);
    }
}
