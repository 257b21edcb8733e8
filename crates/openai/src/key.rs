//! The API key, which must never be logged.

use std::fmt;

/// A secret that is sent only to the server: its `Debug` form is redacted, and it has no `Display`
/// form.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(String);

impl ApiKey {
    /// The key in the environment variable `name`; `None` if unset or blank.
    pub fn from_env(name: &str) -> Option<Self> {
        std::env::var(name).ok().and_then(|value| Self::new(&value))
    }

    /// The key `value`, trimmed; `None` if blank.
    pub fn new(value: &str) -> Option<Self> {
        let value = value.trim();
        (!value.is_empty()).then(|| Self(value.to_owned()))
    }

    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }

    /// `text` with the key redacted: servers tend to repeat a key that they reject.
    pub(crate) fn redact(&self, text: &str) -> String {
        text.replace(&self.0, "[key]")
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey([hidden])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_debug_form_redacts_the_key() {
        let key = ApiKey::new(" sk-secret\n").unwrap();
        assert_eq!(key.reveal(), "sk-secret");
        assert_eq!(format!("{key:?}"), "ApiKey([hidden])");
    }

    #[test]
    fn a_blank_key_is_no_key() {
        assert_eq!(ApiKey::new("  "), None);
    }
}
