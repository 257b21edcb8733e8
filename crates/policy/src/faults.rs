//! Lists of faults as one message.

/// Joins faults into one message.
pub(crate) fn join_faults<T: std::fmt::Display>(faults: &[T]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// As [`join_faults`], but only the first `most`: a wrong setting can cause hundreds of faults.
pub(crate) fn join_first_faults<T: std::fmt::Display>(faults: &[T], most: usize) -> String {
    let shown = &faults[..faults.len().min(most)];
    let text = join_faults(shown);
    match faults.len() - shown.len() {
        0 => text,
        more => format!("{text}; and {more} more"),
    }
}
