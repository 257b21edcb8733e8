//! Records that are left out as bad ones.

use std::path::PathBuf;

use embodied_r_data::RecordPlace;
use embodied_r_data::data_files::named;

/// A warning that the records `skipped` (place and reason) are left out, if there are any.
#[must_use]
pub fn left_out_warning(skipped: &[(RecordPlace, String)]) -> Option<String> {
    let (place, reason) = skipped.first()?;
    let mut files: Vec<PathBuf> =
        skipped.iter().map(|(place, _)| place.path.to_path_buf()).collect();
    files.dedup();
    let (reason, files) = (located(place, reason), named(&files));
    Some(match skipped.len() {
        1 => format!("left out 1 bad record of {files}: {reason}"),
        count => format!("left out {count} bad records of {files}, for example: {reason}"),
    })
}

/// `reason` with the record that it is about, unless it names it already.
pub(crate) fn located(place: &RecordPlace, reason: &str) -> String {
    let record = place.to_string();
    if reason.contains(&record) { reason.to_owned() } else { format!("{record}: {reason}") }
}
