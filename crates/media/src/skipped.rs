//! Records that are left out as bad ones.

use std::path::PathBuf;

use embodied_r_data::RecordPlace;
use embodied_r_data::data_files::named;

/// A warning that names the records `skipped` (place and reason), which are left out, if there are any.
#[must_use]
pub fn left_out_warning(skipped: &[(RecordPlace, String)]) -> Option<String> {
    let mut files: Vec<PathBuf> =
        skipped.iter().map(|(place, _)| place.path.to_path_buf()).collect();
    files.dedup();
    let files = named(&files);
    let reasons: Vec<String> =
        skipped.iter().map(|(place, reason)| located(place, reason)).collect();
    match reasons.as_slice() {
        [] => None,
        [reason] => Some(format!("left out 1 bad record of {files}: {reason}")),
        reasons => {
            let (count, lines) = (reasons.len(), reasons.join("\n  "));
            Some(format!("left out {count} bad records of {files}:\n  {lines}"))
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
    fn every_record_is_named() {
        let bad = |count: usize| -> Vec<(RecordPlace, String)> {
            let place = |index| RecordPlace { path: PathBuf::from("a.json").into(), index };
            (0..count).map(|index| (place(index), format!("no image {index}"))).collect()
        };
        assert_eq!(left_out_warning(&[]), None);
        assert_eq!(
            left_out_warning(&bad(1)).unwrap(),
            "left out 1 bad record of `a.json`: record 1 of `a.json`: no image 0"
        );
        let text = left_out_warning(&bad(40)).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "left out 40 bad records of `a.json`:");
        assert_eq!((lines.len(), lines[40]), (41, "  record 40 of `a.json`: no image 39"));
    }
}
