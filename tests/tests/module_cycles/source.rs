//! What a file of Rust says of other files: its modules, its imports and its paths, without tests, comments and strings.

use std::collections::BTreeSet;

/// A module in a file: the file's own, or one between braces in it.
#[derive(Debug, Default, PartialEq)]
pub struct Scope {
    /// The modules between braces around it, within the file.
    pub within: Vec<String>,
    /// The names of its submodules that are files of their own.
    pub files: Vec<String>,
    /// What its `use` declarations import, at the top and in functions.
    pub imports: Vec<Import>,
    /// Its other paths of two segments or more.
    pub paths: Vec<Vec<String>>,
    /// The words that are no part of these.
    pub words: BTreeSet<String>,
}

/// One leaf of a `use` declaration.
#[derive(Debug, PartialEq)]
pub struct Import {
    pub path: Vec<String>,
    /// What the path is called in the scope.
    pub name: String,
    /// Whether others can import it from here.
    pub is_public: bool,
}

/// The scopes of a file, its own first.
pub fn scopes(text: &str) -> Vec<Scope> {
    let mut reader = Reader { tokens: tokens(text), at: 0, scopes: Vec::new() };
    reader.scope(Vec::new());
    reader.scopes
}

struct Reader {
    tokens: Vec<String>,
    at: usize,
    scopes: Vec<Scope>,
}

impl Reader {
    fn peek(&self, ahead: usize) -> &str {
        self.tokens.get(self.at + ahead).map_or("", String::as_str)
    }

    fn next(&mut self) -> String {
        self.at += 1;
        self.tokens.get(self.at - 1).cloned().unwrap_or_default()
    }

    /// Reads a scope up to its closing brace, or to the end of the file.
    fn scope(&mut self, within: Vec<String>) {
        let index = self.scopes.len();
        self.scopes.push(Scope { within: within.clone(), ..Scope::default() });
        let mut depth = 0_usize;
        while self.at < self.tokens.len() {
            match (self.peek(0), self.peek(1), self.peek(2)) {
                ("}", ..) if depth == 0 => break,
                ("#", "[", _) if self.is_of_tests() => {
                    self.at += 1;
                    self.skip_group();
                    self.skip_item();
                }
                ("mod", name, ";") if is_word(name) => {
                    let file = name.to_owned();
                    self.scopes[index].files.push(file);
                    self.at += 3;
                }
                ("mod", name, "{") if is_word(name) => {
                    let inner = [within.as_slice(), &[name.to_owned()]].concat();
                    self.at += 3;
                    self.scope(inner);
                    self.at += 1;
                }
                ("use", next, _) if next != "<" => {
                    // `pub use`, `pub(crate) use`
                    let is_public =
                        self.at > 0 && matches!(self.tokens[self.at - 1].as_str(), "pub" | ")");
                    self.at += 1;
                    let imports = self.use_tree(&[], is_public);
                    self.scopes[index].imports.extend(imports);
                }
                (word, "::", _) if is_word(word) => {
                    let path = self.path();
                    let scope = &mut self.scopes[index];
                    match path.len() {
                        1 => scope.words.extend(path),
                        _ => scope.paths.push(path),
                    }
                }
                // A name of another crate, or an associated item: `::std::mem`, `<T>::new`.
                ("::", ..) => {
                    self.at += 1;
                    self.path();
                }
                (token, ..) => {
                    match token {
                        "{" => depth += 1,
                        "}" => depth -= 1,
                        word if is_word(word) => {
                            let word = word.to_owned();
                            self.scopes[index].words.insert(word);
                        }
                        _ => {}
                    }
                    self.at += 1;
                }
            }
        }
    }

    /// The segments of a path, up to one that is no name.
    fn path(&mut self) -> Vec<String> {
        let mut path = Vec::new();
        while is_word(self.peek(0)) {
            path.push(self.next());
            if self.peek(0) != "::" || !is_word(self.peek(1)) {
                break;
            }
            self.at += 1;
        }
        path
    }

    /// The leaves of a tree of imports below `prefix`.
    fn use_tree(&mut self, prefix: &[String], is_public: bool) -> Vec<Import> {
        let mut path = prefix.to_vec();
        loop {
            match self.next().as_str() {
                "{" => {
                    let mut leaves = Vec::new();
                    while !matches!(self.peek(0), "}" | "") {
                        leaves.extend(self.use_tree(&path, is_public));
                        if self.peek(0) == "," {
                            self.at += 1;
                        }
                    }
                    self.at += 1;
                    return leaves;
                }
                // An absolute name.
                "::" => continue,
                "self" if !path.is_empty() => {}
                word => path.push(word.to_owned()),
            }
            match self.peek(0) {
                "::" => self.at += 1,
                "as" => {
                    self.at += 1;
                    let name = self.next();
                    return vec![Import { path, name, is_public }];
                }
                _ => {
                    let name = path.last().cloned().unwrap_or_default();
                    return vec![Import { path, name, is_public }];
                }
            }
        }
    }

    /// Whether the attribute here says that what follows is compiled for tests alone.
    fn is_of_tests(&self) -> bool {
        let starts = |expected: &[&str]| (2..).zip(expected).all(|(at, it)| self.peek(at) == *it);
        starts(&["cfg", "(", "test"]) || starts(&["cfg", "(", "all", "(", "test"])
    }

    /// Skips the item after its attribute: to its semicolon, or past its braces.
    fn skip_item(&mut self) {
        while self.at < self.tokens.len() {
            match self.peek(0) {
                ";" => return self.at += 1,
                "{" => return self.skip_group(),
                "(" | "[" => self.skip_group(),
                // The last variant or field of its list.
                "}" => return,
                "," => return self.at += 1,
                _ => self.at += 1,
            }
        }
    }

    /// Skips what is between brackets, with them.
    fn skip_group(&mut self) {
        let mut depth = 0_usize;
        while self.at < self.tokens.len() {
            match self.next().as_str() {
                "(" | "[" | "{" => depth += 1,
                ")" | "]" | "}" => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return;
            }
        }
    }
}

fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Words, `::`, and other characters one by one; no comments, strings, characters or lifetimes.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            _ if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            _ if rest.starts_with("/*") => block_comment(rest),
            '"' => string(rest),
            '\'' => quote(rest),
            _ if rest.starts_with("::") => 2,
            _ if first.is_alphanumeric() || first == '_' => word(rest),
            _ => first.len_utf8(),
        };
        let (token, after) = rest.split_at(length);
        let is_left_out = first.is_whitespace()
            || matches!(first, '"' | '\'')
            || token.starts_with("//")
            || token.starts_with("/*");
        // A raw string or a raw name follows its prefix: `r#"…"#`, `br"…"`, `r#type`.
        let hashes = after.len() - after.trim_start_matches('#').len();
        let is_raw = matches!(token, "r" | "br" | "cr");
        rest = match is_raw.then(|| after[hashes..].chars().next()).flatten() {
            Some('"') => {
                let end = format!("\"{}", "#".repeat(hashes));
                let inner = &after[hashes + 1..];
                &inner[inner.find(&end).map_or(inner.len(), |at| at + end.len())..]
            }
            Some(_) if hashes == 1 => &after[1..],
            _ => {
                if !is_left_out {
                    tokens.push(token.to_owned());
                }
                after
            }
        };
    }
    tokens
}

fn word(text: &str) -> usize {
    text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len())
}

/// The length of a comment between `/*` and `*/`, which may hold others.
fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < text.len() {
        let (step, new) = match &text.as_bytes()[at..] {
            [b'/', b'*', ..] => (2, depth + 1),
            [b'*', b'/', ..] => (2, depth - 1),
            _ => (1, depth),
        };
        (at, depth) = (at + step, new);
        if depth == 0 {
            break;
        }
    }
    at
}

/// The length of a string with its quotes.
fn string(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => drop(chars.next()),
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The length of a character with its quotes, or of a lifetime.
fn quote(text: &str) -> usize {
    let inner = &text[1..];
    let mut chars = inner.char_indices();
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), Some((_, escaped))) => {
            let start = 1 + escaped.len_utf8();
            inner[start..].find('\'').map_or(text.len(), |at| 1 + start + at + 1)
        }
        (Some(_), Some((end, '\''))) => 1 + end + 1,
        _ => 1 + word(inner),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Scope {
        scopes(text).remove(0)
    }

    fn imports(text: &str) -> Vec<String> {
        let named = |Import { path, name, .. }| format!("{} as {name}", path.join("::"));
        of(text).imports.into_iter().map(named).collect()
    }

    fn paths(text: &str) -> Vec<String> {
        of(text).paths.iter().map(|path| path.join("::")).collect()
    }

    #[test]
    fn groups_self_aliases_and_globs_are_leaves_of_an_import() {
        let text = "pub(crate) use crate::a::{self, B, c::{D as E, f::*}};\nuse super::super::G;";
        assert_eq!(
            imports(text),
            [
                "crate::a as a",
                "crate::a::B as B",
                "crate::a::c::D as E",
                "crate::a::c::f::* as *",
                "super::super::G as G"
            ]
        );
        assert_eq!(imports("use {a, b::c,};"), ["a as a", "b::c as c"]);
        assert_eq!(imports("fn f() { use a::B as _; }"), ["a::B as _"]);
    }

    #[test]
    fn paths_of_types_functions_and_macros_are_found() {
        let text = "fn f(x: crate::a::B<super::c::D>) -> e::F { g::h!(x); r#k::l(); m.n(); ::std::mem::take() }";
        assert_eq!(paths(text), ["crate::a::B", "super::c::D", "e::F", "g::h", "k::l"]);
        assert_eq!(
            paths("<T as a::B>::c::d(); e::f::<g::H>::new(); ..i::J"),
            ["a::B", "e::f", "g::H", "i::J"]
        );
    }

    #[test]
    fn attributes_have_paths() {
        let text = "#[arg(value_parser = a::b)] #![c(d::e)] #[cfg(unix)] f::g";
        assert_eq!(paths(text), ["a::b", "d::e", "f::g"]);
    }

    #[test]
    fn an_import_is_public_if_others_can_use_it() {
        let text = "use a::b; pub use c::d; pub(crate) use e::f; fn g() { use h::i; }";
        let public: Vec<bool> = of(text).imports.iter().map(|import| import.is_public).collect();
        assert_eq!(public, [false, true, true, false]);
    }

    #[test]
    fn an_item_of_tests_is_left_out() {
        let text = "#[cfg(test)] use a::b; #[cfg(all(test, unix))] mod c; #[cfg(test)] fn d(e: [f::G; 2]) { h::i() }
            #[cfg(test)] mod tests { use super::*; } mod j; #[cfg(not(test))] mod k; #[cfg(unix)] use l::m;";
        let found = scopes(text);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].files, ["j", "k"]);
        assert_eq!(imports(text), ["l::m as m"]);
        assert_eq!(paths(text), [""; 0]);
    }

    #[test]
    fn a_module_between_braces_is_a_scope_of_its_own() {
        let found = scopes("mod a { mod b; use super::c; mod d { e::f() } } use g::h;");
        let names: Vec<String> = found.iter().map(|scope| scope.within.join("::")).collect();
        assert_eq!(names, ["", "a", "a::d"]);
        assert_eq!(found[0].imports[0].path, ["g", "h"]);
        assert_eq!((&found[1].files, found[1].imports.len()), (&vec!["b".to_owned()], 1));
        assert_eq!(found[2].paths, [["e", "f"]]);
    }

    #[test]
    fn comments_strings_characters_and_lifetimes_say_nothing() {
        for text in [
            "// a::b\n/// [`a::b`]",
            "/* a::b /* c::d */ e::f */",
            r#""a::b \" c::d""#,
            "b\"a::b\"",
            "r#\"a::b \" c::d\"#",
            "r\"a::b\\\"",
            "'\"' '\\'' '\\u{41}' 'a' &'a str",
            "'('",
        ] {
            assert_eq!(paths(&format!("{text}\nlast::one")), ["last::one"], "{text}");
        }
    }
}
