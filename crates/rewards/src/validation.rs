//! Errors in the tables of a settings file.

/// All errors in a list of tables of a settings file, one message each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct ValidationErrors(pub Vec<String>);

/// The message for a name that is not in `known`, with a suggestion if one is close.
pub(crate) fn unknown(path: &str, name: &str, what: &str, known: &[&str]) -> String {
    format!("`{path}.{name}`: unknown {what}; {}", suggestion(name, known))
}

/// The closest match of `name` in `known`, or all of `known`.
pub(crate) fn suggestion(name: &str, known: &[&str]) -> String {
    let near = known
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .min()
        .filter(|&(distance, candidate)| distance <= candidate.len() / 3);
    match near {
        Some((_, candidate)) => format!("did you mean `{candidate}`?"),
        None => format!("available: {}", known.join(", ")),
    }
}
