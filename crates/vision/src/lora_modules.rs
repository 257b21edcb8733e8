//! The linear layers of vision towers, for adapters.

use std::sync::LazyLock;

use embodied_r_policy::LoraConfig;
use embodied_r_policy::lora::{EncoderModule, names_module};
use embodied_r_policy::weights::ENCODER;
use indexmap::IndexMap;

use crate::config::VisionConfig;
use crate::family::Family;
use crate::layout::{Stage, TowerPart, qkv_name};
use crate::sizes::TowerSizes;

/// A linear layer of a vision tower: one of each block, or one of a merger. Each family has some of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VisionModule {
    layer: EncoderModule,
    is_of_merger: bool,
}

impl VisionModule {
    /// All layers of all families: first those of blocks.
    #[must_use]
    pub fn all() -> &'static [Self] {
        static ALL: LazyLock<Vec<VisionModule>> = LazyLock::new(|| {
            let mut all = Vec::new();
            for family in Family::all() {
                let parts = family.get().layout(&SIZES).parts(&SIZES);
                add_modules(&mut all, &parts);
            }
            all.sort_by_key(VisionModule::is_of_merger);
            all
        });
        &ALL
    }

    /// The layers of the tower of `config`.
    #[must_use]
    pub fn of_tower(config: &VisionConfig) -> Vec<Self> {
        let mut modules = Vec::new();
        add_modules(&mut modules, &config.parts());
        modules
    }

    /// For [`LoraConfig::encoder_modules`].
    #[must_use]
    pub fn layer(&self) -> &EncoderModule {
        &self.layer
    }

    /// Its name within a block or a merger of DeepStack, or within the tower if it is one of the merger.
    #[must_use]
    pub fn name(&self) -> &str {
        self.layer.name().strip_prefix(ENCODER).unwrap_or(self.layer.name())
    }

    /// Whether it belongs to a merger (aligner).
    #[must_use]
    pub fn is_of_merger(&self) -> bool {
        self.is_of_merger
    }

    /// Whether `target`, an entry of `target_modules`, names it: as in `peft`, the end of its name, at a dot. `proj` is not
    /// enough, since it also names the patch embedding, nor is a number, since blocks have numbers too.
    #[must_use]
    pub fn is_named_by(&self, target: &str) -> bool {
        let known = target.contains('.')
            || target.ends_with("_proj")
            || target.starts_with("linear_fc")
            || target == "qkv";
        known && names_module(target, &format!("{ENCODER}{}", self.name()))
    }
}

/// Any sizes, of a tower that is deep enough for every merger.
const SIZES: TowerSizes = TowerSizes {
    depth: 32,
    hidden_size: 1,
    intermediate_size: 1,
    num_heads: 1,
    in_channels: 1,
    patch_size: 1,
    temporal_patch_size: 1,
    spatial_merge_size: 1,
    out_hidden_size: 1,
};

fn add_modules(modules: &mut Vec<VisionModule>, parts: &[(Stage, TowerPart)]) {
    for (stage, part) in parts {
        let name = match part {
            TowerPart::Linear(name, ..) => name.clone(),
            TowerPart::Qkv(block, _) => qkv_name(*block),
            TowerPart::Patches | TowerPart::Vector(..) | TowerPart::Positions(_) => continue,
        };
        let layer = EncoderModule::of_layer(&format!("{ENCODER}{name}"));
        let module = VisionModule { layer, is_of_merger: stage.is_merger() };
        if !modules.contains(&module) {
            modules.push(module);
        }
    }
}

impl VisionConfig {
    /// The shapes of the tensors of an adapter of the tower, by their names in a checkpoint.
    #[must_use]
    pub fn adapter_shapes(&self, lora: &LoraConfig) -> IndexMap<String, Vec<usize>> {
        let shapes = self.tensor_shapes().into_iter();
        let shapes: Vec<_> = shapes.map(|(name, it)| (format!("{ENCODER}{name}"), it)).collect();
        lora.encoder_shapes(shapes.iter().map(|(name, shape)| (name.as_str(), shape.as_slice())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_modules_of_all_families_are_those_of_their_layouts() {
        let names = |is_of_merger: bool| -> Vec<&str> {
            let all = VisionModule::all().iter();
            all.filter(|it| it.is_of_merger() == is_of_merger).map(VisionModule::name).collect()
        };
        assert_eq!(
            names(false),
            [
                "attn.qkv",
                "attn.proj",
                "mlp.gate_proj",
                "mlp.up_proj",
                "mlp.down_proj",
                "mlp.linear_fc1",
                "mlp.linear_fc2"
            ]
        );
        assert_eq!(
            names(true),
            [
                "merger.mlp.0",
                "merger.mlp.2",
                "linear_fc1",
                "linear_fc2",
                "merger.linear_fc1",
                "merger.linear_fc2"
            ]
        );
    }

    #[test]
    fn a_target_names_the_end_of_a_module_at_a_dot() {
        let named = |target: &str| -> Vec<&str> {
            let all = VisionModule::all().iter();
            all.filter(|module| module.is_named_by(target)).map(VisionModule::name).collect()
        };
        assert_eq!(named("qkv"), ["attn.qkv"]);
        assert_eq!(named("attn.proj"), ["attn.proj"]);
        assert_eq!(named("merger.mlp.2"), ["merger.mlp.2"]);
        assert_eq!(named("linear_fc1"), ["mlp.linear_fc1", "linear_fc1", "merger.linear_fc1"]);
        for target in ["proj", "0", "kv", "norm1"] {
            assert_eq!(named(target), Vec::<&str>::new(), "{target}");
        }
    }
}
