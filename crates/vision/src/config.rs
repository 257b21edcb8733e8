//! The vision tower's configuration and the image placeholder tokens, from Hugging Face's `config.json`.

mod published;

use std::path::Path;

use embodied_r_policy::config::ConfigFault;
use serde::Deserialize;
use serde_json::Value;

use crate::error::{Error, Result};

/// The configuration of a Qwen2.5-VL vision tower. Fields have the names of `transformers`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct VisionConfig {
    /// Number of blocks.
    pub depth: usize,
    /// Hidden size.
    pub hidden_size: usize,
    /// Hidden size of the feed-forward layer.
    pub intermediate_size: usize,
    /// Attention heads.
    pub num_heads: usize,
    /// Color channels. The hub's files call it `in_chans`.
    #[serde(default = "defaults::in_channels", alias = "in_chans")]
    pub in_channels: usize,
    /// Side of a patch in pixels.
    #[serde(default = "defaults::patch_size")]
    pub patch_size: usize,
    /// Frames per patch.
    #[serde(default = "defaults::temporal_patch_size")]
    pub temporal_patch_size: usize,
    /// Patches merged into one token, along each side.
    #[serde(default = "defaults::spatial_merge_size")]
    pub spatial_merge_size: usize,
    /// Side of an attention window in pixels, for the blocks with window attention.
    #[serde(default = "defaults::window_size")]
    pub window_size: usize,
    /// The blocks with full attention over a frame.
    #[serde(default = "defaults::fullatt_block_indexes")]
    pub fullatt_block_indexes: Vec<usize>,
    /// Hidden size of the output tokens, which is the decoder's.
    pub out_hidden_size: usize,
    /// Temporal positions per second of video.
    #[serde(default = "defaults::tokens_per_second")]
    pub tokens_per_second: f64,
    #[serde(default = "defaults::hidden_act")]
    hidden_act: String,
    #[serde(default)]
    rope_parameters: RopeParameters,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
struct RopeParameters {
    rope_theta: f64,
}

impl Default for RopeParameters {
    fn default() -> Self {
        Self { rope_theta: 10_000.0 }
    }
}

/// The defaults of `Qwen2_5_VLVisionConfig`.
mod defaults {
    pub(super) fn in_channels() -> usize {
        3
    }
    pub(super) fn patch_size() -> usize {
        14
    }
    pub(super) fn temporal_patch_size() -> usize {
        2
    }
    pub(super) fn spatial_merge_size() -> usize {
        2
    }
    pub(super) fn window_size() -> usize {
        112
    }
    pub(super) fn fullatt_block_indexes() -> Vec<usize> {
        vec![7, 15, 23, 31]
    }
    pub(super) fn tokens_per_second() -> f64 {
        4.0
    }
    pub(super) fn hidden_act() -> String {
        "silu".to_owned()
    }
}

/// The placeholder tokens of images and videos in a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct ImageTokens {
    /// The placeholder of an image.
    #[serde(default = "image_token")]
    pub image_token_id: u32,
    /// The placeholder of a video.
    #[serde(default = "video_token")]
    pub video_token_id: u32,
}

impl Default for ImageTokens {
    fn default() -> Self {
        Self { image_token_id: image_token(), video_token_id: video_token() }
    }
}

fn image_token() -> u32 {
    151_655
}

fn video_token() -> u32 {
    151_656
}

/// Parses a `config.json`; `path` is for errors.
pub(crate) fn of_json(value: &Value, path: &Path) -> Result<(VisionConfig, ImageTokens)> {
    let json = |source| Error::Json { path: path.to_owned(), source };
    let vision = value.get("vision_config").filter(|vision| vision.is_object());
    let Some(vision) = vision else {
        return Err(Error::NoVision { dir: path.parent().unwrap_or(path).to_owned() });
    };
    let mut vision = vision.clone();
    if let Some(fields) = vision.as_object_mut() {
        // Files that `transformers` has saved again contain both names.
        let has_both = fields.contains_key("in_channels");
        fields.retain(|name, field| !(field.is_null() || has_both && name == "in_chans"));
    }
    let config: VisionConfig = serde_json::from_value(vision).map_err(json)?;
    let tokens: ImageTokens = ImageTokens::deserialize(value).map_err(json)?;
    let faults =
        |faults| Error::from(embodied_r_policy::Error::Config { path: path.to_owned(), faults });
    config.check().map_err(faults)?;
    Ok((config, tokens))
}

impl VisionConfig {
    /// Checks that the sizes are consistent.
    ///
    /// # Errors
    /// All faults found.
    pub fn check(&self) -> Result<(), Vec<ConfigFault>> {
        let mut faults = Vec::new();
        let mut check = |holds: bool, field: &str, found: &dyn ToString, want| {
            if !holds {
                let (field, found) = (format!("vision_config.{field}"), found.to_string());
                faults.push(ConfigFault::Wrong { field, found, want });
            }
        };
        for (field, size) in [
            ("depth", self.depth),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_heads", self.num_heads),
            ("patch_size", self.patch_size),
            ("temporal_patch_size", self.temporal_patch_size),
            ("spatial_merge_size", self.spatial_merge_size),
            ("out_hidden_size", self.out_hidden_size),
        ] {
            check((1..=LARGEST).contains(&size), field, &size, "an integer from 1 to 65536");
        }
        check(self.in_channels == 3, "in_channels", &self.in_channels, "3 (RGB)");
        check(self.hidden_act == "silu", "hidden_act", &self.hidden_act, "`silu`");
        let heads = self.num_heads.max(1);
        let fits =
            self.hidden_size.is_multiple_of(heads) && (self.hidden_size / heads).is_multiple_of(4);
        check(fits, "num_heads", &self.num_heads, "a divisor of `hidden_size` into multiples of 4");
        let token = (self.patch_size * self.spatial_merge_size).max(1);
        let windows = self.window_size >= token && self.window_size <= LARGEST;
        check(
            windows,
            "window_size",
            &self.window_size,
            "at least `patch_size` times `spatial_merge_size`",
        );
        let blocks = &self.fullatt_block_indexes;
        let there = blocks.iter().all(|block| *block < LARGEST);
        check(there, "fullatt_block_indexes", &format!("{blocks:?}"), "a list of block indices");
        let theta = self.theta();
        check(theta.is_finite() && theta > 1.0, "rope_theta", &theta, "a number above 1");
        let rate = self.tokens_per_second;
        check(rate.is_finite() && rate > 0.0, "tokens_per_second", &rate, "a positive number");
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }

    /// Size of a head.
    #[must_use]
    pub fn head_dim(&self) -> usize {
        self.hidden_size / self.num_heads
    }

    /// Base of the rotary position embedding.
    pub(crate) fn theta(&self) -> f64 {
        self.rope_parameters.rope_theta
    }

    /// Elements per patch.
    #[must_use]
    pub fn patch_elements(&self) -> usize {
        self.in_channels * self.temporal_patch_size * self.patch_size * self.patch_size
    }

    /// Patches merged into one token.
    #[must_use]
    pub fn patches_per_token(&self) -> usize {
        self.spatial_merge_size * self.spatial_merge_size
    }

    /// Number of parameters.
    #[must_use]
    pub fn parameter_count(&self) -> usize {
        let (h, inner) = (self.hidden_size, self.intermediate_size);
        let block = 4 * h * (h + 1) + 2 * inner * (h + 1) + h * (inner + 1) + 2 * h;
        self.patch_elements() * h + self.depth * block + self.merger_parameter_count()
    }

    /// Number of parameters of the merger.
    #[must_use]
    pub fn merger_parameter_count(&self) -> usize {
        let wide = self.hidden_size * self.patches_per_token();
        self.hidden_size + wide * (wide + 1) + self.out_hidden_size * (wide + 1)
    }

    /// Whether a block has full attention over each frame.
    #[must_use]
    pub fn is_full(&self, block: usize) -> bool {
        self.fullatt_block_indexes.contains(&block)
    }
}

/// Larger sizes mean that the file is corrupt.
pub(crate) const LARGEST: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn config(changes: Value) -> Result<(VisionConfig, ImageTokens)> {
        let mut vision = json!({
            "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16,
            "in_chans": 3, "out_hidden_size": 3584, "tokens_per_second": 2,
            "fullatt_block_indexes": [7, 15, 23, 31], "spatial_patch_size": 14,
        });
        for (field, value) in changes.as_object().unwrap() {
            vision[field] = value.clone();
        }
        let whole = json!({"image_token_id": 9, "vision_config": vision});
        of_json(&whole, Path::new("model/config.json"))
    }

    #[test]
    fn the_parameter_count_matches_the_7b() {
        let (config, tokens) = config(json!({})).unwrap();
        assert_eq!(config.parameter_count(), 676_550_144);
        assert_eq!((tokens.image_token_id, tokens.video_token_id), (9, 151_656));
        assert_eq!((config.head_dim(), config.patch_elements()), (80, 1176));
    }

    #[test]
    fn the_channels_may_have_either_name_or_both() {
        assert_eq!(config(json!({"in_channels": 3})).unwrap().0.in_channels, 3);
        assert!(config(json!({"in_chans": 4})).is_err());
    }

    #[test]
    fn missing_and_invalid_fields_are_named() {
        let message = |changes| config(changes).unwrap_err().to_string();
        assert!(message(json!({"num_heads": 7})).contains("vision_config.num_heads"));
        assert!(message(json!({"window_size": 20})).contains("window_size"));
        assert!(message(json!({"hidden_act": "relu"})).contains("hidden_act"));
        assert!(message(json!({"depth": "many"})).contains("config.json"));
        let message = of_json(&json!({}), Path::new("model/config.json")).unwrap_err().to_string();
        assert!(message.contains("`model` is a text model"), "{message}");
    }
}
