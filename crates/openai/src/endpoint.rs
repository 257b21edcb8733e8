//! The places that requests go to.

use reqwest::Url;

use crate::error::{Error, Result};

/// What may follow `#` in a base URL. A fragment is never sent to a server, so that it can say
/// something to us.
const WEIGHT: &str = "weight=";

/// One address that requests go to.
#[derive(Debug)]
pub(crate) struct Endpoint {
    /// Where requests are sent.
    pub(crate) url: Url,
    /// The same for messages: without credentials and query, which may hold secrets.
    pub(crate) name: String,
    /// Its share of the requests, beside the other endpoints' weights; above 0.
    pub(crate) weight: f64,
}

impl Endpoint {
    /// `url` as it is, but for a weight.
    pub(crate) fn at(url: &str) -> Result<Self> {
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

/// The address and the weight behind it, 1 where none is given.
fn parse(text: &str) -> Result<(Url, f64)> {
    let text = text.trim();
    let bad = |why: String| Error::BadBaseUrl { url: without_secrets(text), why };
    let mut url = Url::parse(text).map_err(|error| bad(error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(bad("it begins neither with `http://` nor with `https://`".into()));
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
        _ => Err(format!("behind `#` only `{WEIGHT}` and a number above 0 may stand")),
    }
}

/// A URL without user, password, query and fragment; text that is no URL up to the same places.
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
    fn an_address_is_taken_as_it_is() {
        let endpoint = Endpoint::at(" http://h:8000/score?model=a ").unwrap();
        assert_eq!(endpoint.url.as_str(), "http://h:8000/score?model=a");
        assert_eq!(endpoint.name, "http://h:8000/score");
    }

    #[test]
    fn a_query_is_kept_for_the_server_and_from_messages() {
        let endpoint = Endpoint::chat("https://me:pass@h/v1?api-version=1&key=secret").unwrap();
        assert_eq!(
            endpoint.url.as_str(),
            "https://me:pass@h/v1/chat/completions?api-version=1&key=secret"
        );
        assert_eq!(endpoint.name, "https://h/v1/chat/completions");
    }

    #[test]
    fn what_is_not_a_web_address_is_refused_without_showing_secrets() {
        for base in ["localhost:8000", "ftp://me:pass@h/", "http://me:pass@:x/?key=secret", ""] {
            let error = Endpoint::chat(base).unwrap_err().to_string();
            assert!(error.contains("is not a base URL"), "{error}");
            assert!(!error.contains("pass") && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_weight_stands_behind_the_address_and_is_not_sent() {
        let endpoint = Endpoint::chat("https://h/v1?version=1#weight=2.5").unwrap();
        assert_eq!(endpoint.url.as_str(), "https://h/v1/chat/completions?version=1");
        assert_eq!(endpoint.weight, 2.5);
        assert_eq!(Endpoint::chat("https://h/v1").unwrap().weight, 1.0);
    }

    #[test]
    fn a_weight_that_is_none_is_refused() {
        for url in ["http://h#weight=0", "http://h#weight=-1", "http://h#weight=inf", "http://h#2"]
        {
            let error = Endpoint::chat(url).unwrap_err().to_string();
            assert!(error.contains("`weight=` and a number above 0"), "{error}");
        }
    }
}
