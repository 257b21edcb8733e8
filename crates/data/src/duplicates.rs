//! Finds questions that occur twice in a file.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;

use crate::error::{Error, Result};
use crate::question::Question;
use crate::question_key::QuestionKey;
use crate::record::RecordPlace;

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

/// Checks that no question occurs twice; `places` says where the record of each is.
///
/// # Errors
/// [`Error::DuplicateQuestion`] with the two records of the first duplicate.
pub(crate) fn reject_duplicates<'a>(
    places: &[RecordPlace],
    questions: impl Iterator<Item = &'a Question>,
) -> Result<()> {
    let keys: Vec<QuestionKey> = questions.map(Question::key).collect();
    let Some((first, second)) = find_duplicate(&keys) else { return Ok(()) };
    let key = keys[second].clone();
    let (first, second) = (&places[first], &places[second]);
    let first = match first.path == second.path {
        true => format!("record {}", first.index + 1),
        false => first.to_string(),
    };
    Err(Error::DuplicateQuestion { first, second: second.to_string(), key })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;

    fn question(video: Option<&str>, id: serde_json::Value) -> Question {
        serde_json::from_value(json!({"Question_id": id, "video_id": video, "question": "q"}))
            .unwrap()
    }

    fn check(questions: &[Question]) -> Result<(), String> {
        let of = |(index, file): (usize, &str)| RecordPlace { path: Path::new(file).into(), index };
        // The fourth question is in another file.
        let places: Vec<RecordPlace> =
            [(0, "q.json"), (1, "q.json"), (2, "q.json"), (0, "r.json")].map(of).into();
        reject_duplicates(&places, questions.iter()).map_err(|error| error.to_string())
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
        let elsewhere: Vec<Question> = [1, 2, 3, 1].map(|id| question(None, json!(id))).into();
        let error = check(&elsewhere).unwrap_err();
        assert!(
            error.starts_with("record 1 of `r.json` repeats record 1 of `q.json`: "),
            "{error}"
        );
        let error = check(&[question(None, json!(7)), question(None, json!(7))]).unwrap_err();
        assert!(error.contains("no `video_id`, `Question_id` `7`"), "{error}");
    }
}
