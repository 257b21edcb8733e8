//! The key that clients show.

use std::fmt;

/// A secret whose `Debug` form is hidden.
#[derive(Clone)]
pub struct ApiKey(blake3::Hash);

impl ApiKey {
    /// The key `value` without surrounding space; `None` where nothing is left.
    pub fn new(value: &str) -> Option<Self> {
        let value = value.trim();
        (!value.is_empty()).then(|| Self(blake3::hash(value.as_bytes())))
    }

    /// The key in the environment variable `name`; `None` where it is unset or blank.
    pub fn from_env(name: &str) -> Option<Self> {
        std::env::var(name).ok().and_then(|value| Self::new(&value))
    }

    /// Whether `shown` is the key; takes the same time however much of it is right.
    pub(crate) fn is(&self, shown: &str) -> bool {
        // Hashes compare in constant time, and are of one length.
        self.0 == blake3::hash(shown.as_bytes())
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
    fn only_the_whole_key_is_the_key() {
        let key = ApiKey::new(" sk-secret\n").unwrap();
        assert!(key.is("sk-secret"));
        assert!(!key.is("sk-secre") && !key.is("sk-secret2") && !key.is(""));
    }

    #[test]
    fn a_blank_key_is_no_key() {
        assert!(ApiKey::new(" \n").is_none());
    }

    #[test]
    fn the_debug_form_hides_the_key() {
        assert_eq!(format!("{:?}", ApiKey::new("sk-secret").unwrap()), "ApiKey([hidden])");
    }
}
