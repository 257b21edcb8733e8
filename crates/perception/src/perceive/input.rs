//! Data files: where they are read from, where their outputs go, and where their videos are.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use embodied_r_data::write::write_atomic;
use embodied_r_data::{Error as DataError, Question, QuestionSet, read_question_set};
use serde_json::Value;

use super::file_name;
use super::shard::{Shard, Shares};
use crate::error::{Error, Result};

/// The field that keeps the question as it was, as `question` becomes the whole prompt.
pub const ORIGINAL_QUESTION: &str = "original_question";

/// Extensions that a video's name is tried with where it has none.
const EXTENSIONS: [&str; 5] = ["mp4", "mov", "mkv", "webm", "avi"];

/// A data file and the places of its outputs.
#[derive(Debug)]
pub(super) struct Input {
    pub(super) data_path: PathBuf,
    pub(super) questions: Arc<[Question]>,
    /// Records left out of `questions`, since their answers are not known.
    pub(super) unanswered: usize,
    pub(super) output: PathBuf,
    pub(super) log: PathBuf,
}

/// Reads all data files and checks that no output takes the place of anything else.
pub(super) fn read(
    data_paths: &[PathBuf],
    answers: Option<&Path>,
    save_path: &Path,
) -> Result<Vec<Input>> {
    let mut inputs: Vec<Input> = Vec::new();
    for data_path in data_paths {
        let QuestionSet { path: data_path, questions, unanswered, .. } =
            read_question_set(data_path, answers)?;
        let data_path = &data_path;
        let output = save_path.join(file_name(data_path));
        if let Some(other) = inputs.iter().find(|other| other.output == output) {
            let (first, second) = (other.data_path.clone(), data_path.clone());
            return Err(Error::SameName { first, second });
        }
        let same = |path: &Path| path.canonicalize().ok();
        if same(&output).is_some_and(|output| Some(output) == same(data_path)) {
            return Err(Error::WouldOverwrite { path: data_path.clone() });
        }
        if let Some(perceived) = questions.iter().find(|q| q.extra.contains_key(ORIGINAL_QUESTION))
        {
            return Err(Error::AlreadyPerceived { path: data_path.clone(), id: perceived.id() });
        }
        let log = output.with_extension("captions.jsonl");
        let questions = questions.into();
        inputs.push(Input { data_path: data_path.clone(), questions, unanswered, output, log });
    }
    Ok(inputs)
}

/// Leaves only the questions of one shard.
pub(super) fn keep_shard(inputs: &mut [Input], shard: Shard) {
    keep_part(inputs, shard.index(), shard.count());
}

/// Leaves only the questions of one of `count` parts, from 1.
pub(super) fn keep_part(inputs: &mut [Input], index: usize, count: usize) {
    let kept: Vec<Arc<[Question]>> = {
        let all = inputs.iter().flat_map(|input| input.questions.iter());
        let shares = Shares::new(all, count);
        let ours = |question: &&Question| shares.of(question) == index;
        inputs.iter().map(|input| input.questions.iter().filter(ours).cloned().collect()).collect()
    };
    for (input, kept) in inputs.iter_mut().zip(kept) {
        input.questions = kept;
    }
}

/// The video of a question: in `folder` by its name where a folder is given, else where `videos`
/// says (seen from here or from the data file), else in `videos/` beside the data file.
///
/// # Errors
/// The question names no video, or it is not there.
pub fn video_path(question: &Question, folder: Option<&Path>, data_path: &Path) -> Result<PathBuf> {
    let named = question.video_id.as_deref();
    let listed = question.videos.as_deref();
    let Some(video) = named.or(listed) else {
        return Err(Error::NamesNoVideo { id: question.id() });
    };
    let beside = data_path.parent().unwrap_or(Path::new(""));
    let default_folder = beside.join("videos");
    let names = [named, listed].into_iter().flatten().map(Path::new);
    // A path in `video_id` does not lead out of the folder.
    let in_folder = |folder: &Path| {
        let folder = folder.to_owned();
        names.clone().filter_map(Path::file_name).map(move |name| folder.join(name)).collect()
    };
    let candidates: Vec<PathBuf> = match folder {
        Some(folder) => in_folder(folder),
        None => {
            let listed = listed.into_iter().flat_map(|p| [PathBuf::from(p), beside.join(p)]);
            listed.chain(in_folder(&default_folder)).collect()
        }
    };
    candidates.iter().find_map(|path| existing(path)).ok_or_else(|| Error::VideoMissing {
        video: video.to_owned(),
        folder: folder.unwrap_or(&default_folder).to_owned(),
    })
}

/// `path`, or the same with one of the usual extensions.
fn existing(path: &Path) -> Option<PathBuf> {
    let longer = EXTENSIONS.iter().map(|extension| {
        let mut name = path.as_os_str().to_owned();
        name.push(".");
        name.push(extension);
        PathBuf::from(name)
    });
    std::iter::once(path.to_owned()).chain(longer).find(|path| path.is_file())
}

/// The question with the prompt in its place.
pub(super) fn perceived(question: &Question, prompt: String) -> Question {
    let mut perceived = question.clone();
    let original = std::mem::replace(&mut perceived.question, prompt);
    perceived.extra.insert(ORIGINAL_QUESTION.to_owned(), Value::String(original));
    perceived
}

/// Writes the official JSON, whole or not at all.
pub(super) fn write(path: &Path, questions: &[Question]) -> Result<()> {
    let mut json = serde_json::to_vec_pretty(questions)
        .map_err(|source| DataError::Json { path: path.into(), source })?;
    json.push(b'\n');
    Ok(write_atomic(path, &json)?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn question(video_id: Option<&str>, videos: Option<&str>) -> Question {
        serde_json::from_value(json!({
            "Question_id": 7, "question": "q", "video_id": video_id, "videos": videos
        }))
        .unwrap()
    }

    fn folder(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        folder
    }

    #[test]
    fn a_given_folder_holds_the_videos_with_or_without_extension() {
        let root = folder(&["a.mp4", "b.mov"]);
        let path =
            |id| video_path(&question(Some(id), None), Some(root.path()), Path::new("x.json"));
        assert_eq!(path("a.mp4").unwrap(), root.path().join("a.mp4"));
        assert_eq!(path("a").unwrap(), root.path().join("a.mp4"));
        assert_eq!(path("b").unwrap(), root.path().join("b.mov"));
    }

    #[test]
    fn without_a_folder_the_videos_are_beside_the_data_file() {
        let root = folder(&["complete/videos/a.mp4", "complete/other/b.mp4"]);
        let data = root.path().join("complete/train_data.json");
        let path = |id, videos| video_path(&question(id, videos), None, &data).unwrap();
        assert_eq!(path(Some("a.mp4"), None), root.path().join("complete/videos/a.mp4"));
        assert_eq!(path(None, Some("other/b.mp4")), root.path().join("complete/other/b.mp4"));
        let whole = root.path().join("complete/other/b.mp4");
        assert_eq!(path(Some("b.mp4"), whole.to_str()), whole);
    }

    #[test]
    fn a_video_that_is_not_there_is_named_with_its_folder() {
        let root = folder(&["secret.mp4", "videos/a.mp4"]);
        let videos = root.path().join("videos");
        let missing =
            video_path(&question(Some("../secret.mp4"), None), Some(&videos), Path::new(""));
        let error = missing.unwrap_err().to_string();
        assert!(error.contains("`../secret.mp4`") && error.contains("videos`"), "{error}");
    }

    #[test]
    fn a_question_must_name_a_video() {
        let error = video_path(&question(None, None), None, Path::new("x.json")).unwrap_err();
        assert!(matches!(error, Error::NamesNoVideo { id } if id == "7"));
    }

    #[test]
    fn the_original_question_is_kept_beside_the_prompt() {
        let mut before = question(Some("a.mp4"), None);
        before.extra.insert("difficulty".into(), json!(3));
        let after = perceived(&before, "prompt".into());
        assert_eq!(after.question, "prompt");
        assert_eq!(after.extra[ORIGINAL_QUESTION], json!("q"));
        assert_eq!(after.extra["difficulty"], json!(3));
    }

    #[test]
    fn outputs_that_would_overwrite_something_are_refused() {
        let root = folder(&[]);
        let data = root.path().join("train.json");
        std::fs::write(&data, "[]").unwrap();
        let error = read(std::slice::from_ref(&data), None, root.path()).unwrap_err();
        assert!(matches!(error, Error::WouldOverwrite { .. }), "{error}");
        let twice = [data.clone(), data];
        let error = read(&twice, None, &root.path().join("out")).unwrap_err();
        assert!(matches!(error, Error::SameName { .. }), "{error}");
    }

    #[test]
    fn a_benchmarks_folder_is_read_and_written_under_its_files_name() {
        let root = folder(&["ego/videos/a.mp4"]);
        let question = |id: &str| {
            json!({"q_uid": id, "question": "q", "option 0": "v", "option 1": "w",
                "option 2": "x", "option 3": "y", "option 4": "z"})
        };
        let write = |name: &str, value: Value| {
            std::fs::write(root.path().join("ego").join(name), value.to_string()).unwrap();
        };
        write("questions.json", json!([question("a"), question("b")]));
        write("subset_answers.json", json!({"a": 1}));
        let out = root.path().join("out");
        let input = read(&[root.path().join("ego")], None, &out).unwrap().remove(0);
        assert_eq!((input.questions.len(), input.unanswered), (1, 1));
        assert_eq!(input.output, out.join("questions.json"));
        let video = video_path(&input.questions[0], None, &input.data_path).unwrap();
        assert_eq!(video, root.path().join("ego/videos/a.mp4"));
    }

    #[test]
    fn a_file_with_captions_already_is_refused() {
        let root = folder(&[]);
        let data = root.path().join("train.json");
        let done = perceived(&question(Some("a.mp4"), None), "prompt".into());
        write(&data, &[done]).unwrap();
        let error = read(&[data], None, &root.path().join("out")).unwrap_err();
        assert!(matches!(error, Error::AlreadyPerceived { id, .. } if id == "7"));
    }
}
