//! Reasoning, as lmms-eval removes it from outputs since March 2026 (`--reasoning_tags`).

use std::borrow::Cow;

use super::python::strip;

/// Pairs of an opening and a closing tag, in their order; case counts.
const TAGS: [(&str, &str); 2] = [("<think>", "</think>"), ("<analysis>", "</analysis>")];

/// The output without reasoning and outer white space. While both tags are there, the text from the first opening one to the
/// first closing one behind it goes; then, if only closing ones are left, all up to the last. An unclosed opening tag
/// changes nothing.
pub(crate) fn without_reasoning(text: &str) -> Cow<'_, str> {
    let mut rest = Cow::Borrowed(text);
    for (open, close) in TAGS {
        while let (Some(start), true) = (rest.find(open), rest.contains(close)) {
            let Some(length) = rest[start..].find(close) else { break };
            let after = &rest[start + length + close.len()..];
            rest = Cow::Owned(format!("{}{after}", &rest[..start]));
        }
        if !rest.contains(open)
            && let Some(last) = rest.rfind(close)
        {
            rest = Cow::Owned(rest[last + close.len()..].to_owned());
        }
    }
    match rest {
        Cow::Borrowed(text) => Cow::Borrowed(strip(text)),
        Cow::Owned(text) => Cow::Owned(strip(&text).to_owned()),
    }
}
