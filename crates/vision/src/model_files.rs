//! The configuration files of a new vision-language model.

use serde_json::{Value, json};

/// The files of a model of the architecture of Qwen2.5-VL with this `vision_config`, besides its tokenizer and weights:
/// `config.json`, made of that of its `decoder`, and `preprocessor_config.json`. The tokens of the start and the end of
/// an image, of an image and of a video have the ids from `first_token` on.
#[must_use]
pub fn model_files(
    decoder: &Value,
    vision: &Value,
    first_token: u32,
) -> [(&'static str, Value); 2] {
    let mut config = decoder.clone();
    config["architectures"] = json!(["Qwen2_5_VLForConditionalGeneration"]);
    config["model_type"] = json!("qwen2_5_vl");
    config["vision_config"] = vision.clone();
    for (offset, name) in ["vision_start", "vision_end", "image", "video"].iter().enumerate() {
        config[format!("{name}_token_id")] = json!(first_token + offset as u32);
    }
    let processor = json!({
        "min_pixels": 3136, "max_pixels": 12_845_056, "patch_size": 14, "temporal_patch_size": 2,
        "merge_size": 2, "image_mean": [0.481_454_66, 0.457_827_5, 0.408_210_73],
        "image_std": [0.268_629_54, 0.261_302_58, 0.275_777_11],
        "image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen2_5_VLProcessor",
    });
    [("config.json", config), ("preprocessor_config.json", processor)]
}
