//! The files that `--data` names: paths, folders of shards and glob patterns.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Result};
use crate::{egoschema, mvbench, one_or_many};

/// Extensions of files of records.
const EXTENSIONS: [&str; 3] = ["parquet", "jsonl", "json"];

/// Files beside the shards of a dataset on the Hugging Face Hub that have no records.
const METADATA: [&str; 3] = ["dataset_info.json", "dataset_infos.json", "dataset_dict.json"];

/// The folder of the shards in a dataset on the Hugging Face Hub.
const SHARDS: &str = "data";

/// How file names call each split.
const SPLITS: [(&str, &[&str]); 3] = [
    ("train", &["train", "training"]),
    ("validation", &["val", "valid", "validation", "dev", "eval"]),
    ("test", &["test", "testing"]),
];

/// Where a dataset on the Hugging Face Hub is.
const HUB: [&str; 3] = ["https://huggingface.co/datasets/", "hf://datasets/", "datasets/"];

/// Question files, conversations or tables, read one after another: a file, several, a folder of shards or a glob pattern.
///
/// In settings it is a string or a list of strings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DataFiles(Vec<PathBuf>);

impl DataFiles {
    /// The files that these paths name.
    pub fn new(paths: Vec<PathBuf>) -> Self {
        Self(paths)
    }

    /// The paths as they were given.
    pub fn paths(&self) -> &[PathBuf] {
        &self.0
    }

    /// The files in the order of the paths. A folder stands for its question file, if it is a benchmark's, or for its
    /// shards; shards and the matches of a pattern are in alphabetical order.
    ///
    /// # Errors
    /// A folder has no data files, files of several splits or of several kinds; nothing matches a pattern; a path does not
    /// exist and is the ID of a dataset on the Hugging Face Hub. Other missing files are errors of their readers.
    pub fn files(&self) -> Result<Vec<PathBuf>> {
        let files = self.0.iter().map(|path| resolved(path)).collect::<Result<Vec<_>>>()?;
        Ok(files.concat())
    }

    /// What `read` makes of each file.
    ///
    /// # Errors
    /// Those of [`Self::files`] and of `read`.
    pub fn read<T, E: From<Error>>(
        &self,
        read: impl FnMut(&Path) -> Result<T, E>,
    ) -> Result<Vec<T>, E> {
        let mut read = read;
        self.files()?.iter().map(|file| read(file)).collect()
    }
}

impl From<&Path> for DataFiles {
    fn from(path: &Path) -> Self {
        Self(vec![path.into()])
    }
}

impl From<&str> for DataFiles {
    fn from(path: &str) -> Self {
        Path::new(path).into()
    }
}

impl fmt::Display for DataFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&named(&self.0))
    }
}

/// The paths as they are named in messages: all of two or three, or the first and the number of others.
pub fn named(paths: &[PathBuf]) -> String {
    let quoted = |path: &PathBuf| format!("`{}`", path.display());
    match paths {
        [] => "no file".to_owned(),
        [path] => quoted(path),
        [first, .., last] if paths.len() <= 3 => {
            let middle = paths[1..paths.len() - 1].iter().map(|path| format!(", {}", quoted(path)));
            format!("{}{} and {}", quoted(first), middle.collect::<String>(), quoted(last))
        }
        [first, others @ ..] => format!("{} and {} other files", quoted(first), others.len()),
    }
}

impl Serialize for DataFiles {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        one_or_many::serialize(&self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for DataFiles {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        one_or_many::deserialize(deserializer, "a path or a list of paths").map(Self)
    }
}

/// The files of one path.
fn resolved(path: &Path) -> Result<Vec<PathBuf>> {
    if path.is_dir() {
        return in_folder(path);
    }
    if path.exists() {
        return Ok(vec![path.to_owned()]);
    }
    let text = path.to_string_lossy();
    if text.contains(['*', '?', '[']) {
        return matches(&text);
    }
    match hub_id(&text) {
        Some(id) => Err(Error::HubDataset { id: id.to_owned() }),
        None => Ok(vec![path.to_owned()]),
    }
}

/// The files that match a pattern.
fn matches(pattern: &str) -> Result<Vec<PathBuf>> {
    let fault = |reason: String| Error::Pattern { pattern: pattern.to_owned(), reason };
    let paths = glob::glob(pattern).map_err(|error| fault(format!("is no glob: {error}")))?;
    let mut files = Vec::new();
    for path in paths {
        let path = path.map_err(|error| fault(format!("cannot be matched: {error}")))?;
        if path.is_file() {
            files.push(path);
        }
    }
    match files.is_empty() {
        true => Err(fault("matches no file".to_owned())),
        false => Ok(files),
    }
}

/// A benchmark's question file, or all shards of a folder.
fn in_folder(folder: &Path) -> Result<Vec<PathBuf>> {
    let known = [egoschema::QUESTIONS].into_iter().chain(mvbench::QUESTIONS);
    let questions: Vec<PathBuf> =
        known.map(|name| folder.join(name)).filter(|file| file.is_file()).collect();
    match questions.as_slice() {
        [] => shards(folder),
        [file] => Ok(vec![file.clone()]),
        [first, second, ..] => {
            Err(Error::SeveralQuestionFiles { first: first.clone(), second: second.clone() })
        }
    }
}

fn shards(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(Error::io("read", folder))? {
        let path = entry.map_err(Error::io("read", folder))?.path();
        if extension(&path).is_some() && path.is_file() && !is_metadata(&path) {
            files.push(path);
        }
    }
    files.sort();
    let Some(first) = files.first() else {
        let below = folder.join(SHARDS);
        return match below.is_dir() {
            true => shards(&below),
            false => Err(Error::NoDataFiles { path: folder.to_owned() }),
        };
    };
    if let Some(other) = files.iter().find(|file| extension(file) != extension(first)) {
        let pattern = format!("*.{}", extension(first).unwrap_or_default());
        return Err(different(folder, ("kinds", &pattern), first, other));
    }
    let mut splits = BTreeMap::new();
    for file in &files {
        splits.entry(split(file)).or_insert(file);
    }
    let mut splits = splits.values();
    match (splits.next(), splits.next()) {
        (Some(first), Some(other)) => Err(different(folder, ("splits", "train*"), first, other)),
        _ => Ok(files),
    }
}

/// The error about two files of `folder` that differ in `what`; `pattern` matches the like of one.
fn different(
    folder: &Path,
    (what, pattern): (&'static str, &str),
    first: &Path,
    other: &Path,
) -> Error {
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Error::DifferentFiles {
        path: folder.to_owned(),
        what,
        first: name(first),
        other: name(other),
        pattern: folder.join(pattern),
    }
}

/// The extension of a file of records.
fn extension(path: &Path) -> Option<&'static str> {
    let found = path.extension()?;
    EXTENSIONS.into_iter().find(|extension| found.eq_ignore_ascii_case(extension))
}

/// Whether the file describes a dataset or is hidden.
fn is_metadata(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with('.') || METADATA.contains(&name.as_ref())
}

/// The split that a file's name mentions, such as `train` of `train-00000-of-00004.parquet`.
fn split(path: &Path) -> Option<&'static str> {
    let stem = path.file_stem()?.to_string_lossy().to_lowercase();
    let mut words = stem.split(|c: char| !c.is_alphanumeric());
    words
        .find_map(|word| SPLITS.iter().find(|(_, names)| names.contains(&word)))
        .map(|split| split.0)
}

/// The ID of a dataset on the Hugging Face Hub, such as `nyu-visionx/VSI-Bench`.
fn hub_id(text: &str) -> Option<&str> {
    let id = HUB.iter().find_map(|prefix| text.strip_prefix(prefix)).unwrap_or(text);
    let (owner, name) = id.split_once('/')?;
    let is_name = |name: &str| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        !name.is_empty() && !name.starts_with('.') && name.chars().all(allowed)
    };
    let is_id = is_name(owner) && is_name(name) && !Path::new(owner).exists();
    (is_id && extension(Path::new(name)).is_none()).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "[]").unwrap();
        }
        folder
    }

    /// The files that `path` of the folder stands for, without the folder, or the error.
    fn found(folder: &tempfile::TempDir, path: &str) -> Result<Vec<String>, String> {
        let data = DataFiles::from(folder.path().join(path).as_path());
        let files = data.files().map_err(|error| error.to_string())?;
        let relative = |file: &PathBuf| {
            file.strip_prefix(folder.path()).unwrap().to_string_lossy().into_owned()
        };
        Ok(files.iter().map(relative).collect())
    }

    #[test]
    fn a_folder_stands_for_its_shards_in_order() {
        let shards =
            folder(&["b-01.parquet", "b-00.parquet", "dataset_info.json", ".x.json", "README.md"]);
        assert_eq!(found(&shards, "").unwrap(), ["b-00.parquet", "b-01.parquet"]);
        let hub = folder(&["README.md", "data/train-0.parquet", "data/train-1.parquet"]);
        assert_eq!(found(&hub, "").unwrap(), ["data/train-0.parquet", "data/train-1.parquet"]);
        let error = found(&folder(&["a.txt"]), "").unwrap_err();
        assert!(error.contains("has no parquet, JSON lines or JSON files"), "{error}");
    }

    #[test]
    fn splits_and_kinds_are_never_mixed() {
        let splits = folder(&["train_data.json", "val_data.json", "test_data.json"]);
        let error = found(&splits, "").unwrap_err();
        assert!(error.contains("of different splits"), "{error}");
        assert!(error.ends_with("/train*'`"), "{error}");
        assert_eq!(found(&splits, "train*.json").unwrap(), ["train_data.json"]);
        let unnamed = folder(&["part.json", "test.json"]);
        assert!(found(&unnamed, "").is_err(), "a split beside a file of none");
        let kinds = found(&folder(&["a.parquet", "b.jsonl"]), "").unwrap_err();
        assert!(kinds.contains("of different kinds"), "{kinds}");
        let words = folder(&["contest.json", "latest.json", "trains.json"]);
        assert_eq!(found(&words, "").unwrap().len(), 3);
    }

    #[test]
    fn a_benchmarks_folder_stands_for_its_question_file() {
        let ego = folder(&["questions.json", "subset_answers.json"]);
        assert_eq!(found(&ego, "").unwrap(), ["questions.json"]);
        let both = folder(&["questions.json", "egocentric_navigation.json"]);
        assert!(found(&both, "").unwrap_err().contains("both question files"));
    }

    #[test]
    fn a_pattern_has_its_matches_in_order() {
        let data = folder(&["b/2.jsonl", "a/1.jsonl", "a/1.txt", "c[1].json"]);
        assert_eq!(found(&data, "**/*.jsonl").unwrap(), ["a/1.jsonl", "b/2.jsonl"]);
        assert_eq!(found(&data, "c[1].json").unwrap(), ["c[1].json"], "a file's own name");
        let error = found(&data, "*.parquet").unwrap_err();
        assert!(error.contains("matches no file"), "{error}");
        assert!(found(&data, "a***.json").unwrap_err().contains("is no glob"));
    }

    #[test]
    fn an_id_of_the_hub_says_what_to_download() {
        for id in ["nyu-visionx/VSI-Bench", "hf://datasets/nyu-visionx/VSI-Bench"] {
            let error = DataFiles::from(id).files().unwrap_err().to_string();
            let command = "hf download nyu-visionx/VSI-Bench --repo-type dataset";
            assert!(error.contains(command), "{error}");
        }
        for file in ["missing.json", "no/such.jsonl", "./a/b", "a/b/c", "/a/b"] {
            assert_eq!(DataFiles::from(file).files().unwrap(), [Path::new(file)]);
        }
    }

    #[test]
    fn settings_have_a_path_or_a_list() {
        let one: DataFiles = serde_json::from_str("\"a.json\"").unwrap();
        assert_eq!(one, "a.json".into());
        assert_eq!(serde_json::to_string(&one).unwrap(), "\"a.json\"");
        let two: DataFiles = serde_json::from_str("[\"a\", \"b\"]").unwrap();
        assert_eq!(serde_json::to_string(&two).unwrap(), "[\"a\",\"b\"]");
        let error = serde_json::from_str::<DataFiles>("3").unwrap_err().to_string();
        assert!(error.contains("a path or a list of paths"), "{error}");
    }

    #[test]
    fn messages_name_few_files_and_count_many() {
        let names = |count: usize| {
            let paths: Vec<PathBuf> =
                ["a", "b", "c", "d"][..count].iter().map(PathBuf::from).collect();
            named(&paths)
        };
        assert_eq!(names(1), "`a`");
        assert_eq!(names(2), "`a` and `b`");
        assert_eq!(names(3), "`a`, `b` and `c`");
        assert_eq!(names(4), "`a` and 3 other files");
    }
}
