//! The dependencies between crates, their names, and where `unsafe` is allowed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use cargo_metadata::{Metadata, MetadataCommand, Package};

const PREFIX: &str = "embodied-r-";

/// The page whose table of crates says which crates each crate may use.
const PAGE: &str = include_str!("../../docs/architecture.md");

/// Which of our crates each crate may use, read from the page; `None` for a crate that may use all.
fn may_use() -> BTreeMap<&'static str, Option<BTreeSet<&'static str>>> {
    let rows = PAGE.lines().skip_while(|line| !line.starts_with("| crate | holds | may use |"));
    let rows = rows.skip(2).take_while(|line| line.starts_with('|'));
    let row = |line: &'static str| {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [name, _, uses] = cells[..] else { panic!("a row without three cells: {line}") };
        let quoted = |text: &'static str| text.split('`').skip(1).step_by(2);
        let uses = (uses != "all").then(|| quoted(uses).collect());
        (quoted(name).next().unwrap(), uses)
    };
    rows.map(row).collect()
}

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

/// Names of our crates that `package` depends on, in tests and build scripts too.
fn ours(package: &Package) -> BTreeSet<&str> {
    package.dependencies.iter().filter_map(|used| used.name.strip_prefix(PREFIX)).collect()
}

#[test]
fn a_crate_uses_the_crates_that_the_page_names_and_no_others() {
    let table = may_use();
    let workspace = workspace();
    let mut faults = Vec::new();
    // The black-box tests are no part of the program.
    for package in workspace.workspace_packages() {
        let name = short_name(package);
        match table.get(name) {
            _ if name == "tests" => {}
            Some(None) => {}
            Some(Some(allowed)) => {
                let used = ours(package);
                faults.extend(used.difference(allowed).map(|it| format!("`{name}` uses `{it}`")));
                let unused = allowed.difference(&used);
                faults.extend(unused.map(|it| format!("`{name}` does not use `{it}`")));
            }
            None => faults.push(format!("`{name}` is not in the table")),
        }
    }
    assert_eq!(faults, Vec::<String>::new());
}

#[test]
fn the_table_has_no_cycles() {
    let mut table = may_use();
    let mut placed = BTreeSet::new();
    while !table.is_empty() {
        let leaf =
            |uses: &Option<BTreeSet<_>>| uses.as_ref().is_none_or(|it| it.is_subset(&placed));
        let next = table.iter().find(|(_, uses)| leaf(uses)).map(|(name, _)| *name);
        let name = next.unwrap_or_else(|| panic!("a cycle among {:?}", table.keys()));
        placed.insert(name);
        table.remove(name);
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
fn the_binaries_are_the_program_and_the_pretraining_laboratory() {
    let workspace = workspace();
    let binaries: BTreeSet<_> = workspace
        .workspace_packages()
        .iter()
        .flat_map(|package| package.targets.iter().filter(|target| target.is_bin()))
        .map(|target| target.name.clone())
        .collect();
    assert!(binaries.iter().eq(["embodied-r", "embodied-r-pretrain"]), "{binaries:?}");
}

#[test]
fn only_the_binaries_use_anyhow() {
    let workspace = workspace();
    let users: BTreeSet<_> = workspace
        .workspace_packages()
        .iter()
        .filter(|package| package.dependencies.iter().any(|used| used.name == "anyhow"))
        .map(|package| short_name(package).to_owned())
        .collect();
    assert!(users.iter().eq(["cli", "pretraining"]), "{users:?}");
}

#[test]
fn no_crate_uses_the_pretraining_laboratory() {
    let workspace = workspace();
    let packages = workspace.workspace_packages();
    let users: Vec<_> = packages.iter().filter(|it| ours(it).contains("pretraining")).collect();
    assert!(users.is_empty(), "{users:?}");
}

/// Places under `crates/` that may hold `unsafe`: tensor operations, mapped weight files, and an option of the
/// allocator.
const MAY_BE_UNSAFE: &[&str] = &[
    "kernels",
    "dist",
    "policy/src/weights/map.rs",
    "cli/src/allocator.rs",
    "pretraining/src/allocator.rs",
];

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

/// Places under `crates/cli/src` that may write to standard output or error: those that escape control characters, and
/// those whose text is the program's own.
const MAY_PRINT: &[&str] = &[
    "output.rs",
    "pager.rs",
    "chat_session.rs",
    "ranks/lines.rs",
    "commands/completions.rs",
    "commands/quickstart/steps.rs",
];

#[test]
fn text_reaches_the_terminal_through_the_module_that_escapes_control_characters() {
    let source = workspace().workspace_root.join("crates/cli/src").into_std_path_buf();
    let asks_only = |line: &str| {
        [
            "use_stderr",
            "is_terminal",
            "has_colors",
            "PrefixStyle::of",
            "with_writer",
            "let stdout = ",
        ]
        .iter()
        .any(|question| line.contains(question))
    };
    let prints = |line: &str| {
        ["stdout()", "stderr()", " println!", " print!", " eprint!"]
            .iter()
            .any(|it| line.contains(it))
            && !asks_only(line)
    };
    let printing: Vec<_> = rust_files(&source)
        .into_iter()
        .filter(|path| std::fs::read_to_string(path).unwrap().lines().any(prints))
        .map(|path| path.strip_prefix(&source).unwrap().to_path_buf())
        .filter(|path| !MAY_PRINT.iter().any(|place| path == Path::new(place)))
        .collect();
    assert_eq!(printing, Vec::<PathBuf>::new());
}

#[test]
fn paths_in_the_page_exist() {
    let root = workspace().workspace_root;
    let quoted = PAGE.split('`').skip(1).step_by(2);
    let paths: Vec<&str> = quoted.filter(|text| text.starts_with("crates/")).collect();
    assert!(paths.len() >= 10, "{paths:?}");
    let missing: Vec<&&str> = paths.iter().filter(|path| !root.join(path).exists()).collect();
    assert_eq!(missing, [&""; 0]);
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
