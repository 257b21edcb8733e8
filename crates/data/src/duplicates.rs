//! Finds questions that occur twice in a file.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::path::Path;

use crate::error::{Error, Result};
use crate::question::Question;

/// The positions of the first key that occurs twice: its first occurrence and the repeated one.
pub fn find_duplicate<K: Eq + Hash>(keys: impl IntoIterator<Item = K>) -> Option<(usize, usize)> {
    let mut seen = HashMap::new();
    for (position, key) in keys.into_iter().enumerate() {
        match seen.entry(key) {
            Entry::Occupied(first) => return Some((*first.get(), position)),
            Entry::Vacant(new) => {
                new.insert(position);
            }
        }
    }
    None
}

/// Checks that no question of the file at `path` occurs twice. `questions` are all records of the file,
/// in order.
///
/// # Errors
/// [`Error::DuplicateQuestion`] with the two records of the first duplicate.
pub fn reject_duplicates(path: &Path, questions: &[Question]) -> Result<()> {
    match find_duplicate(questions.iter().map(Question::key)) {
        None => Ok(()),
        Some((first, second)) => Err(Error::DuplicateQuestion {
            path: path.into(),
            unit: "record",
            first: first + 1,
            second: second + 1,
            key: questions[second].key(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn question(video: Option<&str>, id: serde_json::Value) -> Question {
        serde_json::from_value(json!({"Question_id": id, "video_id": video, "question": "q"}))
            .unwrap()
    }

    fn check(questions: &[Question]) -> Result<(), String> {
        reject_duplicates(Path::new("q.json"), questions).map_err(|error| error.to_string())
    }

    #[test]
    fn one_id_of_two_videos_is_no_duplicate() {
        let one = question(Some("a.mp4"), json!(7));
        assert_eq!(
            check(&[one, question(Some("b.mp4"), json!(7)), question(None, json!(7))]),
            Ok(())
        );
    }

    #[test]
    fn a_duplicate_is_reported_with_both_records() {
        let other = question(Some("b.mp4"), json!(7));
        let twice = [question(Some("a.mp4"), json!(7)), other, question(Some("a.mp4"), json!("7"))];
        assert_eq!(
            check(&twice).unwrap_err(),
            "record 3 of `q.json` repeats record 1: `video_id` `a.mp4`, `Question_id` `7`; remove \
             one of them, or give it another `Question_id`"
        );
        let error = check(&[question(None, json!(7)), question(None, json!(7))]).unwrap_err();
        assert!(error.contains("no `video_id`, `Question_id` `7`"), "{error}");
    }
}
