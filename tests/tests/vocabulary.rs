//! Help, messages, docs and code use the field's terms: none contains a phrase of `tests/vocabulary.txt`.

use std::fs;
use std::path::{Path, PathBuf};

/// Files with frozen text: captions, questions and rationales of the built-in rooms.
const EXEMPT: &[&str] = &["crates/sim/src", "tests/vocabulary.txt"];

/// Folders and files whose text is checked, from the root.
const CHECKED: &[&str] = &[
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "configs",
    "crates",
    "dataset/README.md",
    "docker",
    "docs",
    "scripts",
    "tests",
];

/// The endings of files with text.
const ENDINGS: &[&str] =
    &["c", "cpp", "cu", "h", "md", "py", "rs", "sh", "toml", "txt", "yaml", "yml"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// Each banned phrase, with what to write instead.
fn phrases() -> Vec<(&'static str, &'static str)> {
    let lines = include_str!("../vocabulary.txt").lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| line.split_once(" -> ").unwrap_or_else(|| panic!("no ` -> `: {line}")))
        .collect()
}

/// The text as one line of lower-case words without comment markers, so that a phrase is found across lines.
fn plain(text: &str) -> String {
    let lines = text.lines().map(|line| line.trim().trim_start_matches(['/', '!', '#', '*', ' ']));
    let words: Vec<&str> =
        lines.flat_map(str::split_whitespace).filter(|word| *word != "\\").collect();
    words.join(" ").to_lowercase()
}

/// The banned phrases in `text`, as `WHERE: PHRASE -> INSTEAD`.
fn found(place: &str, text: &str) -> Vec<String> {
    let text = plain(text);
    let occurs = |phrase: &str| {
        let ends = |at: usize| !text[at..].chars().next().is_some_and(char::is_alphanumeric);
        let begins = |at: usize| !text[..at].chars().next_back().is_some_and(char::is_alphanumeric);
        text.match_indices(phrase).any(|(at, _)| begins(at) && ends(at + phrase.len()))
    };
    let phrases = phrases().into_iter().filter(|(phrase, _)| occurs(phrase));
    phrases.map(|(phrase, instead)| format!("{place}: {phrase} -> {instead}")).collect()
}

fn files(path: &Path, all: &mut Vec<PathBuf>) {
    let relative = path.strip_prefix(root()).unwrap();
    if EXEMPT.iter().any(|exempt| relative.starts_with(exempt)) {
        return;
    }
    if path.is_dir() {
        let entries = fs::read_dir(path).unwrap();
        entries.for_each(|entry| files(&entry.unwrap().path(), all));
    } else if path.extension().is_some_and(|it| ENDINGS.iter().any(|ending| it == *ending)) {
        all.push(path.to_owned());
    }
}

#[test]
fn docs_messages_and_code_contain_no_banned_phrase() {
    let mut all = Vec::new();
    CHECKED.iter().for_each(|name| files(&root().join(name), &mut all));
    assert!(all.len() > 500, "only {} files", all.len());
    // The help of every command is in there: a test of `cli` keeps it current.
    assert!(all.contains(&root().join("docs/cli.md")));
    let faults = all.iter().flat_map(|path| {
        let place = path.strip_prefix(root()).unwrap().display().to_string();
        found(&place, &fs::read_to_string(path).unwrap())
    });
    let faults: Vec<String> = faults.collect();
    assert!(faults.is_empty(), "{} places:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn a_phrase_is_found_across_lines_and_not_within_a_word() {
    assert_eq!(found("a", "/// Weights are handed\n/// Round the ranks.").len(), 1);
    assert_eq!(found("a", "a hand-rounded number; `shand round`"), Vec::<String>::new());
}
