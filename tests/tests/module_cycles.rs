//! Cycles among the files of a crate.
//!
//! A file uses another if its code, without tests, has a path to an item that the other defines. Methods are not seen, nor
//! paths that a macro completes.

mod graph;
mod source;

use std::collections::BTreeMap;
use std::path::Path;

use graph::Graph;

/// The crates' graphs, by name.
fn crates() -> BTreeMap<String, Graph> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates");
    let folders = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let graph = |entry: std::fs::DirEntry| {
        (entry.file_name().into_string().unwrap(), Graph::of_crate(&entry.path()))
    };
    folders.map(graph).collect()
}

#[test]
fn the_files_of_a_crate_form_no_cycles() {
    let mut found = String::new();
    for (crate_name, graph) in crates() {
        for cycle in graph.cycles() {
            found += &format!("\n`{crate_name}`:\n{}", graph.describe(&cycle));
        }
    }
    assert!(found.is_empty(), "files use each other in a cycle:\n{found}");
}

#[test]
fn an_error_imports_no_module_that_imports_it() {
    let of_crate = |(crate_name, graph): (String, Graph)| {
        let cycles = graph.error_cycles().into_iter();
        cycles.map(move |cycle| format!("`{crate_name}`: {cycle}"))
    };
    assert_eq!(crates().into_iter().flat_map(of_crate).collect::<Vec<_>>(), [""; 0]);
}
