//! The linear layers of a Qwen2.5-VL vision tower, for adapters.

use super::modules::ends_with;

/// A linear layer of a vision tower: one of each block, or one of the merger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum VisionModule {
    /// `attn.qkv` of each block, the fused projection.
    Qkv,
    /// `attn.proj` of each block, the output projection of attention.
    Proj,
    /// `mlp.gate_proj` of each block.
    Gate,
    /// `mlp.up_proj` of each block.
    Up,
    /// `mlp.down_proj` of each block.
    Down,
    /// `merger.mlp.0`.
    MergerFirst,
    /// `merger.mlp.2`.
    MergerSecond,
}

impl VisionModule {
    /// All of them, in the order of the forward pass.
    pub const ALL: [Self; 7] = [
        Self::Qkv,
        Self::Proj,
        Self::Gate,
        Self::Up,
        Self::Down,
        Self::MergerFirst,
        Self::MergerSecond,
    ];

    /// Its name within a block, or within the tower if it is one of the merger.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Qkv => "attn.qkv",
            Self::Proj => "attn.proj",
            Self::Gate => "mlp.gate_proj",
            Self::Up => "mlp.up_proj",
            Self::Down => "mlp.down_proj",
            Self::MergerFirst => "merger.mlp.0",
            Self::MergerSecond => "merger.mlp.2",
        }
    }

    /// Whether it belongs to the merger (aligner).
    #[must_use]
    pub fn is_of_merger(self) -> bool {
        matches!(self, Self::MergerFirst | Self::MergerSecond)
    }

    /// Whether `target`, an entry of `target_modules`, names it: as in `peft`, the end of its name, at a dot. `proj` is not
    /// enough, since it also names the patch embedding, nor is a number, since blocks have numbers too.
    #[must_use]
    pub fn is_named_by(self, target: &str) -> bool {
        let known = target.contains('.') || target.ends_with("_proj") || target == "qkv";
        known && ends_with(&format!("visual.{}", self.name()), target)
    }

    /// That of the layer called `layer` within the tower, such as `blocks.0.attn.qkv`.
    #[must_use]
    pub fn of_layer(layer: &str) -> Option<Self> {
        let within = match layer.strip_prefix("blocks.") {
            Some(rest) => {
                let (block, name) = rest.split_once('.')?;
                block.parse::<usize>().ok()?;
                name
            }
            None => layer,
        };
        let is_block = within.len() < layer.len();
        Self::ALL.into_iter().find(|it| it.name() == within && it.is_of_merger() != is_block)
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
        assert_eq!(of("merger.mlp.2"), Some(VisionModule::MergerSecond));
        for other in ["attn.qkv", "blocks.x.attn.qkv", "blocks.0.merger.mlp.0", "merger.ln_q"] {
            assert_eq!(of(other), None, "{other}");
        }
        assert_eq!(of("patch_embed.proj"), None);
    }
}
