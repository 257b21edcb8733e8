//! `embodied-r eval --folds`: the inputs of every fold, and checks that they are the folds of one cross-validation.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use embodied_r_data::Question;
use embodied_r_data::data_files::named;
use embodied_r_data::multimodal::SampleSet;
use embodied_r_data::preprocess::strategy_of;
use embodied_r_data::question_set::QuestionSet;
use embodied_r_data::split::SplitStrategy;

use crate::args::eval::Source;
use crate::asked::Asked;
use crate::exit::{self, Usage};

/// Stands for the number of the fold in paths and model names.
const PLACEHOLDER: &str = "{fold}";

/// The source of each fold; the source itself without `folds`.
///
/// # Errors
/// The placeholder is missing, or given without `folds`; a fold has no file, or there is a file beyond the last fold.
pub(super) fn sources(source: &Source, folds: Option<usize>) -> anyhow::Result<Vec<Source>> {
    let inputs = inputs(source);
    let Some(count) = folds else {
        let model = source.reasoner.model.model.as_deref().unwrap_or_default();
        let files = inputs.iter().map(|(option, path)| (*option, path.to_string_lossy()));
        for (option, value) in files.chain([("--model", model.into())]) {
            if value.contains(PLACEHOLDER) {
                let what = format!(
                    "`{option} {value}` contains `{PLACEHOLDER}`, so give the number of folds with `--folds`"
                );
                return Err(Usage(what).into());
            }
        }
        return Ok(vec![source.clone()]);
    };
    inputs.iter().try_for_each(|(option, input)| check_files(option, input, count))?;
    Ok((0..count).map(|fold| of_fold(source, fold)).collect())
}

/// Checks that the files `input` of `option` are those of `count` folds.
fn check_files(option: &str, input: &Path, count: usize) -> anyhow::Result<()> {
    if !input.to_string_lossy().contains(PLACEHOLDER) {
        let what = format!(
            "`{option} {}` is the same file for every fold: write `{PLACEHOLDER}` where its path has the number of the \
             fold, such as `{option} 'fold-{PLACEHOLDER}/{}'`",
            input.display(),
            input.file_name().unwrap_or_default().display()
        );
        return Err(Usage(what).into());
    }
    for fold in 0..count {
        let path = replaced(input, fold);
        if !path.exists() {
            let origin = match option {
                "--data" => {
                    format!("`embodied-r preprocess --folds {count} --fold {fold}` makes it")
                }
                _ => "`embodied-r infer` writes the predictions of a fold".to_owned(),
            };
            return Err(exit::hint(
                format!("fold {fold} of {count} is missing: `{}` does not exist", path.display()),
                format!("{origin}; folds are counted from 0"),
            ));
        }
    }
    let beyond = replaced(input, count);
    if beyond.exists() {
        let what = format!(
            "`{}` exists, but with `--folds {count}` the last fold is {}; give the number of all folds",
            beyond.display(),
            count - 1
        );
        return Err(Usage(what).into());
    }
    Ok(())
}

/// The options of the files of each fold, and their values.
fn inputs(source: &Source) -> Vec<(&'static str, &Path)> {
    let predictions = source.predictions.iter().map(|path| ("--predictions", path.as_path()));
    let data = source.data.iter().map(|path| ("--data", path.as_path()));
    predictions.chain(data).collect()
}

fn of_fold(source: &Source, fold: usize) -> Source {
    let mut source = source.clone();
    for path in source.predictions.iter_mut().chain(&mut source.data) {
        *path = replaced(path, fold);
    }
    if let Some(model) = &mut source.reasoner.model.model {
        *model = model.replace(PLACEHOLDER, &fold.to_string());
    }
    source
}

fn replaced(path: &Path, fold: usize) -> PathBuf {
    path.to_string_lossy().replace(PLACEHOLDER, &fold.to_string()).into()
}

/// Checks that `sets` are the test splits of the folds 0, 1 and so on of one cross-validation.
///
/// # Errors
/// `preprocess` made a file for another fold or number of folds; a scene or a question is in two folds.
pub(super) fn check(sets: &[QuestionSet]) -> Result<(), Usage> {
    let files: Vec<&[PathBuf]> = sets.iter().map(|set| set.files.as_slice()).collect();
    check_splits(&files)?;
    let of_fold = |(fold, set): (usize, &QuestionSet)| {
        let key = |question| Key::new(question, || media_of(question));
        set.questions.iter().map(key).map(|key| (fold, key)).collect::<Vec<_>>()
    };
    check_keys(&files, sets.iter().enumerate().flat_map(of_fold))
}

/// As [`check`], but for questions without a scene, which differ by images that are not decoded yet
/// ([`check_images`]).
///
/// # Errors
/// As [`check`].
pub(super) fn check_scenes(sets: &[SampleSet]) -> Result<(), Usage> {
    let files: Vec<&[PathBuf]> = sets.iter().map(|set| set.files.as_slice()).collect();
    check_splits(&files)?;
    let of_fold = |(fold, set): (usize, &SampleSet)| {
        let with_scene = set.questions().filter(|question| question.scene_name.is_some());
        let key = |question| (fold, Key::new(question, String::new));
        with_scene.map(key).collect::<Vec<_>>()
    };
    check_keys(&files, sets.iter().enumerate().flat_map(of_fold))
}

/// Checks that no question without a scene is in two folds: one with the same text and images. `files` are those of
/// each fold.
///
/// # Errors
/// A question is.
pub(super) fn check_images(files: &[Vec<PathBuf>], folds: &[Asked]) -> Result<(), Usage> {
    let files: Vec<&[PathBuf]> = files.iter().map(Vec::as_slice).collect();
    let of_fold = |(fold, asked): (usize, &Asked)| {
        let indexed = asked.questions.iter().enumerate();
        let key = |(index, question)| (fold, Key::new(question, || asked.key(index).into_owned()));
        indexed.map(key).collect::<Vec<_>>()
    };
    check_keys(&files, folds.iter().enumerate().flat_map(of_fold))
}

/// Checks that `preprocess` made none of the files for another fold or number of folds.
fn check_splits(files: &[&[PathBuf]]) -> Result<(), Usage> {
    let count = files.len();
    let of_folds = files.iter().enumerate();
    for (fold, path) in of_folds.flat_map(|(fold, of)| of.iter().map(move |path| (fold, path))) {
        let found = match strategy_of(path) {
            Some(SplitStrategy::Fold { fold: f, folds: k }) if (f, k) != (fold, count) => {
                format!("fold {f} of {k}")
            }
            Some(SplitStrategy::Ratios) => "a single split without folds".to_owned(),
            _ => continue,
        };
        return Err(Usage(format!(
            "`{}` is {found} according to the `summary.json` beside it, not fold {fold} of {count}",
            path.display()
        )));
    }
    Ok(())
}

/// Checks that no key is in two folds.
fn check_keys(files: &[&[PathBuf]], keys: impl Iterator<Item = (usize, Key)>) -> Result<(), Usage> {
    let mut folds: HashMap<Key, usize> = HashMap::new();
    for (fold, key) in keys {
        match folds.get(&key) {
            Some(other) if *other != fold => {
                return Err(Usage(format!(
                    "{} is in {} and in {}: the folds of a cross-validation have no scene in common",
                    key.shown,
                    named(files[*other]),
                    named(files[fold])
                )));
            }
            Some(_) => {}
            None => {
                folds.insert(key, fold);
            }
        }
    }
    Ok(())
}

/// What is in one fold alone: the scene of the question, else the question.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    /// For the error.
    shown: String,
    /// What else tells a question from others.
    media: String,
}

impl Key {
    /// The key of a question; `media` is what identifies its images and videos.
    fn new(question: &Question, media: impl FnOnce() -> String) -> Self {
        if let Some(scene) = &question.scene_name {
            return Self { shown: format!("scene `{scene}`"), media: String::new() };
        }
        let video = question.video_id.as_deref().map(|video| format!(" about `{video}`"));
        let text = question.without_captions().unwrap_or(&question.question);
        let shown = format!("question `{}`{} (`{text}`)", question.id(), video.unwrap_or_default());
        Self { shown, media: media() }
    }
}

/// The images and videos of a record by their names.
fn media_of(question: &Question) -> String {
    let listed = |field| question.extra.get(field).map(ToString::to_string).unwrap_or_default();
    let video = question.videos.as_deref().unwrap_or_default();
    format!("{}\n{}\n{video}", listed("images"), listed("videos"))
}

#[cfg(test)]
mod tests {
    use embodied_r_data::question_set::read_question_set;
    use serde_json::json;

    use super::*;

    fn sets(folds: &[serde_json::Value]) -> (tempfile::TempDir, Vec<QuestionSet>) {
        let dir = tempfile::tempdir().unwrap();
        let read = |(fold, questions): (usize, &serde_json::Value)| {
            let path = dir.path().join(format!("{fold}/test_data.json"));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, questions.to_string()).unwrap();
            read_question_set(&path, None).unwrap()
        };
        let sets = folds.iter().enumerate().map(read).collect();
        (dir, sets)
    }

    #[test]
    fn a_scene_is_in_one_fold_only() {
        let of =
            |id: u32, scene: &str| json!({"Question_id": id, "question": "q", "scene_name": scene});
        let (_dir, good) = sets(&[json!([of(1, "a"), of(2, "a")]), json!([of(1, "b")])]);
        assert!(check(&good).is_ok());
        let (_dir, bad) = sets(&[json!([of(1, "a")]), json!([of(2, "b"), of(3, "a")])]);
        let error = check(&bad).unwrap_err().0;
        assert!(
            error.starts_with("scene `a` is in `") && error.contains("1/test_data.json"),
            "{error}"
        );
    }

    #[test]
    fn a_question_without_a_scene_is_in_one_fold_only() {
        let of = |text: &str| json!({"Question_id": 1, "question": text});
        let (_dir, good) = sets(&[json!([of("a")]), json!([of("b")])]);
        assert!(check(&good).is_ok());
        let (_dir, bad) = sets(&[json!([of("a")]), json!([of("a")])]);
        assert!(check(&bad).unwrap_err().0.starts_with("question `1` (`a`) is in"));
    }

    #[test]
    fn equal_texts_about_different_images_are_different_questions() {
        let of = |media: serde_json::Value| {
            let mut record = json!({"Question_id": 1, "question": "a"});
            record.as_object_mut().unwrap().extend(media.as_object().unwrap().clone());
            json!([record])
        };
        let (one, two) = (json!({"images": ["1.png"]}), json!({"images": ["2.png"]}));
        for (first, second) in [
            (one.clone(), two.clone()),
            (one.clone(), json!({})),
            (json!({"videos": "1.mp4"}), json!({"videos": "2.mp4"})),
            (json!({"videos": ["1.mp4"]}), json!({"videos": ["2.mp4"]})),
        ] {
            let (_dir, good) = sets(&[of(first), of(second)]);
            assert!(check(&good).is_ok());
        }
        let (_dir, bad) = sets(&[of(one.clone()), of(one)]);
        assert!(check(&bad).unwrap_err().0.starts_with("question `1` (`a`) is in"));
    }

    #[test]
    fn another_fold_or_number_of_folds_in_the_summary_is_refused() {
        let of = |id: u32| json!([{"Question_id": id, "question": "q"}]);
        let (dir, sets) = sets(&[of(1), of(2)]);
        let write = |fold: usize, plan: serde_json::Value| {
            let summary = json!({"options": {"plan": plan}}).to_string();
            std::fs::write(dir.path().join(format!("{fold}/summary.json")), summary).unwrap();
        };
        let plan = |fold: usize, folds: usize| json!({"fold": {"fold": fold, "folds": folds}});
        write(0, plan(0, 2));
        for (other, found) in [
            (plan(0, 2), "is fold 0 of 2 "),
            (plan(1, 5), "is fold 1 of 5 "),
            (json!("shares"), "is a single split without folds "),
        ] {
            write(1, other);
            let error = check(&sets).unwrap_err().0;
            assert!(error.contains(found) && error.contains("not fold 1 of 2"), "{error}");
        }
        write(1, plan(1, 2));
        assert!(check(&sets).is_ok());
    }
}
