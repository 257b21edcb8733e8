//! Files of token sequences.

use std::path::Path;

use anyhow::Context as _;
use embodied_r_grpo::inspect::batch_file::{BatchFile, FileGroup};
use embodied_r_grpo::inspect::batch_images::{FileImage, FileVideo};
use serde::Deserialize;

use crate::exit::Usage;

/// Token sequences, which may have images.
#[derive(Debug, PartialEq)]
pub(super) struct Sequences(Vec<FileGroup>);

/// The file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    sequences: Vec<Sequence>,
    /// Of each sequence, or of the only one.
    #[serde(default)]
    images: Option<Each<FileImage>>,
    #[serde(default)]
    videos: Option<Each<FileVideo>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Sequence {
    Ids(Vec<u32>),
    WithImages(WithImages),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WithImages {
    ids: Vec<u32>,
    #[serde(default)]
    images: Vec<FileImage>,
    #[serde(default)]
    videos: Vec<FileVideo>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Each<T> {
    Lists(Vec<Vec<T>>),
    One(Vec<T>),
}

impl<T> Each<T> {
    /// The items of each of `count` sequences.
    fn lists(self, count: usize, name: &str) -> anyhow::Result<Vec<Vec<T>>> {
        let lists = match self {
            Self::Lists(lists) => lists,
            Self::One(list) => vec![list],
        };
        if lists.len() != count {
            let found = lists.len();
            let what = format!("`{name}` has {found} lists for {count} sequences");
            return Err(Usage(what).into());
        }
        Ok(lists)
    }
}

/// Reads `{"sequences": [[1, 2, …], …]}`. A sequence with images is `{"ids": [1, 2, …], "images": [path], "videos":
/// [{"frames": [path], "fps": x}]}`, or `images` and `videos` are beside `sequences`, a list for each.
pub(super) fn read(file: &Path) -> anyhow::Result<Sequences> {
    let text = std::fs::read(file).map_err(embodied_r_files::Error::io("read", file))?;
    let parsed: File = serde_json::from_slice(&text).with_context(|| {
        format!("cannot parse `{}` as `{{\"sequences\": [[1, 2, …], …]}}`", file.display())
    })?;
    let mut groups: Vec<FileGroup> = parsed.sequences.into_iter().map(group).collect();
    let count = groups.len();
    if let Some(images) = parsed.images {
        let lists = images.lists(count, "images")?;
        groups.iter_mut().zip(lists).for_each(|(group, list)| group.images.extend(list));
    }
    if let Some(videos) = parsed.videos {
        let lists = videos.lists(count, "videos")?;
        groups.iter_mut().zip(lists).for_each(|(group, list)| group.videos.extend(list));
    }
    Ok(Sequences(groups))
}

fn group(sequence: Sequence) -> FileGroup {
    match sequence {
        Sequence::Ids(prompt_ids) => FileGroup { prompt_ids, ..FileGroup::default() },
        Sequence::WithImages(WithImages { ids, images, videos }) => {
            FileGroup { prompt_ids: ids, images, videos, ..FileGroup::default() }
        }
    }
}

impl Sequences {
    /// Whether any sequence has images or videos.
    pub(super) fn has_images(&self) -> bool {
        self.0.iter().any(|group| !(group.images.is_empty() && group.videos.is_empty()))
    }

    /// The token ids of sequences of text.
    ///
    /// # Errors
    /// A sequence has images.
    pub(super) fn into_ids(self) -> anyhow::Result<Vec<Vec<u32>>> {
        if self.has_images() {
            let what = "only `inspect logprobs` takes sequences with images".to_owned();
            return Err(Usage(what).into());
        }
        Ok(self.0.into_iter().map(|group| group.prompt_ids).collect())
    }

    /// The sequences as prompts of groups without completions.
    pub(super) fn batch(&self) -> BatchFile {
        BatchFile { groups: self.0.clone(), settings: None }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn parsed(text: &str) -> anyhow::Result<Sequences> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sequences.json");
        std::fs::write(&path, text).unwrap();
        read(&path)
    }

    #[test]
    fn images_are_in_a_sequence_or_beside_all() {
        let inside = parsed(r#"{"sequences": [{"ids": [1, 2], "images": ["a.png"]}]}"#).unwrap();
        for text in [
            r#"{"sequences": [[1, 2]], "images": ["a.png"]}"#,
            r#"{"sequences": [[1, 2]], "images": [["a.png"]]}"#,
        ] {
            assert_eq!(parsed(text).unwrap(), inside, "{text}");
        }
        assert!(inside.has_images());
        assert!(inside.into_ids().is_err());
        let of = |video: Value| {
            let file = json!({"sequences": [[1], [2]], "videos": [[], [&video]]}).to_string();
            (json!(parsed(&file).unwrap().0[1].videos), json!([video]))
        };
        for video in [
            json!({"frames": ["f"], "fps": 2.0}),
            json!({"video": "walk.mp4", "frames": "uniform=16"}),
        ] {
            let (found, wanted) = of(video);
            assert_eq!(found, wanted);
        }
    }

    #[test]
    fn lists_must_be_one_per_sequence_and_fields_known() {
        let error = parsed(r#"{"sequences": [[1], [2]], "images": ["a.png"]}"#).unwrap_err();
        assert_eq!(error.to_string(), "`images` has 1 lists for 2 sequences");
        assert!(parsed(r#"{"sequences": [[1]], "image": ["a.png"]}"#).is_err());
    }
}
