//! Names of settings that are close to what was written.

/// The known name with the smallest edit distance to `name`, if it is close enough to be a typo.
pub(super) fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let distance = |known: &str| strsim::damerau_levenshtein(&name.to_lowercase(), known);
    let nearest = known.iter().copied().min_by_key(|known| distance(known))?;
    (distance(nearest) <= 1 + nearest.len() / 4).then_some(nearest)
}
