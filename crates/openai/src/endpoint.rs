//! Endpoints: URLs and weights.

use reqwest::Url;

use crate::error::{Error, Result};

/// The fragment (after `#`) of a base URL; fragments are never sent to a server.
const WEIGHT: &str = "weight=";

/// One URL that requests are sent to.
#[derive(Debug)]
pub(crate) struct Endpoint {
    /// The full URL.
    pub(crate) url: Url,
    /// The URL for messages: without credentials and query, which may hold secrets.
    pub(crate) name: String,
    /// Its share of the requests, relative to the other endpoints' weights; above 0.
    pub(crate) weight: f64,
}

impl Endpoint {
    /// `url` without its weight, otherwise unchanged.
    pub(crate) fn exact(url: &str) -> Result<Self> {
        let (url, weight) = parse(url)?;
        Ok(Self::of(url, weight))
    }

    /// `base` with `/chat/completions` appended to its path.
    pub(crate) fn chat(base: &str) -> Result<Self> {
        let (mut url, weight) = parse(base)?;
        let path = url.path().trim_end_matches('/');
        let path = path.strip_suffix("/chat/completions").unwrap_or(path);
        let path = format!("{path}/chat/completions");
        url.set_path(&path);
        Ok(Self::of(url, weight))
    }

    fn of(url: Url, weight: f64) -> Self {
        let name = without_secrets(url.as_str());
        Self { url, name, weight }
    }
}

/// Checks that `url` can be a base URL.
///
/// # Errors
/// [`Error::InvalidBaseUrl`].
pub fn check_base_url(url: &str) -> Result<()> {
    parse(url).map(drop)
}

/// The URL and its weight, by default 1.
fn parse(text: &str) -> Result<(Url, f64)> {
    let text = text.trim();
    let bad = |reason: String| Error::InvalidBaseUrl { url: without_secrets(text), reason };
    let mut url = Url::parse(text).map_err(|error| bad(error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(bad("it does not start with `http://` or `https://`".into()));
    }
    let weight = match url.fragment() {
        None => 1.0,
        Some(fragment) => weight(fragment).map_err(bad)?,
    };
    url.set_fragment(None);
    Ok((url, weight))
}

fn weight(fragment: &str) -> Result<f64, String> {
    let number = fragment.strip_prefix(WEIGHT).and_then(|weight| weight.parse::<f64>().ok());
    match number {
        Some(weight) if weight > 0.0 && weight.is_finite() => Ok(weight),
        _ => Err(format!("only `{WEIGHT}` and a number above 0 may follow `#`")),
    }
}

/// A URL without user, password, query and fragment; works on invalid URLs too.
fn without_secrets(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    match url.split_once("://") {
        Some((scheme, rest)) => {
            let authority = rest.find('/').unwrap_or(rest.len());
            let host = rest[..authority].rfind('@').map_or(0, |at| at + 1);
            format!("{scheme}://{}", &rest[host..])
        }
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chat_path_is_appended_once() {
        for base in ["http://h:8000/v1", "http://h:8000/v1/", "http://h:8000/v1/chat/completions"] {
            let endpoint = Endpoint::chat(base).unwrap();
            assert_eq!(endpoint.url.as_str(), "http://h:8000/v1/chat/completions");
        }
    }

    #[test]
    fn an_exact_url_is_not_changed() {
        let endpoint = Endpoint::exact(" http://h:8000/score?model=a ").unwrap();
        assert_eq!(endpoint.url.as_str(), "http://h:8000/score?model=a");
        assert_eq!(endpoint.name, "http://h:8000/score");
    }

    #[test]
    fn a_query_is_sent_but_not_shown() {
        let endpoint = Endpoint::chat("https://me:pass@h/v1?api-version=1&key=secret").unwrap();
        assert_eq!(
            endpoint.url.as_str(),
            "https://me:pass@h/v1/chat/completions?api-version=1&key=secret"
        );
        assert_eq!(endpoint.name, "https://h/v1/chat/completions");
    }

    #[test]
    fn an_invalid_url_is_rejected_without_showing_secrets() {
        for base in ["localhost:8000", "ftp://me:pass@h/", "http://me:pass@:x/?key=secret", ""] {
            let error = Endpoint::chat(base).unwrap_err().to_string();
            assert!(error.contains("is not a base URL"), "{error}");
            assert!(!error.contains("pass") && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_weight_follows_the_url_and_is_not_sent() {
        let endpoint = Endpoint::chat("https://h/v1?version=1#weight=2.5").unwrap();
        assert_eq!(endpoint.url.as_str(), "https://h/v1/chat/completions?version=1");
        assert_eq!(endpoint.weight, 2.5);
        assert_eq!(Endpoint::chat("https://h/v1").unwrap().weight, 1.0);
    }

    #[test]
    fn an_invalid_weight_is_rejected() {
        for url in ["http://h#weight=0", "http://h#weight=-1", "http://h#weight=inf", "http://h#2"]
        {
            let error = Endpoint::chat(url).unwrap_err().to_string();
            assert!(error.contains("`weight=` and a number above 0"), "{error}");
        }
    }
}
