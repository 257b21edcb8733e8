//! Which modules of a decoder an adapter means, by `peft`'s rules.

use std::sync::LazyLock;

use fancy_regex::Regex;

use super::config::{AdapterConfig, Targets};

/// The first number among a module's names is its layer.
static LAYER: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"^.*?\.[^.]*\.(\d+)\.").ok());

impl AdapterConfig {
    /// Whether the module of this name is one that the adapter changes. `name` is that of the model that was adapted:
    /// a vision-language model has other names than its decoder.
    pub(super) fn targets(&self, name: &str) -> bool {
        let saved = self.modules_to_save.iter().any(|saved| is_within(name, saved));
        let excluded = self.excluded.as_ref().is_some_and(|excluded| excluded.mean(name));
        if saved || excluded || !self.targets.mean(name) {
            return false;
        }
        match (&self.layers, &self.targets) {
            (Some(layers), Targets::Names(_)) => layer(name).is_some_and(|it| layers.contains(&it)),
            _ => true,
        }
    }

    /// Whether the module of this name is stored whole in the adapter.
    pub(super) fn saves(&self, name: &str) -> bool {
        self.modules_to_save.iter().any(|saved| is_within(name, saved))
    }
}

impl Targets {
    fn mean(&self, name: &str) -> bool {
        match self {
            Self::AllLinear => !ends_with(name, "lm_head") && !ends_with(name, "embed_tokens"),
            Self::Names(names) => names.iter().any(|wanted| ends_with(name, wanted)),
            Self::Pattern(pattern) => pattern.is_match(name).unwrap_or(false),
        }
    }

    /// The setting in words.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::AllLinear => "all-linear".to_owned(),
            Self::Names(names) => names.join(", "),
            Self::Pattern(pattern) => pattern.as_str().to_owned(),
        }
    }
}

/// Whether the last names of `name` are those of `end`.
fn ends_with(name: &str, end: &str) -> bool {
    let before = name.strip_suffix(end);
    before.is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

/// Whether `name` is the module `module`, or lies in it.
fn is_within(name: &str, module: &str) -> bool {
    let padded = format!(".{name}.");
    padded.contains(&format!(".{module}."))
}

fn layer(name: &str) -> Option<u64> {
    let found = LAYER.as_ref()?.captures(name).ok()??;
    found.get(1)?.as_str().parse().ok()
}
