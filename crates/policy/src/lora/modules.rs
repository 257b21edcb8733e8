//! The linear modules of a decoder, and `peft`'s rules for target modules.

use std::sync::LazyLock;

use fancy_regex::Regex;

use super::config::{AdapterConfig, Targets};

/// A linear module of each layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Module {
    /// `q_proj`, the query projection.
    Q,
    /// `k_proj`, the key projection.
    K,
    /// `v_proj`, the value projection.
    V,
    /// `o_proj`, the output projection of attention.
    O,
    /// `gate_proj` of the MLP.
    Gate,
    /// `up_proj` of the MLP.
    Up,
    /// `down_proj` of the MLP.
    Down,
}

impl Module {
    /// All of them, in the model's order.
    pub const ALL: [Self; 7] =
        [Self::Q, Self::K, Self::V, Self::O, Self::Gate, Self::Up, Self::Down];

    /// The last component of its name.
    pub fn short_name(self) -> &'static str {
        match self {
            Self::Q => "q_proj",
            Self::K => "k_proj",
            Self::V => "v_proj",
            Self::O => "o_proj",
            Self::Gate => "gate_proj",
            Self::Up => "up_proj",
            Self::Down => "down_proj",
        }
    }

    /// Whether `target`, an entry of `target_modules`, names it: as in `peft`, the end of its name, at a dot.
    #[must_use]
    pub fn is_named_by(self, target: &str) -> bool {
        let name = self.name(0);
        ends_with(name.strip_prefix("model.layers.0.").unwrap_or(&name), target)
    }

    /// Its canonical name in a layer.
    pub(crate) fn name(self, layer: usize) -> String {
        let half = match self {
            Self::Q | Self::K | Self::V | Self::O => "self_attn",
            Self::Gate | Self::Up | Self::Down => "mlp",
        };
        format!("model.layers.{layer}.{half}.{}", self.short_name())
    }

    /// Whether it has a bias in families with `has_qkv_bias`.
    pub(crate) fn has_bias(self) -> bool {
        matches!(self, Self::Q | Self::K | Self::V)
    }

    /// Its index among all modules of the model.
    pub(crate) fn index(self, layer: usize) -> u64 {
        (layer * Self::ALL.len() + self as usize) as u64
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
            Self::AllLinear => !ends_with(name, "lm_head") && !ends_with(name, "embed_tokens"),
            Self::Names(names) => names.iter().any(|wanted| ends_with(name, wanted)),
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

/// Whether `name` ends with the components of `end`.
pub(super) fn ends_with(name: &str, end: &str) -> bool {
    let before = name.strip_suffix(end);
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
