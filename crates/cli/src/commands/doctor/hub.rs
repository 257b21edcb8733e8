//! Environment variables of downloads and API captioners. Secrets are never shown.

use super::check::Check;

const AREA: &str = "environment";
const PLAIN: &[&str] = &["HF_HOME", "HF_HUB_CACHE", "HF_ENDPOINT", "HF_HUB_OFFLINE"];
const SECRET: &[&str] = &["HF_TOKEN", "OPENAI_API_KEY"];

/// Notes on each variable; `variable` looks one up.
pub(super) fn checks(variable: impl Fn(&str) -> Option<String>) -> Vec<Check> {
    let plain = PLAIN.iter().map(|name| match variable(name) {
        Some(value) => Check::note(AREA, name, without_user_info(&value)),
        None => Check::note(AREA, name, "not set"),
    });
    let secret = SECRET.iter().map(|name| {
        let present = variable(name).is_some_and(|value| !value.trim().is_empty());
        Check::note(AREA, name, if present { "set" } else { "not set" })
    });
    plain.chain(secret).collect()
}

/// A URL with any `user:password@` redacted; other text unchanged.
fn without_user_info(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    match host.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://…@{host}{path}"),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_reported_as_set_and_never_shown() {
        let checks = checks(|name| name.ends_with("TOKEN").then(|| "hf_secret".to_owned()));
        let shown = format!("{checks:?}");
        assert!(!shown.contains("hf_secret"), "{shown}");
        let token = checks.iter().find(|check| check.name == "HF_TOKEN").unwrap();
        assert_eq!(token.found, "set");
    }

    #[test]
    fn a_password_in_an_endpoint_is_not_shown() {
        assert_eq!(without_user_info("https://me:pw@host/a@b"), "https://…@host/a@b");
        assert_eq!(without_user_info("https://host/a@b"), "https://host/a@b");
        assert_eq!(without_user_info("/home/me@work"), "/home/me@work");
    }
}
