//! The places that requests go to, and in which order.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use reqwest::Url;

use crate::error::{Error, Result};

/// One address that requests go to.
#[derive(Debug)]
pub(crate) struct Endpoint {
    /// Where requests are sent.
    pub(crate) url: Url,
    /// The same for messages: without credentials and query, which may hold secrets.
    pub(crate) name: String,
    /// No request is sent before this, as the server asked all of us to wait.
    held_until: Mutex<Option<Instant>>,
}

impl Endpoint {
    /// `url` as it is.
    pub(crate) fn at(url: &str) -> Result<Self> {
        Ok(Self::of(parse(url)?))
    }

    /// `base` with `/chat/completions` appended to its path.
    pub(crate) fn chat(base: &str) -> Result<Self> {
        let mut url = parse(base)?;
        let path = url.path().trim_end_matches('/');
        let path = path.strip_suffix("/chat/completions").unwrap_or(path);
        let path = format!("{path}/chat/completions");
        url.set_path(&path);
        Ok(Self::of(url))
    }

    fn of(url: Url) -> Self {
        let name = without_secrets(url.as_str());
        Self { url, name, held_until: Mutex::new(None) }
    }

    /// Keeps every request from this endpoint for a while.
    pub(crate) fn hold(&self, until: Instant) {
        let mut held = self.lock();
        *held = (*held).max(Some(until));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.held_until.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn parse(text: &str) -> Result<Url> {
    let text = text.trim();
    let bad = |why: String| Error::BadBaseUrl { url: without_secrets(text), why };
    let url = Url::parse(text).map_err(|error| bad(error.to_string()))?;
    match url.scheme() {
        "http" | "https" => Ok(url),
        _ => Err(bad("it begins neither with `http://` nor with `https://`".into())),
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

/// One request's way over the endpoints: round robin to begin with, then wherever it may be sent
/// again soonest.
#[derive(Debug)]
pub(crate) struct Route<'a> {
    endpoints: &'a [Endpoint],
    first: usize,
    failures: Vec<u32>,
    ready: Vec<Instant>,
}

impl<'a> Route<'a> {
    /// A way that begins at endpoint `first` modulo their number.
    pub(crate) fn new(endpoints: &'a [Endpoint], first: usize, now: Instant) -> Self {
        let n = endpoints.len();
        Self { endpoints, first: first % n.max(1), failures: vec![0; n], ready: vec![now; n] }
    }

    /// The next endpoint and the time from which it may be used. One that has failed this request
    /// less often comes first among those that are ready.
    pub(crate) fn next(&self, now: Instant) -> (usize, Instant) {
        let n = self.endpoints.len();
        let ready = |i: usize| {
            let held = self.endpoints[i].lock().unwrap_or(now);
            self.ready[i].max(held).max(now)
        };
        let order = (0..n).map(|offset| (self.first + offset) % n);
        let best = order.min_by_key(|&i| (ready(i), self.failures[i])).unwrap_or(0);
        (best, ready(best))
    }

    /// Counts a failure and returns how many the endpoint has had of this request.
    pub(crate) fn failed(&mut self, endpoint: usize) -> u32 {
        self.failures[endpoint] += 1;
        self.failures[endpoint]
    }

    /// Sends this request to `endpoint` no sooner than after `wait`.
    pub(crate) fn wait(&mut self, endpoint: usize, now: Instant, wait: Duration) {
        self.ready[endpoint] = now + wait;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(n: usize) -> Vec<Endpoint> {
        (0..n).map(|i| Endpoint::chat(&format!("http://host-{i}/v1")).unwrap()).collect()
    }

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
    fn requests_begin_at_one_endpoint_after_another() {
        let endpoints = endpoints(3);
        let now = Instant::now();
        let firsts: Vec<_> = (0..5).map(|i| Route::new(&endpoints, i, now).next(now).0).collect();
        assert_eq!(firsts, [0, 1, 2, 0, 1]);
    }

    #[test]
    fn a_failed_endpoint_gives_way_to_the_others_at_once() {
        let endpoints = endpoints(2);
        let now = Instant::now();
        let mut route = Route::new(&endpoints, 0, now);
        route.wait(0, now, Duration::from_secs(1));
        assert_eq!(route.next(now), (1, now));
        route.wait(1, now, Duration::from_secs(2));
        assert_eq!(route.next(now), (0, now + Duration::from_secs(1)));
    }

    #[test]
    fn a_held_endpoint_is_passed_over_by_every_request() {
        let endpoints = endpoints(2);
        let now = Instant::now();
        endpoints[0].hold(now + Duration::from_secs(60));
        assert_eq!(Route::new(&endpoints, 0, now).next(now), (1, now));
    }

    #[test]
    fn a_shorter_hold_does_not_lift_a_longer_one() {
        let endpoints = endpoints(1);
        let now = Instant::now();
        endpoints[0].hold(now + Duration::from_secs(60));
        endpoints[0].hold(now + Duration::from_secs(1));
        let ready = Route::new(&endpoints, 0, now).next(now).1;
        assert_eq!(ready, now + Duration::from_secs(60));
    }
}
