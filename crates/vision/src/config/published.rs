//! Configurations known without a file: those of published models, from their `config.json` files on the hub.

use serde_json::{Value, json};

use super::VisionConfig;

impl VisionConfig {
    /// The vision tower of the hub's model `name`, such as `Qwen/Qwen2.5-VL-72B-Instruct`, for estimates. The
    /// organization and `-Instruct` are optional.
    #[must_use]
    pub fn published(name: &str) -> Option<Self> {
        serde_json::from_value(Self::published_fields(name)?).ok()
    }

    /// The `vision_config` of [`Self::published`].
    #[must_use]
    pub fn published_fields(name: &str) -> Option<Value> {
        let name = name.rsplit('/').next()?.to_ascii_lowercase();
        let name = name.strip_suffix("-instruct").unwrap_or(&name);
        let qwen2_5 = |inner: u32, out: u32| {
            json!({
                "model_type": "qwen2_5_vl", "depth": 32, "hidden_size": 1_280, "intermediate_size": inner,
                "num_heads": 16, "out_hidden_size": out, "tokens_per_second": 2,
            })
        };
        let qwen3 = |[depth, hidden, inner, out]: [u32; 4], taps: [u32; 3]| {
            json!({
                "model_type": "qwen3_vl", "depth": depth, "hidden_size": hidden, "intermediate_size": inner,
                "num_heads": 16, "out_hidden_size": out, "deepstack_visual_indexes": taps,
            })
        };
        Some(match name {
            "qwen2.5-vl-3b" => qwen2_5(3_420, 2_048),
            "qwen2.5-vl-7b" => qwen2_5(3_420, 3_584),
            "qwen2.5-vl-32b" => qwen2_5(3_456, 5_120),
            "qwen2.5-vl-72b" => qwen2_5(3_456, 8_192),
            "qwen3-vl-2b" => qwen3([24, 1_024, 4_096, 2_048], [5, 11, 17]),
            "qwen3-vl-4b" => qwen3([24, 1_024, 4_096, 2_560], [5, 11, 17]),
            "qwen3-vl-8b" => qwen3([27, 1_152, 4_304, 4_096], [8, 16, 24]),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use embodied_r_policy::ModelConfig;

    #[test]
    fn towers_output_the_hidden_size_of_their_decoders() {
        let qwen2_5 =
            ["3B", "7B", "32B", "72B"].map(|size| format!("Qwen/Qwen2.5-VL-{size}-Instruct"));
        let qwen3 = ["2B", "4B", "8B"].map(|size| format!("Qwen/Qwen3-VL-{size}-Instruct"));
        for name in qwen2_5.into_iter().chain(qwen3) {
            let (tower, decoder) =
                (VisionConfig::published(&name).unwrap(), ModelConfig::published(&name).unwrap());
            assert_eq!(tower.out_hidden_size, decoder.hidden_size, "{name}");
            assert_eq!(tower.check(), Ok(()));
        }
        let tower = VisionConfig::published("qwen2.5-vl-7b").unwrap();
        assert_eq!(tower.parameter_count(), 676_550_144);
        let tower = VisionConfig::published("qwen3-vl-8b").unwrap();
        assert_eq!((tower.feature_levels(), tower.patch_size, tower.head_dim()), (4, 16, 72));
        // By hand: patch embedding, positions, 27 blocks, and 4 mergers, of which three normalize after joining patches.
        let (patches, positions) = (1_536 * 1_152 + 1_152, 2_304 * 1_152);
        let attention = 1_152 * 3_456 + 3_456 + 1_152 * 1_152 + 1_152;
        let blocks = 27 * (attention + 2 * 1_152 * 4_304 + 4_304 + 1_152 + 4 * 1_152);
        let merger = 4_608 * 4_608 + 4_608 + 4_608 * 4_096 + 4_096;
        let mergers = 4 * merger + 2 * 1_152 + 3 * 2 * 4_608;
        assert_eq!(tower.parameter_count(), patches + positions + blocks + mergers);
        assert_eq!(VisionConfig::published("Qwen2.5-7B"), None);
    }
}
