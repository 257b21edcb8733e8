//! The API key that clients must send.

use std::fmt;

/// The hash of the API key that clients must send; its `Debug` form is redacted too.
#[derive(Clone)]
pub struct ApiKeyHash(blake3::Hash);

impl ApiKeyHash {
    /// The key `value`, trimmed; `None` if it is blank.
    pub fn new(value: &str) -> Option<Self> {
        let value = value.trim();
        (!value.is_empty()).then(|| Self(blake3::hash(value.as_bytes())))
    }

    /// The key in the environment variable `name`; `None` if it is unset or blank.
    pub fn from_env(name: &str) -> Option<Self> {
        std::env::var(name).ok().and_then(|value| Self::new(&value))
    }

    /// Whether `candidate` is the key, compared in constant time.
    pub(crate) fn is(&self, candidate: &str) -> bool {
        // Hashes have equal length and compare in constant time.
        self.0 == blake3::hash(candidate.as_bytes())
    }
}

impl fmt::Debug for ApiKeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKeyHash([hidden])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_key_is_the_key() {
        let key = ApiKeyHash::new(" sk-secret\n").unwrap();
        assert!(key.is("sk-secret"));
        assert!(!key.is("sk-secre") && !key.is("sk-secret2") && !key.is(""));
    }

    #[test]
    fn a_blank_key_is_no_key() {
        assert!(ApiKeyHash::new(" \n").is_none());
    }

    #[test]
    fn the_debug_form_hides_the_key() {
        assert_eq!(format!("{:?}", ApiKeyHash::new("sk-secret").unwrap()), "ApiKeyHash([hidden])");
    }
}
