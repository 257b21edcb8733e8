//! The API key that clients must send.

use std::fmt;

use crate::error::Error;

/// The length limit of a key, well within that of a header.
const MAX_BYTES: usize = 8192;

/// The hash of the API key that clients must send; its `Debug` form is redacted too.
#[derive(Clone)]
pub struct ApiKeyHash(blake3::Hash);

impl ApiKeyHash {
    /// The key `value`, trimmed.
    ///
    /// # Errors
    /// What is wrong with a key that no client could send in a header.
    fn new(value: &str) -> Result<Self, &'static str> {
        let value = value.trim();
        let is_sendable = |byte: u8| matches!(byte, b' '..=b'~');
        match value {
            "" => Err("is blank; unset it to serve without a key"),
            _ if value.len() > MAX_BYTES => Err("is too long for a header"),
            _ if !value.bytes().all(is_sendable) => {
                Err("has a character that no header can carry; use printable ASCII characters")
            }
            _ => Ok(Self(blake3::hash(value.as_bytes()))),
        }
    }

    /// The key in the environment variable `name`; `None` if it is unset or empty.
    ///
    /// # Errors
    /// [`Error::ApiKey`] if no client could send it.
    pub fn from_env(name: &'static str) -> Result<Option<Self>, Error> {
        let value = std::env::var_os(name).filter(|value| !value.is_empty());
        // Undecodable bytes become a character that is refused.
        let key = value.map(|value| Self::new(&value.to_string_lossy()));
        key.transpose().map_err(|fault| Error::ApiKey { name, fault })
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
    fn a_key_that_no_header_can_carry_is_refused() {
        for key in [" \n", "schlüssel", "a\u{7}b", "a\nb", "\u{fffd}", &"a".repeat(9000)] {
            assert!(ApiKeyHash::new(key).is_err(), "{key:?}");
        }
        assert!(ApiKeyHash::new("two words~!").is_ok());
    }

    #[test]
    fn the_debug_form_hides_the_key() {
        assert_eq!(format!("{:?}", ApiKeyHash::new("sk-secret").unwrap()), "ApiKeyHash([hidden])");
    }
}
