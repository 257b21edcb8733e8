//! Records that are left out as bad ones.

use std::path::PathBuf;

use embodied_r_data::RecordPlace;
use embodied_r_data::data_files::named;

/// Records that a warning names; of more it says the number.
const MOST_NAMED: usize = 20;

/// A warning that the records `skipped` (place and reason) are left out, if there are any.
#[must_use]
pub fn left_out_warning(skipped: &[(RecordPlace, String)]) -> Option<String> {
    let mut files: Vec<PathBuf> =
        skipped.iter().map(|(place, _)| place.path.to_path_buf()).collect();
    files.dedup();
    let files = named(&files);
    let reasons = skipped.iter().map(|(place, reason)| located(place, reason));
    match skipped.len() {
        0 => None,
        1 => Some(format!("left out 1 bad record of {files}: {}", reasons.collect::<String>())),
        count => {
            let mut lines: Vec<String> = reasons.take(MOST_NAMED).collect();
            if count > MOST_NAMED {
                lines.push(format!("and {} more", count - MOST_NAMED));
            }
            Some(format!("left out {count} bad records of {files}:\n  {}", lines.join("\n  ")))
        }
    }
}

/// `reason` with the record that it is about, unless it names it already.
pub(crate) fn located(place: &RecordPlace, reason: &str) -> String {
    let record = place.to_string();
    if reason.contains(&record) { reason.to_owned() } else { format!("{record}: {reason}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_records_are_named_and_the_others_counted() {
        let bad = |count: usize| -> Vec<(RecordPlace, String)> {
            let place = |index| RecordPlace { path: PathBuf::from("a.json").into(), index };
            (0..count).map(|index| (place(index), format!("no image {index}"))).collect()
        };
        assert_eq!(left_out_warning(&[]), None);
        assert_eq!(
            left_out_warning(&bad(1)).unwrap(),
            "left out 1 bad record of `a.json`: record 1 of `a.json`: no image 0"
        );
        let text = left_out_warning(&bad(22)).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "left out 22 bad records of `a.json`:");
        assert_eq!(lines[20], "  record 20 of `a.json`: no image 19");
        assert_eq!(lines[21..], ["  and 2 more"]);
    }
}
