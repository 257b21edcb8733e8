//! Reads a benchmark's own files.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use embodied_r_data::multimodal::annotations::{Annotation, columns, read_annotations};
use embodied_r_data::multimodal::{ReadOptions, SampleSet};
use sha2::{Digest as _, Sha256};

use crate::benchmark::{Benchmark, Layout};
use crate::benchmarks::BENCHMARKS;
use crate::error::{Error, Result};

/// The annotation files of a benchmark, and the folder that its images and videos are below.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnnotationFiles {
    /// The folder.
    pub folder: PathBuf,
    /// The files, in the order of their names.
    pub files: Vec<PathBuf>,
}

impl AnnotationFiles {
    /// The annotation files at `path`: the folder of the benchmark, or an annotation file itself.
    ///
    /// # Errors
    /// There is none.
    pub fn find(layout: &Layout, path: &Path) -> Result<Self> {
        if path.is_file() {
            let folder = path.parent().unwrap_or(Path::new("")).to_owned();
            return Ok(Self { folder, files: vec![path.to_owned()] });
        }
        for pattern in layout.files {
            let files = matching(path, pattern);
            if !files.is_empty() {
                // Its archive has images and annotations below this folder.
                let folder =
                    if pattern.starts_with("data/") { path.join("data") } else { path.to_owned() };
                return Ok(Self { folder, files });
            }
        }
        Err(Error::NoAnnotations { folder: path.to_owned(), needed: layout.files })
    }

    /// Whether a file has the name of an annotation file.
    pub fn has_name(layout: &Layout, path: &Path) -> bool {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is_its = |pattern: &&str| {
            let pattern = pattern.rsplit('/').next().unwrap_or(pattern);
            glob::Pattern::new(pattern).is_ok_and(|pattern| pattern.matches(&name))
        };
        layout.files.iter().any(is_its)
    }

    /// Their first `limit` questions under `prompt`, with images and videos.
    ///
    /// # Errors
    /// A file cannot be read, or a record is not as the layout says; the error names the record and the column.
    pub fn read(
        &self,
        layout: &Layout,
        prompt: &str,
        options: &ReadOptions,
        limit: usize,
    ) -> Result<SampleSet> {
        let question = |annotation: &Annotation<'_>| (layout.question)(annotation, prompt);
        Ok(read_annotations(&self.files, &self.folder, options, limit, question)?)
    }

    /// The SHA-256 digest of the only file, or of the digests of several in their order, in hexadecimal.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn sha256(&self) -> Result<String> {
        let digests = self.files.iter().map(|file| digest(file)).collect::<Result<Vec<_>>>()?;
        Ok(match digests.as_slice() {
            [digest] => digest.clone(),
            digests => hex(&Sha256::digest(digests.concat())),
        })
    }
}

/// The benchmark whose own files are at `path`: its folder, or an annotation file. Columns tell files of one name apart.
pub fn recognized(path: &Path) -> Option<&'static Benchmark> {
    let is_at = |layout: &Layout| {
        if path.is_file() && !AnnotationFiles::has_name(layout, path) {
            return false;
        }
        let Ok(AnnotationFiles { files, .. }) = AnnotationFiles::find(layout, path) else {
            return false;
        };
        let found = files.first().and_then(|file| columns(file).ok()).unwrap_or_default();
        layout.columns.iter().all(|column| found.iter().any(|other| other == column))
    };
    BENCHMARKS.into_iter().find(|benchmark| benchmark.layout.is_some_and(is_at))
}

/// The benchmark whose data set on the Hugging Face Hub has this ID.
pub fn published_as(id: &str) -> Option<&'static Benchmark> {
    let is_source = |layout: &Layout| layout.source.split(' ').any(|source| source == id);
    BENCHMARKS.into_iter().find(|benchmark| benchmark.layout.is_some_and(is_source))
}

/// The files below `folder` that match `pattern`, sorted.
fn matching(folder: &Path, pattern: &str) -> Vec<PathBuf> {
    let folder = glob::Pattern::escape(&folder.to_string_lossy());
    let found = glob::glob(&format!("{folder}/{pattern}")).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = found.filter(|path| path.is_file()).collect();
    files.sort();
    files
}

fn digest(path: &Path) -> Result<String> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    let mut file = std::fs::File::open(path).map_err(failed)?;
    let (mut hasher, mut buffer) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer).map_err(failed)? {
            0 => return Ok(hex(&hasher.finalize())),
            length => hasher.update(&buffer[..length]),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
