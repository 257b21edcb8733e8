//! Data files, the paths of their outputs, and their videos.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use embodied_r_data::captions::ORIGINAL_QUESTION;
use embodied_r_data::{
    DataFiles, Question, QuestionSet, VideoFolders, find_video, read_question_set,
};
use embodied_r_files::write_json;
use serde_json::Value;

use super::shard::{Shard, ShardAssignment};
use crate::error::{Error, Result};

/// A data file and the paths of its outputs.
#[derive(Debug)]
pub(super) struct Input {
    pub(super) data_path: PathBuf,
    pub(super) questions: Arc<[Question]>,
    /// Records not in `questions`, because their answers are unknown.
    pub(super) unanswered: usize,
    pub(super) output: PathBuf,
    pub(super) log: PathBuf,
}

/// Reads all data files, those of folders and patterns too, and checks that no output overwrites another file and that there are
/// questions.
pub(super) fn read(
    data_paths: &[PathBuf],
    answers: Option<&Path>,
    save_path: &Path,
) -> Result<Vec<Input>> {
    let mut inputs: Vec<Input> = Vec::new();
    for data_path in &DataFiles::new(data_paths.to_vec()).files()? {
        let set = read_question_set(data_path, answers)?;
        set.reject_duplicates()?;
        let QuestionSet { questions, unanswered, .. } = set;
        let output = save_path.join(file_name(data_path));
        if let Some(other) = inputs.iter().find(|other| other.output == output) {
            let (first, second) = (other.data_path.clone(), data_path.clone());
            return Err(Error::DuplicateOutput { first, second });
        }
        let same = |path: &Path| path.canonicalize().ok();
        if same(&output).is_some_and(|output| Some(output) == same(data_path)) {
            return Err(Error::WouldOverwrite { path: data_path.clone() });
        }
        if let Some(perceived) = questions.iter().find(|q| q.extra.contains_key(ORIGINAL_QUESTION))
        {
            return Err(Error::AlreadyCaptioned { path: data_path.clone(), id: perceived.id() });
        }
        let log = output.with_extension("captions.jsonl");
        let questions = questions.into();
        inputs.push(Input { data_path: data_path.clone(), questions, unanswered, output, log });
    }
    match inputs.first() {
        Some(first) if inputs.iter().all(|input| input.questions.is_empty()) => {
            let path = first.data_path.clone();
            Err(embodied_r_data::Error::EmptyQuestionFile { path }.into())
        }
        _ => Ok(inputs),
    }
}

/// Retains the questions of one shard.
pub(super) fn retain_shard(inputs: &mut [Input], shard: Shard) {
    retain_part(inputs, shard.index(), shard.count());
}

/// Retains the questions of part `index` of `count`, from 1.
pub(super) fn retain_part(inputs: &mut [Input], index: usize, count: usize) {
    let kept: Vec<Arc<[Question]>> = {
        let all = inputs.iter().flat_map(|input| input.questions.iter());
        let assignment = ShardAssignment::new(all, count);
        let is_assigned = |question: &&Question| assignment.of(question) == index;
        inputs
            .iter()
            .map(|input| input.questions.iter().filter(is_assigned).cloned().collect())
            .collect()
    };
    for (input, kept) in inputs.iter_mut().zip(kept) {
        input.questions = kept;
    }
}

/// The video of a question, in `folder`, if one is given, or else by its data file, as [`find_video`] finds it.
///
/// # Errors
/// The question names no video, or the video does not exist.
pub fn video_path(question: &Question, folder: Option<&Path>, data_path: &Path) -> Result<PathBuf> {
    let named = question.video_id.as_deref();
    let listed = question.videos.as_deref();
    let Some(video) = named.or(listed) else {
        return Err(Error::NoVideoName { id: question.id() });
    };
    let beside = data_path.parent().unwrap_or(Path::new(""));
    let folders = VideoFolders { video_dir: folder, image_dir: None, beside };
    find_video(listed, named, folders).ok_or_else(|| Error::VideoNotFound {
        video: video.to_owned(),
        folder: folder.map_or_else(|| beside.join("videos"), Path::to_owned),
    })
}

/// The question with its text replaced by the prompt.
pub(super) fn perceived(question: &Question, prompt: String) -> Question {
    let mut perceived = question.clone();
    let original = std::mem::replace(&mut perceived.question, prompt);
    perceived.extra.insert(ORIGINAL_QUESTION.to_owned(), Value::String(original));
    perceived
}

/// Writes the official JSON atomically.
pub(super) fn write(path: &Path, questions: &[Question]) -> Result<()> {
    Ok(write_json(path, &questions)?)
}

/// The file name of `path`, for the names of outputs.
pub(super) fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
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
    fn videos_are_found_in_a_given_folder_with_or_without_extension() {
        let root = folder(&["a.mp4", "b.mov"]);
        let path =
            |id| video_path(&question(Some(id), None), Some(root.path()), Path::new("x.json"));
        assert_eq!(path("a.mp4").unwrap(), root.path().join("a.mp4"));
        assert_eq!(path("a").unwrap(), root.path().join("a.mp4"));
        assert_eq!(path("b").unwrap(), root.path().join("b.mov"));
    }

    #[test]
    fn videos_are_found_by_their_path_within_a_given_folder() {
        let root = folder(&["videos/tasks/a.mp4", "secret.mp4"]);
        let folder = root.path().join("videos");
        let path = |listed| {
            video_path(&question(Some("a.mp4"), Some(listed)), Some(&folder), Path::new("x.json"))
        };
        assert_eq!(path("tasks/a.mp4").unwrap(), folder.join("tasks/a.mp4"));
        assert!(path("../secret.mp4").is_err());
    }

    #[test]
    fn without_a_folder_videos_are_found_next_to_the_data_file() {
        let root = folder(&["complete/videos/a.mp4", "complete/other/b.mp4"]);
        let data = root.path().join("complete/train_data.json");
        let path = |id, videos| video_path(&question(id, videos), None, &data).unwrap();
        assert_eq!(path(Some("a.mp4"), None), root.path().join("complete/videos/a.mp4"));
        assert_eq!(path(None, Some("other/b.mp4")), root.path().join("complete/other/b.mp4"));
        let whole = root.path().join("complete/other/b.mp4");
        assert_eq!(path(Some("b.mp4"), whole.to_str()), whole);
    }

    #[test]
    fn a_missing_video_is_named_with_its_folder() {
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
        assert!(matches!(error, Error::NoVideoName { id } if id == "7"));
    }

    #[test]
    fn the_original_question_is_kept_along_with_the_prompt() {
        let mut before = question(Some("a.mp4"), None);
        before.extra.insert("difficulty".into(), json!(3));
        let after = perceived(&before, "prompt".into());
        assert_eq!(after.question, "prompt");
        assert_eq!(after.extra[ORIGINAL_QUESTION], json!("q"));
        assert_eq!(after.extra["difficulty"], json!(3));
    }

    #[test]
    fn outputs_that_would_overwrite_a_file_are_rejected() {
        let root = folder(&[]);
        let data = root.path().join("train.json");
        std::fs::write(&data, "[]").unwrap();
        let error = read(std::slice::from_ref(&data), None, root.path()).unwrap_err();
        assert!(matches!(error, Error::WouldOverwrite { .. }), "{error}");
        let twice = [data.clone(), data];
        let error = read(&twice, None, &root.path().join("out")).unwrap_err();
        assert!(matches!(error, Error::DuplicateOutput { .. }), "{error}");
    }

    #[test]
    fn a_benchmark_folder_is_written_under_its_files_name() {
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
    fn a_question_that_occurs_twice_is_refused() {
        let root = folder(&[]);
        let data = root.path().join("train.json");
        write(&data, &[question(Some("a.mp4"), None), question(Some("b.mp4"), None)]).unwrap();
        let out = root.path().join("out");
        assert!(read(std::slice::from_ref(&data), None, &out).is_ok());
        write(&data, &[question(Some("a.mp4"), None), question(Some("a.mp4"), None)]).unwrap();
        let error = read(&[data], None, &out).unwrap_err().to_string();
        assert!(error.starts_with("record 2 of `"), "{error}");
    }

    #[test]
    fn a_file_with_captions_is_rejected() {
        let root = folder(&[]);
        let data = root.path().join("train.json");
        let done = perceived(&question(Some("a.mp4"), None), "prompt".into());
        write(&data, &[done]).unwrap();
        let error = read(&[data], None, &root.path().join("out")).unwrap_err();
        assert!(matches!(error, Error::AlreadyCaptioned { id, .. } if id == "7"));
    }
}
