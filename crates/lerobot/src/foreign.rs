//! Folders with demonstrations in other formats, which are refused with the name of a converter.

use std::fs;
use std::path::Path;

use crate::error::{Error, Result};

/// Entries of a folder that are looked at.
const MAX_ENTRIES: usize = 1000;

/// How deep the files of a data set may lie below the folder that was named.
const MAX_DEPTH: usize = 5;

/// Refuses `dir` if it has demonstrations in a known format other than LeRobot's. No file is opened.
///
/// # Errors
/// [`Error::OtherFormat`].
pub(crate) fn refuse(dir: &Path) -> Result<()> {
    match format_of(dir, MAX_DEPTH) {
        Some((format, advice)) => Err(Error::OtherFormat { path: dir.into(), format, advice }),
        None => Ok(()),
    }
}

fn format_of(dir: &Path, depth: usize) -> Option<(&'static str, &'static str)> {
    let entries = fs::read_dir(dir).ok()?.take(MAX_ENTRIES).filter_map(Result::ok);
    let mut folders = Vec::new();
    for entry in entries {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name == "dataset_info.json" || name.contains(".tfrecord") {
            return Some((
                "RLDS",
                "convert it with `openx2lerobot` of Any4LeRobot, or with LeRobot's \
                 `examples/port_datasets` as a pattern",
            ));
        }
        if name == "low_dim_obs.pkl" {
            return Some((
                "RLBench",
                "its pickle files can run code when they are loaded; load them in RLBench, and write the \
                 demonstrations with LeRobot's `LeRobotDataset.create` and `add_frame`",
            ));
        }
        if name == "meta_data" && entry.path().join("info.json").is_file() {
            return Some((
                "LeRobot v1",
                "convert it with LeRobot 0.3's `python -m lerobot.datasets.v2.convert_dataset_v1_to_v2`",
            ));
        }
        // Links are not followed: they may form a loop.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            folders.push(entry.path());
        }
    }
    folders.sort();
    let deeper = depth.checked_sub(1)?;
    // The episodes of a data set are alike: a few folders say what it is.
    folders.iter().take(4).find_map(|folder| format_of(folder, deeper))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(file: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "not read").unwrap();
        refuse(folder.path()).unwrap_err().to_string()
    }

    #[test]
    fn rlds_is_refused_with_its_converter() {
        for file in ["1.0.0/dataset_info.json", "bridge-train.tfrecord-00000-of-00010"] {
            let error = refusal(file);
            assert!(error.contains("RLDS") && error.contains("`openx2lerobot`"), "{error}");
        }
    }

    #[test]
    fn pickles_of_rlbench_are_refused() {
        for file in [
            "low_dim_obs.pkl",
            "variation0/episodes/episode0/low_dim_obs.pkl",
            "push_button/variation0/episodes/episode0/low_dim_obs.pkl",
        ] {
            let error = refusal(file);
            assert!(error.contains("RLBench") && error.contains("pickle"), "{error}");
            assert!(error.contains("`LeRobotDataset.create`"), "{error}");
        }
    }

    #[test]
    fn version_1_is_refused_with_its_converter() {
        assert!(refusal("meta_data/info.json").contains("convert_dataset_v1_to_v2"));
    }

    #[test]
    fn a_folder_of_other_files_is_not_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.txt"), "a").unwrap();
        assert!(refuse(folder.path()).is_ok());
    }
}
