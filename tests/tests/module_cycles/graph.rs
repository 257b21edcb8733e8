//! Which files of a crate use which others, and the cycles among them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::source::{Import, Scope, scopes};

/// A module: the names from the crate's root to it.
type Module = Vec<String>;

/// The files of a crate, each named as its module, and what they use of each other.
#[derive(Debug, Default)]
pub struct Graph {
    /// For each file the files that define what it names, with one such path.
    pub uses: BTreeMap<Module, BTreeMap<Module, String>>,
}

/// Modules by name, with the file that each is in.
#[derive(Default)]
struct Modules {
    scopes: BTreeMap<Module, (Module, Scope)>,
}

impl Graph {
    /// That of the crate in `folder`.
    pub fn of_crate(folder: &Path) -> Self {
        let source = folder.join("src");
        let root = ["lib.rs", "main.rs"].into_iter().find(|name| source.join(name).exists());
        let root = root.unwrap_or_else(|| panic!("no crate in `{}`", folder.display()));
        Self::new(|module| {
            let path = match module {
                [] => source.join(root),
                names => source.join(names.join("/")).with_extension("rs"),
            };
            std::fs::read_to_string(&path)
                .unwrap_or_else(|error| panic!("cannot read `{}`: {error}", path.display()))
        })
    }

    /// That of the files that `read` gives by module, from the root.
    pub fn new(read: impl Fn(&[String]) -> String) -> Self {
        let mut modules = Modules::default();
        let mut open = vec![Module::new()];
        while let Some(file) = open.pop() {
            for scope in scopes(&read(&file)) {
                let name = [file.as_slice(), &scope.within].concat();
                open.extend(scope.files.iter().map(|child| joined(&name, child)));
                modules.scopes.insert(name, (file.clone(), scope));
            }
        }
        let mut uses: BTreeMap<Module, BTreeMap<Module, String>> = BTreeMap::new();
        for (module, (file, scope)) in &modules.scopes {
            let used = uses.entry(file.clone()).or_default();
            // A re-export alone uses nothing.
            let is_used =
                |import: &&Import| !import.is_public || scope.words.contains(&import.name);
            let imported = scope.imports.iter().filter(is_used).map(|import| &import.path);
            for path in imported.chain(&scope.paths) {
                let found = modules.definition(module, path, 0);
                if let Some(other) = found.filter(|other| other != file) {
                    used.entry(other).or_insert_with(|| path.join("::"));
                }
            }
        }
        Self { uses }
    }

    /// Sets of files that use each other, directly or through others of the set. What a file uses of one that holds it as
    /// a submodule does not count, since it is a part of that one.
    pub fn cycles(&self) -> Vec<BTreeSet<Module>> {
        let reached: BTreeMap<&Module, BTreeSet<&Module>> =
            self.uses.keys().map(|file| (file, self.reached(file))).collect();
        let together = |file| {
            let others = reached[file].iter().filter(|other| reached[*other].contains(file));
            others.map(|other| (*other).clone()).collect::<BTreeSet<_>>()
        };
        let found: BTreeSet<BTreeSet<Module>> = self.uses.keys().map(together).collect();
        found.into_iter().filter(|cycle| !cycle.is_empty()).collect()
    }

    /// Files of the name `error`, and those that each uses and is used by, with both paths.
    pub fn error_cycles(&self) -> Vec<String> {
        let errors = self.uses.iter().filter(|(file, _)| file.ends_with(&["error".to_owned()]));
        let cycles = errors.flat_map(|(error, used)| {
            used.iter().filter_map(move |(other, path)| {
                let back = self.uses[other].get(error)?;
                let (error, other) = (name(error), name(other));
                Some(format!("{error} -> {other}: `{path}`, {other} -> {error}: `{back}`"))
            })
        });
        cycles.collect()
    }

    /// What the files of a cycle use of each other, one a line.
    pub fn describe(&self, cycle: &BTreeSet<Module>) -> String {
        let edges = cycle.iter().flat_map(|file| {
            let used = self.used(file).filter(|(other, _)| cycle.contains(*other));
            used.map(|(other, path)| format!("  {} -> {}: `{path}`\n", name(file), name(other)))
        });
        edges.collect()
    }

    /// The files that a file uses, but for those that hold it.
    fn used<'a>(&'a self, file: &'a Module) -> impl Iterator<Item = (&'a Module, &'a String)> {
        self.uses[file].iter().filter(|(other, _)| !file.starts_with(other))
    }

    /// The files that a file uses directly or through others.
    fn reached<'a>(&'a self, file: &'a Module) -> BTreeSet<&'a Module> {
        let mut reached = BTreeSet::new();
        let mut open = vec![file];
        while let Some(from) = open.pop() {
            open.extend(self.used(from).map(|(to, _)| to).filter(|to| reached.insert(*to)));
        }
        reached
    }
}

impl Modules {
    /// The file with the item that `path` names in `module`; `None` if it is of another crate or a module, whose items
    /// have paths of their own.
    fn definition(&self, module: &[String], path: &[String], depth: usize) -> Option<Module> {
        // An import that leads to itself.
        if depth > 16 {
            return None;
        }
        let [head, rest @ ..] = path else { return None };
        match head.as_str() {
            "crate" => self.item(&[], rest, depth),
            "self" => self.item(module, rest, depth),
            "super" => {
                let [above @ .., _] = module else { return None };
                match rest.first().is_some_and(|next| next == "super") {
                    true => self.definition(above, rest, depth),
                    false => self.item(above, rest, depth),
                }
            }
            // A path begins with what the module has or imports.
            name => {
                let is_known = self.scopes.contains_key(&joined(module, name))
                    || self.import(module, name).is_some();
                is_known.then(|| self.item(module, path, depth)).flatten()
            }
        }
    }

    /// The file with the item that `path` names below `module`.
    fn item(&self, module: &[String], path: &[String], depth: usize) -> Option<Module> {
        let [name, rest @ ..] = path else { return None };
        let below = joined(module, name);
        let is_module = self.scopes.contains_key(&below);
        if is_module && !rest.is_empty() {
            return self.item(&below, rest, depth);
        }
        if let Some(import) = self.import(module, name) {
            let whole = [import.path.as_slice(), rest].concat();
            return self.definition(module, &whole, depth + 1);
        }
        (!is_module).then(|| self.scopes[module].0.clone())
    }

    /// What `module` imports under `name`.
    fn import(&self, module: &[String], name: &str) -> Option<&Import> {
        let mut imports = self.scopes[module].1.imports.iter();
        // `use {name}` makes a macro of the module a name of it.
        imports.find(|import| import.name == name && import.path != [name])
    }
}

fn joined(module: &[String], name: &str) -> Module {
    [module, &[name.to_owned()]].concat()
}

/// The file of a module in messages.
fn name(file: &[String]) -> String {
    match file {
        [] => "(root)".to_owned(),
        names => format!("{}.rs", names.join("/")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The graph of a crate with these files, by module; the root has the others' `mod` items besides its own text.
    fn graph(files: &[(&str, &str)]) -> Graph {
        let of = |module: &[String]| module.join("::");
        Graph::new(|module| {
            let children = files.iter().filter(|(name, _)| {
                name.rsplit_once("::").map_or("", |(above, _)| above) == of(module)
                    && !name.is_empty()
            });
            let children = children.map(|(name, _)| name.rsplit("::").next().unwrap_or(name));
            let items: String = children.map(|name| format!("mod {name};")).collect();
            let own = files.iter().find(|(name, _)| *name == of(module));
            format!("{items}{}", own.map_or("", |(_, text)| text))
        })
    }

    /// What a file uses, by name.
    fn used(graph: &Graph, file: &str) -> Vec<String> {
        let module: Module =
            file.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect();
        graph.uses[&module].keys().map(|other| other.join("::")).collect()
    }

    fn cycles(files: &[(&str, &str)]) -> Vec<Vec<String>> {
        let graph = graph(files);
        let names = |cycle: BTreeSet<Module>| cycle.iter().map(|file| file.join("::")).collect();
        graph.cycles().into_iter().map(names).collect()
    }

    #[test]
    fn a_path_leads_to_the_file_that_defines_its_item() {
        let graph = graph(&[
            (
                "a",
                "use crate::b::{self, B}; fn f() { b::c::g(); crate::h::H::new(); std::mem::take(); }",
            ),
            ("b", "pub struct B; pub enum E { V }"),
            ("b::c", "use super::E; fn g() { self::d::i(); E::V; }"),
            ("b::c::d", "fn i() { super::super::super::a::f() }"),
            ("h", ""),
        ]);
        assert_eq!(used(&graph, "a"), ["b", "b::c", "h"]);
        assert_eq!(used(&graph, "b::c"), ["b", "b::c::d"]);
        assert_eq!(used(&graph, "b::c::d"), ["a"]);
    }

    #[test]
    fn a_re_export_leads_to_its_item_and_is_no_use_itself() {
        let graph = graph(&[
            ("", "pub use a::A; pub use b::two as three;"),
            ("a", "pub use self::c::C as A;"),
            ("a::c", "pub struct C;"),
            ("b", "pub fn two() {}"),
            ("d", "use crate::{A, three};"),
            ("e", "pub use crate::b::two; fn f() { two() }"),
        ]);
        assert_eq!(used(&graph, "d"), ["a::c", "b"]);
        assert_eq!((used(&graph, ""), used(&graph, "a")), (vec![], vec![]));
        assert_eq!(used(&graph, "e"), ["b"]);
    }

    #[test]
    fn a_private_import_leads_on_from_the_modules_below() {
        let graph = graph(&[
            ("a", "use crate::b::B;"),
            ("a::c", "use super::B;"),
            ("a::d", "mod inner { use super::super::B; }"),
            ("b", "pub struct B;"),
        ]);
        assert_eq!(
            (used(&graph, "a::c"), used(&graph, "a::d")),
            (vec!["b".to_owned()], vec!["b".to_owned()])
        );
    }

    #[test]
    fn an_imported_module_is_used_by_its_items_alone() {
        let graph = graph(&[
            ("a", "use crate::b; use crate::c as other; fn f() { other::g() }"),
            ("b", "pub fn b() {}"),
            ("c", "pub fn g() {}"),
            ("d", "use crate::b::b; use crate::e::*;"),
            ("e", ""),
        ]);
        assert_eq!(used(&graph, "a"), ["c"]);
        assert_eq!(used(&graph, "d"), ["b", "e"]);
    }

    #[test]
    fn files_that_use_each_other_are_a_cycle_with_all_between() {
        let files = [
            ("a", "use crate::b::f;"),
            ("b", "fn f() { crate::c::g() }"),
            ("c", "use super::a;  fn g() { a::h() }"),
            ("d", "use crate::a::h;"),
            ("e", "use crate::f::F;"),
            ("f", "use crate::e::E;"),
        ];
        assert_eq!(cycles(&files), [vec!["a", "b", "c"], vec!["e", "f"]]);
        let graph = graph(&files);
        let described = graph.describe(&graph.cycles()[0]);
        assert_eq!(
            described,
            "  a.rs -> b.rs: `crate::b::f`\n  b.rs -> c.rs: `crate::c::g`\n  c.rs -> a.rs: `a::h`\n"
        );
    }

    #[test]
    fn a_file_may_use_those_that_hold_it() {
        let files = [("", "a::b::f();"), ("a", "b::f();"), ("a::b", "crate::g(); super::h();")];
        assert_eq!(cycles(&files), [[""; 0]; 0]);
        // Its parent's sibling does not hold it.
        let files = [("a", "b::f();"), ("a::b", "crate::c::g();"), ("c", "crate::a::h();")];
        assert_eq!(cycles(&files), [["a", "a::b", "c"]]);
    }

    #[test]
    fn tests_are_no_part_of_a_cycle() {
        let files = [
            ("a", "use crate::b::f; #[cfg(test)] mod tests { use super::*; }"),
            ("b", "#[cfg(test)] mod tests { use crate::a::g; }"),
        ];
        assert_eq!(cycles(&files), [[""; 0]; 0]);
    }

    #[test]
    fn an_error_must_not_use_what_uses_it() {
        let of = |error| graph(&[("error", error), ("a", "use crate::error::Error;"), ("b", "")]);
        assert_eq!(of("use crate::b::B;").error_cycles(), [""; 0]);
        assert_eq!(
            of("crate::a::f();").error_cycles(),
            ["error.rs -> a.rs: `crate::a::f`, a.rs -> error.rs: `crate::error::Error`"]
        );
        let root = graph(&[("", "pub struct A; use error::Error;"), ("error", "use crate::A;")]);
        assert_eq!(root.error_cycles().len(), 1, "a file that holds the error");
    }
}
