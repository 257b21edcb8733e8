//! The linear layers of vision towers, for adapters.

use super::modules::ends_with;

/// A linear layer of a vision tower: one of each block, or one of a merger. Each family has some of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum VisionModule {
    /// `attn.qkv` of each block, the fused projection.
    Qkv,
    /// `attn.proj` of each block, the output projection of attention.
    Proj,
    /// `mlp.gate_proj` of each block, of Qwen2.5-VL.
    Gate,
    /// `mlp.up_proj` of each block, of Qwen2.5-VL.
    Up,
    /// `mlp.down_proj` of each block, of Qwen2.5-VL.
    Down,
    /// `mlp.linear_fc1` of each block, of Qwen3-VL.
    First,
    /// `mlp.linear_fc2` of each block, of Qwen3-VL.
    Second,
    /// `merger.mlp.0`, of Qwen2.5-VL.
    MergerMlp0,
    /// `merger.mlp.2`, of Qwen2.5-VL.
    MergerMlp2,
    /// `merger.linear_fc1`, of Qwen3-VL.
    MergerFirst,
    /// `merger.linear_fc2`, of Qwen3-VL.
    MergerSecond,
    /// `linear_fc1` of each merger of DeepStack, of Qwen3-VL.
    DeepStackFirst,
    /// `linear_fc2` of each merger of DeepStack, of Qwen3-VL.
    DeepStackSecond,
}

/// Where a layer is in a tower.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum VisionPart {
    Block,
    Merger,
    DeepStack,
}

impl VisionPart {
    pub(super) const ALL: [Self; 3] = [Self::Block, Self::Merger, Self::DeepStack];

    /// What comes before the number in the names of its layers; `None` if there is only one.
    pub(super) fn list(self) -> Option<&'static str> {
        match self {
            Self::Block => Some("blocks"),
            Self::DeepStack => Some("deepstack_merger_list"),
            Self::Merger => None,
        }
    }
}

impl VisionModule {
    /// All of them, in the order of the forward pass.
    pub const ALL: [Self; 13] = [
        Self::Qkv,
        Self::Proj,
        Self::Gate,
        Self::Up,
        Self::Down,
        Self::First,
        Self::Second,
        Self::MergerMlp0,
        Self::MergerMlp2,
        Self::MergerFirst,
        Self::MergerSecond,
        Self::DeepStackFirst,
        Self::DeepStackSecond,
    ];

    /// Its name within a block or a merger of DeepStack, or within the tower if it is one of the merger.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Qkv => "attn.qkv",
            Self::Proj => "attn.proj",
            Self::Gate => "mlp.gate_proj",
            Self::Up => "mlp.up_proj",
            Self::Down => "mlp.down_proj",
            Self::First => "mlp.linear_fc1",
            Self::Second => "mlp.linear_fc2",
            Self::MergerMlp0 => "merger.mlp.0",
            Self::MergerMlp2 => "merger.mlp.2",
            Self::MergerFirst => "merger.linear_fc1",
            Self::MergerSecond => "merger.linear_fc2",
            Self::DeepStackFirst => "linear_fc1",
            Self::DeepStackSecond => "linear_fc2",
        }
    }

    pub(super) fn part(self) -> VisionPart {
        match self {
            Self::Qkv
            | Self::Proj
            | Self::Gate
            | Self::Up
            | Self::Down
            | Self::First
            | Self::Second => VisionPart::Block,
            Self::MergerMlp0 | Self::MergerMlp2 | Self::MergerFirst | Self::MergerSecond => {
                VisionPart::Merger
            }
            Self::DeepStackFirst | Self::DeepStackSecond => VisionPart::DeepStack,
        }
    }

    /// Whether it belongs to a merger (aligner).
    #[must_use]
    pub fn is_of_merger(self) -> bool {
        self.part() != VisionPart::Block
    }

    /// Whether `target`, an entry of `target_modules`, names it: as in `peft`, the end of its name, at a dot. `proj` is not
    /// enough, since it also names the patch embedding, nor is a number, since blocks have numbers too.
    #[must_use]
    pub fn is_named_by(self, target: &str) -> bool {
        let known = target.contains('.')
            || target.ends_with("_proj")
            || target.starts_with("linear_fc")
            || target == "qkv";
        known && ends_with(&format!("visual.{}", self.name()), target)
    }

    /// That of the layer called `layer` within the tower, such as `blocks.0.attn.qkv`.
    #[must_use]
    pub fn of_layer(layer: &str) -> Option<Self> {
        let numbered = |list: &str| {
            let (number, name) = layer.strip_prefix(list)?.strip_prefix('.')?.split_once('.')?;
            number.parse::<usize>().is_ok().then_some(name)
        };
        let is_it = |module: &Self| match module.part().list() {
            Some(list) => numbered(list) == Some(module.name()),
            None => layer == module.name(),
        };
        Self::ALL.into_iter().find(is_it)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_is_known_by_the_name_of_its_layer() {
        let of = VisionModule::of_layer;
        assert_eq!(of("blocks.0.attn.qkv"), Some(VisionModule::Qkv));
        assert_eq!(of("blocks.31.mlp.down_proj"), Some(VisionModule::Down));
        assert_eq!(of("merger.mlp.2"), Some(VisionModule::MergerMlp2));
        assert_eq!(of("blocks.7.mlp.linear_fc1"), Some(VisionModule::First));
        assert_eq!(of("merger.linear_fc1"), Some(VisionModule::MergerFirst));
        let of_deepstack = of("deepstack_merger_list.2.linear_fc2");
        assert_eq!(of_deepstack, Some(VisionModule::DeepStackSecond));
        let others = ["attn.qkv", "blocks.x.attn.qkv", "blocks.0.merger.mlp.0", "merger.ln_q"];
        for other in others.into_iter().chain(["linear_fc1", "deepstack_merger_list.0.norm"]) {
            assert_eq!(of(other), None, "{other}");
        }
        assert_eq!(of("patch_embed.proj"), None);
    }
}
