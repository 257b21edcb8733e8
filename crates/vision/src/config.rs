//! The vision tower's configuration and the image placeholder tokens, from Hugging Face's `config.json`.

mod published;

use std::ops::Deref;
use std::path::Path;

use embodied_r_kernels::weight::WeightFormat;
use embodied_r_policy::config::ConfigFault;
use indexmap::IndexMap;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::family::{Family, LARGEST, VisionFamily, fault};
use crate::layout::{Stage, TowerLayout, TowerPart};
use crate::sizes::TowerSizes;

/// The configuration of a vision tower: its sizes, and what its family has of its own.
#[derive(Debug, Clone, PartialEq)]
pub struct VisionConfig {
    sizes: TowerSizes,
    /// Base of the rotary position embedding.
    theta: f64,
    family: Family,
}

impl Deref for VisionConfig {
    type Target = TowerSizes;

    fn deref(&self) -> &TowerSizes {
        &self.sizes
    }
}

/// The fields that all families have. Those with a default have one of each family.
#[derive(Deserialize)]
struct Sizes {
    depth: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_heads: usize,
    // The hub's files call it `in_chans`.
    #[serde(default = "three", alias = "in_chans")]
    in_channels: usize,
    patch_size: Option<usize>,
    #[serde(default = "two")]
    temporal_patch_size: usize,
    #[serde(default = "two")]
    spatial_merge_size: usize,
    out_hidden_size: usize,
    #[serde(default)]
    rope_parameters: RopeParameters,
}

#[derive(Deserialize)]
#[serde(default)]
struct RopeParameters {
    rope_theta: f64,
}

impl Default for RopeParameters {
    fn default() -> Self {
        Self { rope_theta: 10_000.0 }
    }
}

fn two() -> usize {
    2
}

fn three() -> usize {
    3
}

impl<'de> Deserialize<'de> for VisionConfig {
    /// From a `vision_config`, whose `model_type` says which family it is of.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        Self::of_fields(Value::deserialize(deserializer)?, None).map_err(D::Error::custom)
    }
}

impl VisionConfig {
    /// Reads a `vision_config`; `model_type` is the whole model's, for one that has none itself.
    fn of_fields(mut vision: Value, model_type: Option<&str>) -> serde_json::Result<Self> {
        if let Some(fields) = vision.as_object_mut() {
            // Files that `transformers` has saved again contain both names.
            let has_both = fields.contains_key("in_channels");
            fields.retain(|name, field| !(field.is_null() || has_both && name == "in_chans"));
        }
        let own = vision.get("model_type").and_then(Value::as_str);
        let family = Family::of(own.or(model_type).unwrap_or_default(), &vision)?;
        let Sizes {
            depth,
            hidden_size,
            intermediate_size,
            num_heads,
            in_channels,
            patch_size,
            temporal_patch_size,
            spatial_merge_size,
            out_hidden_size,
            rope_parameters: RopeParameters { rope_theta: theta },
        } = serde_json::from_value(vision)?;
        let sizes = TowerSizes {
            depth,
            hidden_size,
            intermediate_size,
            num_heads,
            in_channels,
            patch_size: patch_size.unwrap_or(family.get().default_patch_size()),
            temporal_patch_size,
            spatial_merge_size,
            out_hidden_size,
        };
        Ok(Self { sizes, theta, family })
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
    let model_type = value.get("model_type").and_then(Value::as_str);
    let config = VisionConfig::of_fields(vision.clone(), model_type).map_err(json)?;
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
            let fits = (1..=LARGEST).contains(&size);
            faults.extend(fault(fits, field, &size, "an integer from 1 to 65536"));
        }
        faults.extend(fault(self.in_channels == 3, "in_channels", &self.in_channels, "3 (RGB)"));
        let heads = self.num_heads.max(1);
        let fits =
            self.hidden_size.is_multiple_of(heads) && (self.hidden_size / heads).is_multiple_of(4);
        let want = "a divisor of `hidden_size` into multiples of 4";
        faults.extend(fault(fits, "num_heads", &self.num_heads, want));
        let theta = self.theta;
        let fits = theta.is_finite() && theta > 1.0;
        faults.extend(fault(fits, "rope_theta", &theta, "a number above 1"));
        if faults.is_empty() {
            faults = self.family().faults(self);
        }
        if faults.is_empty() { Ok(()) } else { Err(faults) }
    }

    /// Base of the rotary position embedding.
    pub(crate) fn theta(&self) -> f64 {
        self.theta
    }

    /// What the family has of its own.
    pub(crate) fn family(&self) -> &dyn VisionFamily {
        self.family.get()
    }

    /// What the tower is made of.
    pub(crate) fn layout(&self) -> TowerLayout {
        self.family().layout(self)
    }

    /// The parts of the tower in the order of the forward pass.
    pub(crate) fn parts(&self) -> Vec<(Stage, TowerPart)> {
        self.layout().parts(self)
    }

    /// The shapes of the tower's tensors by their names within it, in the order of the forward pass: patch embedding,
    /// blocks, mergers.
    #[must_use]
    pub fn tensor_shapes(&self) -> IndexMap<String, Vec<usize>> {
        self.parts().iter().flat_map(|(_, part)| part.tensors(self)).collect()
    }

    /// The levels of an image's features: one, and one for each merger of DeepStack.
    #[must_use]
    pub fn feature_levels(&self) -> usize {
        self.layout().mergers.len()
    }

    /// Number of parameters.
    #[must_use]
    pub fn parameter_count(&self) -> usize {
        self.parameters(|_| true)
    }

    /// Bytes of the weights with matrices in `format`. Vectors are f32 with f32 matrices, else bf16.
    #[must_use]
    pub fn weight_bytes(&self, format: WeightFormat) -> usize {
        let bytes = |shape: &[usize]| match shape {
            [rows, columns @ ..] if !columns.is_empty() => {
                rows * format.row_bytes(columns.iter().product())
            }
            _ => format.of_vectors().row_bytes(shape.iter().product()),
        };
        self.shapes(|_| true).iter().map(|shape| bytes(shape)).sum()
    }

    /// Number of parameters of the aligner: the mergers.
    #[must_use]
    pub fn aligner_parameter_count(&self) -> usize {
        self.parameters(Stage::is_merger)
    }

    fn parameters(&self, counts: impl Fn(Stage) -> bool) -> usize {
        self.shapes(counts).iter().map(|shape| shape.iter().product::<usize>()).sum()
    }

    /// The shapes of the tensors of some stages.
    fn shapes(&self, counts: impl Fn(Stage) -> bool) -> Vec<Vec<usize>> {
        let parts = self.parts();
        let counted = parts.iter().filter(|(stage, _)| counts(*stage));
        counted.flat_map(|(_, part)| part.tensors(self)).map(|(_, shape)| shape).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use embodied_r_policy::BlockFormat;
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
    fn rows_that_are_no_whole_blocks_are_counted_in_the_format_they_have() {
        let bytes = |size: u32, format| {
            let (config, _) = config(json!({"intermediate_size": size})).unwrap();
            config.weight_bytes(WeightFormat::Blocks(format))
        };
        let more = |more: u32, format| bytes(3328 + more, format) - bytes(3328, format);
        // Per element more of the MLPs' inner size: two rows of 1,280 with a bias each in bf16, and a row of 1,280
        // columns that become longer.
        let rows = |format: BlockFormat| 2 * (format.row_bytes(1280).unwrap() + 2);
        let longer = |format: BlockFormat, size| 1280 * format.row_bytes(size).unwrap();
        let (q4, q5) = (BlockFormat::Q4K, BlockFormat::Q5_0);
        assert_eq!(more(256, q4), 32 * (256 * rows(q4) + longer(q4, 256)));
        // 3,456 is no multiple of 256: its rows have five bits.
        assert_eq!(more(128, q4), 32 * (128 * rows(q4) + longer(q5, 3456) - longer(q4, 3328)));
        // 3,420 is no multiple of 32 either: bf16.
        assert_eq!(more(92, q4), 32 * (92 * rows(q4) + 1280 * 2 * 3420 - longer(q4, 3328)));
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
