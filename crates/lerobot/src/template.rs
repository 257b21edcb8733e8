//! Templates of file paths, such as `data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet`.
//!
//! Python formats them in LeRobot; here only the placeholders that LeRobot uses are known. A path stays in the folder of
//! the data set, whatever it is formatted with.

use std::path::{Component, Path};

use crate::version::Version;

/// The longest template, in bytes.
const MAX_LENGTH: usize = 1024;

/// The most digits that a number is padded to.
const MAX_DIGITS: usize = 9;

/// A template whose paths are relative and do not leave the folder.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Template {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq)]
enum Part {
    Text(String),
    /// The chunk's number, with at least so many digits.
    Chunk(usize),
    /// The number of the file in its chunk; in v2.1, of the episode.
    File(usize),
    /// The key of the camera.
    VideoKey,
}

/// Where a file of the data set is: the numbers of its chunk and of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct FileIndex {
    pub(crate) chunk: u64,
    pub(crate) file: u64,
}

impl Template {
    /// Parses a template of `version`.
    ///
    /// # Errors
    /// What is wrong with it, as the rest of a sentence.
    pub(crate) fn parse(text: &str, version: Version) -> Result<Self, String> {
        if text.len() > MAX_LENGTH {
            return Err(format!("is longer than {MAX_LENGTH} bytes"));
        }
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            literal.push_str(&rest[..at]);
            let from = &rest[at..];
            if from.starts_with("{{") || from.starts_with("}}") {
                literal.push_str(&from[..1]);
                rest = &from[2..];
                continue;
            }
            let inner = from.strip_prefix('{').and_then(|inner| inner.split_once('}'));
            let Some((placeholder, after)) = inner else {
                return Err("has an unpaired brace".to_owned());
            };
            if !literal.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut literal)));
            }
            parts.push(part(placeholder, version)?);
            rest = after;
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Text(literal));
        }
        let template = Self { parts };
        let numbered = template.parts.iter().any(|part| matches!(part, Part::File(_)));
        if version == Version::V21 && !numbered {
            return Err("has no `{episode_index}`".to_owned());
        }
        check(&template.path(FileIndex { chunk: 0, file: 0 }, "key"))?;
        Ok(template)
    }

    /// The path of a file, relative to the folder of the data set. `key` is a valid feature key.
    pub(crate) fn path(&self, index: FileIndex, key: &str) -> String {
        let text = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Chunk(digits) => format!("{:0digits$}", index.chunk),
            Part::File(digits) => format!("{:0digits$}", index.file),
            Part::VideoKey => key.to_owned(),
        };
        self.parts.iter().map(text).collect()
    }

    /// The template with `*` in place of numbers.
    pub(crate) fn pattern(&self, key: &str) -> String {
        let text = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Chunk(_) | Part::File(_) => "*".to_owned(),
            Part::VideoKey => key.to_owned(),
        };
        self.parts.iter().map(text).collect()
    }
}

fn part(placeholder: &str, version: Version) -> Result<Part, String> {
    let (name, spec) = placeholder.split_once(':').unwrap_or((placeholder, ""));
    let digits = || match spec.strip_suffix('d').unwrap_or(spec) {
        "" => Ok(1),
        padded => padded
            .strip_prefix('0')
            .and_then(|digits| digits.parse::<usize>().ok())
            .filter(|digits| (1..=MAX_DIGITS).contains(digits))
            .ok_or_else(|| format!("has the format `{spec}`; only such as `03d` are read")),
    };
    match (version, name) {
        (Version::V21, "episode_chunk") | (Version::V30, "chunk_index") => {
            Ok(Part::Chunk(digits()?))
        }
        (Version::V21, "episode_index") | (Version::V30, "file_index") => Ok(Part::File(digits()?)),
        (_, "video_key") if spec.is_empty() => Ok(Part::VideoKey),
        _ => {
            let known = match version {
                Version::V21 => "`episode_chunk`, `episode_index` and `video_key`",
                Version::V30 => "`chunk_index`, `file_index` and `video_key`",
            };
            let name: String = placeholder.chars().take(40).collect();
            Err(format!("has the placeholder `{name}`; only {known} are known"))
        }
    }
}

/// Whether a path is relative, and stays in its folder.
///
/// # Errors
/// What is wrong with it, as the rest of a sentence.
pub(crate) fn check(path: &str) -> Result<(), String> {
    if path.contains(['\\', '\0']) || path.chars().any(char::is_control) {
        return Err("has a backslash or a control character".to_owned());
    }
    let is_normal = |component| matches!(component, Component::Normal(_));
    match !path.is_empty() && !path.ends_with('/') && Path::new(path).components().all(is_normal) {
        true => Ok(()),
        false => {
            Err("must be a relative path without `..`: a data set has its files in its own folder"
                .to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const INDEX: FileIndex = FileIndex { chunk: 2, file: 1034 };

    #[test]
    fn the_templates_of_lerobot_are_formatted_as_by_python() {
        let v30 = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4";
        let template = Template::parse(v30, Version::V30).unwrap();
        let camera = "observation.images.front";
        assert_eq!(
            template.path(INDEX, camera),
            "videos/observation.images.front/chunk-002/file-1034.mp4"
        );
        assert_eq!(template.pattern(camera), "videos/observation.images.front/chunk-*/file-*.mp4");
        let v21 = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet";
        let template = Template::parse(v21, Version::V21).unwrap();
        assert_eq!(template.path(INDEX, ""), "data/chunk-002/episode_001034.parquet");
        let plain = Template::parse("a{{{file_index}}}-{chunk_index:d}", Version::V30).unwrap();
        assert_eq!(plain.path(INDEX, ""), "a{1034}-2");
    }

    #[test]
    fn a_template_that_leaves_the_folder_is_refused() {
        for text in [
            "/etc/{file_index}",
            "../{file_index}",
            "data/../../{file_index}",
            "./{file_index}",
            "",
            "data/{file_index}/",
            "data\\{file_index}",
            "data/\0{file_index}",
        ] {
            assert!(Template::parse(text, Version::V30).is_err(), "{text:?}");
        }
    }

    #[test]
    fn other_placeholders_and_formats_are_refused() {
        let reason = |text: &str| Template::parse(text, Version::V30).unwrap_err();
        assert!(reason("{episode_index}").contains("`episode_index`"));
        assert!(reason("{file_index.__class__}").contains("`chunk_index`"));
        assert!(reason("{file_index!r}").contains("placeholder"));
        assert!(reason("{0}").contains("placeholder"));
        assert!(reason("{file_index:3d}").contains("`3d`"));
        assert!(reason("{file_index:0999999d}").contains("only such as `03d`"));
        assert!(reason("{file_index").contains("unpaired"));
        assert!(reason("a}").contains("unpaired"));
        assert!(reason("{video_key:03d}").contains("placeholder"));
        let v21 = Template::parse("data/{episode_chunk}.parquet", Version::V21).unwrap_err();
        assert!(v21.contains("`{episode_index}`"), "{v21}");
    }

    proptest! {
        #[test]
        fn a_parsed_template_never_leaves_the_folder(
            text in "[a-z./{}:_\\\\0-9]{0,40}|(\\.\\./|/|a|\\{chunk_index\\}|\\{video_key\\}|\\.){0,8}",
            chunk: u64, file: u64,
        ) {
            for version in [Version::V21, Version::V30] {
                if let Ok(template) = Template::parse(&text, version) {
                    let path = template.path(FileIndex { chunk, file }, "front");
                    prop_assert!(check(&path).is_ok(), "{path}");
                    prop_assert!(Path::new("root").join(&path).starts_with("root"));
                }
            }
        }
    }
}
