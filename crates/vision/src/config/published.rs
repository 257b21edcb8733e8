//! Configurations known without a file: Qwen2.5-VL's, from its `config.json` files on the hub.

use serde_json::json;

use super::VisionConfig;

impl VisionConfig {
    /// The vision tower of the hub's model `name`, such as `Qwen/Qwen2.5-VL-72B-Instruct`, for estimates. The
    /// organization and `-Instruct` are optional.
    #[must_use]
    pub fn published(name: &str) -> Option<Self> {
        let name = name.rsplit('/').next()?.to_ascii_lowercase();
        let name = name.strip_suffix("-instruct").unwrap_or(&name);
        let (inner, out) = match name.strip_prefix("qwen2.5-vl-")? {
            "3b" => (3_420, 2_048),
            "7b" => (3_420, 3_584),
            "32b" => (3_456, 5_120),
            "72b" => (3_456, 8_192),
            _ => return None,
        };
        let config = json!({
            "depth": 32, "hidden_size": 1_280, "intermediate_size": inner, "num_heads": 16,
            "out_hidden_size": out, "tokens_per_second": 2,
        });
        serde_json::from_value(config).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use embodied_r_policy::ModelConfig;

    #[test]
    fn towers_output_the_hidden_size_of_their_decoders() {
        for size in ["3B", "7B", "32B", "72B"] {
            let name = format!("Qwen/Qwen2.5-VL-{size}-Instruct");
            let (tower, decoder) =
                (VisionConfig::published(&name).unwrap(), ModelConfig::published(&name).unwrap());
            assert_eq!(tower.out_hidden_size, decoder.hidden_size, "{name}");
            assert_eq!(tower.check(), Ok(()));
        }
        let tower = VisionConfig::published("qwen2.5-vl-7b").unwrap();
        assert_eq!(tower.parameter_count(), 676_550_144);
        assert_eq!(VisionConfig::published("Qwen2.5-7B"), None);
    }
}
