//! The dataset folder, before or after `preprocess`.

use std::path::Path;

use embodied_r_data::multimodal::ReadOptions;
use embodied_r_data::question::read_questions;
use embodied_r_eval::layout::{AnnotationFiles, recognized};

use super::check::{Check, size};

const AREA: &str = "data";
const LAYOUT: &str = "arrange the directory as `dataset/README.md` shows";
const SPLITS: [&str; 3] = ["train_data.json", "val_data.json", "test_data.json"];

/// Checks `folder`, which must hold a benchmark or the output of `preprocess`.
pub(super) fn checks(folder: &Path) -> Vec<Check> {
    if !folder.is_dir() {
        let found = format!("no directory `{}`", folder.display());
        return vec![Check::missing(AREA, "folder", found, LAYOUT)];
    }
    let mut checks = Vec::new();
    let vsi = folder.join("VSI-Bench");
    let urban = folder.join("UrbanVideo-Bench");
    let complete = folder.join("complete");
    if vsi.is_dir() {
        checks.push(questions(&vsi, "VSI-Bench", "test-00000-of-00001.parquet"));
        checks.push(archives(&vsi));
    }
    if urban.is_dir() {
        checks.push(questions(&urban, "UrbanVideo-Bench", "MCQ.parquet"));
        checks.push(videos(&urban.join("videos"), "UrbanVideo-Bench videos"));
    }
    if complete.is_dir() {
        checks.extend(splits(&complete));
        checks.push(videos(&complete.join("videos"), "complete/videos"));
    }
    if checks.is_empty() {
        checks.extend(own_layout(folder));
    }
    if checks.is_empty() {
        let found = "neither `VSI-Bench` nor `UrbanVideo-Bench` nor `complete`, nor the files of a benchmark \
                     (`embodied-r benchmarks`)";
        checks.push(Check::missing(AREA, "folder", found, LAYOUT));
    }
    checks
}

/// Checks a benchmark in its own layout: its questions, and their images and videos; none if it is no known one.
fn own_layout(folder: &Path) -> Vec<Check> {
    let Some((name, layout)) = recognized(folder).and_then(|it| Some((it.name, it.layout?))) else {
        return Vec::new();
    };
    let questions = format!("{name} questions");
    let options = ReadOptions { skip_bad_records: true, ..ReadOptions::default() };
    let prompt = layout.prompts.first().copied().unwrap_or_default();
    let read = AnnotationFiles::find(layout, folder)
        .and_then(|files| files.read(layout, prompt, &options, usize::MAX));
    let set = match read {
        Ok(set) => set,
        Err(error) => {
            let advice = format!("download `{}` again", layout.source);
            return vec![Check::missing(AREA, &questions, error.to_string(), &advice)];
        }
    };
    let (found, missing) = (set.samples.len(), set.skipped.len());
    let media = format!("{name} images and videos");
    let of_media = match set.skipped.first() {
        None => Check::ok(AREA, &media, format!("all of {found} questions")),
        Some((place, reason)) => {
            let what =
                format!("missing of {missing} of {} questions; {place}: {reason}", found + missing);
            let advice = format!(
                "unpack the files of `{}` there; those questions count as wrong",
                layout.source
            );
            Check::warning(AREA, &media, what, &advice)
        }
    };
    vec![Check::ok(AREA, &questions, (found + missing).to_string()), of_media]
}

fn questions(benchmark: &Path, name: &str, file: &str) -> Check {
    let name = format!("{name} questions");
    match std::fs::metadata(benchmark.join(file)) {
        Ok(file_of) if file_of.is_file() => {
            Check::ok(AREA, &name, format!("`{file}`, {}", size(file_of.len())))
        }
        _ => Check::missing(AREA, &name, format!("no `{file}`"), LAYOUT),
    }
}

fn archives(vsi: &Path) -> Check {
    let name = "VSI-Bench videos";
    match files_ending_in(vsi, &["zip"]) {
        0 => Check::warning(
            AREA,
            name,
            "no zip files",
            "questions are kept, but missing videos cannot be captioned",
        ),
        files => Check::ok(AREA, name, format!("zip files: {files}")),
    }
}

fn videos(folder: &Path, name: &str) -> Check {
    match files_ending_in(folder, &["mp4", "mkv", "mov", "avi", "webm"]) {
        0 => Check::warning(
            AREA,
            name,
            "no videos",
            "questions are kept, but missing videos cannot be captioned",
        ),
        files => Check::ok(AREA, name, format!("videos: {files}")),
    }
}

fn splits(complete: &Path) -> Vec<Check> {
    let check = |file: &&str| {
        let name = format!("complete/{file}");
        match read_questions(&complete.join(file)) {
            Ok(questions) => Check::ok(AREA, &name, format!("questions: {}", questions.len())),
            Err(error) => {
                Check::missing(AREA, &name, error.to_string(), "run `embodied-r preprocess` again")
            }
        }
    };
    SPLITS.iter().map(check).collect()
}

/// Number of files directly in `folder` with one of the extensions, case-insensitive.
fn files_ending_in(folder: &Path, endings: &[&str]) -> usize {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return 0;
    };
    let matches = |path: &Path| {
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or("");
        endings.iter().any(|wanted| wanted.eq_ignore_ascii_case(ending))
    };
    entries.flatten().filter(|entry| matches(&entry.path())).count()
}

#[cfg(test)]
mod tests {
    use super::super::check::State;
    use super::*;

    fn states(folder: &Path) -> Vec<(String, State)> {
        checks(folder).into_iter().map(|check| (check.name, check.state)).collect()
    }

    #[test]
    fn one_benchmark_alone_is_enough() {
        let folder = tempfile::tempdir().unwrap();
        let videos = folder.path().join("UrbanVideo-Bench/videos");
        std::fs::create_dir_all(&videos).unwrap();
        std::fs::write(videos.join("a.MP4"), "").unwrap();
        std::fs::write(folder.path().join("UrbanVideo-Bench/MCQ.parquet"), "").unwrap();
        let states = states(folder.path());
        assert_eq!(states.len(), 2);
        assert!(states.iter().all(|(_, state)| *state == State::Ok), "{states:?}");
    }

    #[test]
    fn a_benchmark_without_its_questions_is_incomplete_and_without_its_videos_a_warning() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("VSI-Bench")).unwrap();
        assert_eq!(
            states(folder.path()),
            [
                ("VSI-Bench questions".to_owned(), State::Missing),
                ("VSI-Bench videos".to_owned(), State::Warning)
            ]
        );
    }

    #[test]
    fn a_folder_without_a_dataset_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(states(folder.path()), [("folder".to_owned(), State::Missing)]);
    }

    #[test]
    fn an_invalid_split_is_missing_and_the_questions_of_a_valid_one_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        let complete = folder.path().join("complete");
        std::fs::create_dir(&complete).unwrap();
        std::fs::write(complete.join("train_data.json"), "[").unwrap();
        std::fs::write(
            complete.join("val_data.json"),
            r#"[{"Question_id": 1, "question": "Question: x"}]"#,
        )
        .unwrap();
        let checks = checks(folder.path());
        assert_eq!(checks[0].state, State::Missing);
        assert_eq!(checks[1].found, "questions: 1");
        assert_eq!(checks[2].state, State::Missing);
    }
}
