mod bad;
mod formats;
mod tables;
mod written;

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;

/// The indices of the records.
fn indices(set: &SampleSet) -> Vec<usize> {
    set.places.iter().map(|place| place.index).collect()
}

/// A folder with files that questions name.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("videos")).unwrap();
        for name in ["a.png", "b.png", "c.png", "v.mp4", "videos/w.mp4"] {
            std::fs::write(folder.path().join(name), name).unwrap();
        }
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The samples of a file of `text`.
    fn read_text(&self, text: &[u8], options: &ReadOptions) -> Result<SampleSet> {
        let path = self.path("questions");
        std::fs::write(&path, text).unwrap();
        read_samples(&path, options)
    }

    fn read_records(&self, records: &Value, options: &ReadOptions) -> Result<SampleSet> {
        self.read_text(records.to_string().as_bytes(), options)
    }

    /// The sample of a file with one record.
    fn sample(&self, record: Value) -> Sample {
        let set = self.read_records(&json!([record]), &ReadOptions::default()).unwrap();
        set.samples.into_iter().next().unwrap()
    }

    /// The error message about a file with one record, without the folder.
    fn message(&self, record: Value) -> String {
        self.records_message(&json!([record]))
    }

    fn records_message(&self, records: &Value) -> String {
        let error = self.read_records(records, &ReadOptions::default()).unwrap_err().to_string();
        error.replace(self.0.path().to_str().unwrap(), "DIR")
    }

    fn image(&self, name: &str) -> MediaFile {
        MediaFile::Path(self.path(name))
    }
}

fn text(text: &str) -> Part {
    Part::Text(text.to_owned())
}

fn message(role: Role, content: &[Part]) -> Message {
    Message { role, content: content.to_vec() }
}

fn user(content: &[Part]) -> Vec<Message> {
    vec![message(Role::User, content)]
}
