//! The names of a vision tower's tensors in an `mmproj` file, as llama.cpp's converter writes them.

use crate::layout::{PATCH_BIAS, TowerLayout};

/// The patch embeddings of the two frames of a patch.
pub(crate) const PATCHES: [&str; 2] = ["v.patch_embd.weight", "v.patch_embd.weight.1"];

/// The learned positions.
pub(crate) const POSITIONS: &str = "v.position_embd.weight";

/// How the names of DeepStack's mergers begin; the block behind which a merger is comes next.
pub(crate) const DEEPSTACK: &str = "v.deepstack.";

/// The modules of the last merger: its norm and its linear layers.
const LAST_MERGER: [&str; 3] = ["v.post_ln", "mm.0", "mm.2"];

/// The modules of a block: their names in the tower, and in the file.
const OF_BLOCK: [(&str, &str); 12] = [
    ("norm1", "ln1"),
    ("norm2", "ln2"),
    ("attn.qkv", "attn_qkv"),
    ("attn.q", "attn_q"),
    ("attn.k", "attn_k"),
    ("attn.v", "attn_v"),
    ("attn.proj", "attn_out"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
    ("mlp.linear_fc1", "ffn_up"),
    ("mlp.linear_fc2", "ffn_down"),
];

/// The file's names of the modules of a tower.
pub(crate) struct GgufNames {
    /// The names of the mergers' modules: in the tower, and in the file.
    mergers: Vec<(String, String)>,
}

impl GgufNames {
    pub(crate) fn new(layout: &TowerLayout) -> Self {
        let stored = |index: usize, after: usize| match index {
            0 => LAST_MERGER.map(str::to_owned),
            _ => ["norm", "fc1", "fc2"].map(|part| format!("{DEEPSTACK}{after}.{part}")),
        };
        let mergers = layout.mergers.iter().enumerate();
        let pairs =
            mergers.flat_map(|(index, it)| it.names.iter().cloned().zip(stored(index, it.after)));
        Self { mergers: pairs.collect() }
    }

    /// The name of a norm or a linear layer, such as `blocks.3.attn.proj`.
    pub(crate) fn module(&self, name: &str) -> String {
        if let Some((_, stored)) = self.mergers.iter().find(|(merger, _)| merger == name) {
            return stored.clone();
        }
        let in_block = name.strip_prefix("blocks.").and_then(|rest| rest.split_once('.'));
        let Some((block, part)) = in_block else { return name.to_owned() };
        let stored = OF_BLOCK.iter().find(|(of_tower, _)| *of_tower == part);
        format!("v.blk.{block}.{}", stored.map_or(part, |(_, stored)| stored))
    }

    /// The name of a vector, such as `blocks.3.norm1.bias`.
    pub(crate) fn vector(&self, name: &str) -> String {
        if name == PATCH_BIAS {
            return "v.patch_embd.bias".to_owned();
        }
        let (module, part) = name.rsplit_once('.').unwrap_or((name, "weight"));
        format!("{}.{part}", self.module(module))
    }

    /// The names of the parts of a fused projection, such as `blocks.3.attn.qkv`, where they are stored apart.
    pub(crate) fn split_qkv(&self, fused: &str) -> [String; 3] {
        let stem = fused.trim_end_matches("qkv");
        ["q", "k", "v"].map(|letter| self.module(&format!("{stem}{letter}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{FeedForwardKind, MergerLayout, NormKind};

    #[test]
    fn deepstack_mergers_are_named_by_their_block_and_the_last_one_by_itself() {
        let merger = |name: &str, after| {
            let names = ["norm", "linear_fc1", "linear_fc2"].map(|part| format!("{name}.{part}"));
            MergerLayout { names, after, joins_first: true }
        };
        let mergers = vec![merger("merger", 9), merger("deepstack_merger_list.0", 5)];
        let names = GgufNames::new(&TowerLayout {
            norm: NormKind::Layer,
            feed_forward: FeedForwardKind::Plain,
            patch_bias: true,
            positions: Some(7),
            mergers,
        });
        for (name, stored) in [
            ("merger.norm.bias", "v.post_ln.bias"),
            ("deepstack_merger_list.0.norm.bias", "v.deepstack.5.norm.bias"),
            ("blocks.5.norm1.weight", "v.blk.5.ln1.weight"),
            (PATCH_BIAS, "v.patch_embd.bias"),
        ] {
            assert_eq!(names.vector(name), stored);
        }
        for (name, stored) in [
            ("merger.linear_fc2", "mm.2"),
            ("deepstack_merger_list.0.linear_fc1", "v.deepstack.5.fc1"),
            ("blocks.5.mlp.linear_fc1", "v.blk.5.ffn_up"),
            ("blocks.5.attn.qkv", "v.blk.5.attn_qkv"),
        ] {
            assert_eq!(names.module(name), stored);
        }
        let split = ["v.blk.5.attn_q", "v.blk.5.attn_k", "v.blk.5.attn_v"];
        assert_eq!(names.split_qkv("blocks.5.attn.qkv"), split);
    }
}
