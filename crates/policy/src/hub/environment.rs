//! The environment variables of `huggingface_hub`.

use std::path::{Path, PathBuf};

/// Where the hub is, and how to use it.
#[derive(Debug, Clone)]
pub(super) struct Environment {
    /// `HF_ENDPOINT`.
    pub(super) endpoint: String,
    /// `HF_HUB_CACHE`, else `hub` in `HF_HOME`.
    pub(super) cache: PathBuf,
    /// `HF_TOKEN`, else the text of the file `HF_TOKEN_PATH`, by default `token` in `HF_HOME`.
    pub(super) token: Option<String>,
    /// `HF_HUB_OFFLINE`: only the cache is used.
    pub(super) offline: bool,
}

impl Environment {
    /// The values of this process; `variable` looks one up.
    pub(super) fn new(variable: impl Fn(&str) -> Option<String>) -> Self {
        let variable = |name| variable(name).filter(|value| !value.trim().is_empty());
        let path = |name| variable(name).map(|value| expand(&value));
        let home = path("HF_HOME").unwrap_or_else(|| {
            let caches = path("XDG_CACHE_HOME").unwrap_or_else(|| user_home().join(".cache"));
            caches.join("huggingface")
        });
        let token_file = path("HF_TOKEN_PATH").unwrap_or_else(|| home.join("token"));
        let token = variable("HF_TOKEN").or_else(|| std::fs::read_to_string(token_file).ok());
        let offline = variable("HF_HUB_OFFLINE").map(|value| value.to_ascii_lowercase());
        Self {
            endpoint: variable("HF_ENDPOINT")
                .map_or("https://huggingface.co".to_owned(), |url| url.trim().to_owned()),
            cache: path("HF_HUB_CACHE").unwrap_or_else(|| home.join("hub")),
            token: token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty()),
            offline: matches!(offline.as_deref(), Some("1" | "true" | "yes" | "on")),
        }
    }
}

/// A path whose `~` is the user's home.
fn expand(value: &str) -> PathBuf {
    match value.strip_prefix('~') {
        Some("") => user_home(),
        Some(rest) if rest.starts_with('/') => user_home().join(&rest[1..]),
        _ => PathBuf::from(value),
    }
}

fn user_home() -> PathBuf {
    std::env::home_dir().unwrap_or_else(|| Path::new(".").to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Environment {
        let find = |name: &str| variables.iter().find(|(variable, _)| *variable == name);
        Environment::new(|name| find(name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn the_cache_is_in_hf_home_unless_hf_hub_cache_names_another() {
        assert_eq!(of(&[("HF_HOME", "/a")]).cache, Path::new("/a/hub"));
        assert_eq!(of(&[("HF_HOME", "/a"), ("HF_HUB_CACHE", "/b")]).cache, Path::new("/b"));
        assert_eq!(of(&[("XDG_CACHE_HOME", "/x")]).cache, Path::new("/x/huggingface/hub"));
        assert_eq!(of(&[("HF_HOME", "~/a")]).cache, user_home().join("a/hub"));
        assert_eq!(of(&[("HF_HOME", "")]).cache, user_home().join(".cache/huggingface/hub"));
    }

    #[test]
    fn the_token_is_hf_token_or_the_text_of_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().to_str().unwrap();
        assert_eq!(of(&[("HF_HOME", home)]).token, None);
        std::fs::write(dir.path().join("token"), "of the file\n").unwrap();
        assert_eq!(of(&[("HF_HOME", home)]).token.unwrap(), "of the file");
        assert_eq!(of(&[("HF_HOME", home), ("HF_TOKEN", "a ")]).token.unwrap(), "a");
        std::fs::write(dir.path().join("other"), "of another").unwrap();
        let other = dir.path().join("other");
        let path = ("HF_TOKEN_PATH", other.to_str().unwrap());
        assert_eq!(of(&[("HF_HOME", home), path]).token.unwrap(), "of another");
    }

    #[test]
    fn offline_mode_is_on_for_the_words_that_pythons_client_accepts() {
        for (value, offline) in
            [("1", true), ("ON", true), ("True", true), ("0", false), ("", false)]
        {
            assert_eq!(of(&[("HF_HUB_OFFLINE", value)]).offline, offline, "{value}");
        }
    }

    #[test]
    fn the_endpoint_is_the_hub_unless_hf_endpoint_names_a_mirror() {
        assert_eq!(of(&[]).endpoint, "https://huggingface.co");
        assert_eq!(of(&[("HF_ENDPOINT", "https://a.b/c/")]).endpoint, "https://a.b/c/");
    }
}
