//! `peft`'s rules for target modules.

use std::sync::LazyLock;

use fancy_regex::Regex;

use super::config::{AdapterConfig, Targets};
use crate::layer::Module;

impl Module {
    /// Whether `target`, an entry of `target_modules`, names it, as [`names_module`] says.
    #[must_use]
    pub fn is_named_by(self, target: &str) -> bool {
        names_module(target, self.name_in_layer())
    }
}

/// The first number in a module's name is its layer.
static LAYER: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"^.*?\.[^.]*\.(\d+)\.").ok());

impl AdapterConfig {
    /// Whether the adapter targets the module `name`, as named in the base model: names in a vision-language model
    /// differ from its decoder's.
    pub(super) fn targets(&self, name: &str) -> bool {
        let saved = self.modules_to_save.iter().any(|saved| is_within(name, saved));
        let excluded = self.excluded.as_ref().is_some_and(|excluded| excluded.matches(name));
        if saved || excluded || !self.targets.matches(name) {
            return false;
        }
        match (&self.layers, &self.targets) {
            (Some(layers), Targets::Names(_)) => layer(name).is_some_and(|it| layers.contains(&it)),
            _ => true,
        }
    }

    /// Whether the module `name` is in `modules_to_save`.
    pub(super) fn saves(&self, name: &str) -> bool {
        self.modules_to_save.iter().any(|saved| is_within(name, saved))
    }
}

impl Targets {
    fn matches(&self, name: &str) -> bool {
        match self {
            Self::AllLinear => {
                !names_module("lm_head", name) && !names_module("embed_tokens", name)
            }
            Self::Names(names) => names.iter().any(|wanted| names_module(wanted, name)),
            Self::Pattern(pattern) => pattern.is_match(name).unwrap_or(false),
        }
    }

    /// The setting for messages.
    pub(super) fn display(&self) -> String {
        match self {
            Self::AllLinear => "all-linear".to_owned(),
            Self::Names(names) => names.join(", "),
            Self::Pattern(pattern) => pattern.as_str().to_owned(),
        }
    }
}

/// Whether `target`, an entry of `target_modules`, names the module `name`: as in `peft`, the end of its name, at a dot.
#[must_use]
pub fn names_module(target: &str, name: &str) -> bool {
    let before = name.strip_suffix(target);
    before.is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

/// Whether `name` is the module `module` or inside it.
fn is_within(name: &str, module: &str) -> bool {
    let padded = format!(".{name}.");
    padded.contains(&format!(".{module}."))
}

fn layer(name: &str) -> Option<u64> {
    let found = LAYER.as_ref()?.captures(name).ok()??;
    found.get(1)?.as_str().parse().ok()
}
