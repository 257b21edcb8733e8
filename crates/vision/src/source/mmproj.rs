//! A vision encoder in llama.cpp's `mmproj` GGUF file, next to the decoder's.
//!
//! Keys and names are those of llama.cpp's converter for Qwen2.5-VL. Missing values default to the published models'.

use std::path::{Path, PathBuf};

use candle_core::Tensor;
use embodied_r_kernels::memory;
use embodied_r_kernels::weight::Weight;
use embodied_r_policy::tokenizer::Tokenizer;
use embodied_r_policy::{GgufFault, GgufFile, GgufTensor, WeightPlacement, gguf};
use serde_json::{Map, Value, json};

use crate::config::{self, ImageTokens, VisionConfig};
use crate::error::{Error, Result};
use crate::family::LARGEST;
use crate::layout;
use crate::layout::TowerPart;
use crate::linear::Linear;
use crate::processor::{self, Settings};
use crate::tower_weights::TowerWeights;

const ARCHITECTURE: &str = "general.architecture";

/// The projector type; multimodal files have one per modality.
const PROJECTORS: [&str; 2] = ["clip.vision.projector_type", "clip.projector_type"];

/// Qwen2.5-VL's projector type.
const PROJECTOR: &str = "qwen2.5vl_merger";

/// Every n-th block has full attention; all do without it.
const FULL_BLOCKS: &str = "clip.vision.n_wa_pattern";

/// The placeholder tokens of images and videos.
const PLACEHOLDER_TOKENS: [&str; 2] = ["<|image_pad|>", "<|video_pad|>"];

/// An open file.
pub(crate) struct Mmproj {
    file: GgufFile,
    /// The decoder's file, which has the tokenizer.
    decoder: PathBuf,
}

impl Mmproj {
    /// Opens the `mmproj` file of `decoder`.
    ///
    /// # Errors
    /// [`Error::Processor`] if it is not a vision tower of Qwen2.5-VL.
    pub(super) fn open(path: &Path, decoder: &Path) -> Result<Self> {
        let opened = Self { file: GgufFile::open(path)?, decoder: decoder.to_owned() };
        let found = opened.file.text(ARCHITECTURE)?;
        if found != Some("clip") {
            return Err(opened.unsupported(ARCHITECTURE, found, "`clip` (a vision tower)"));
        }
        let [of_vision, of_file] = PROJECTORS.map(|key| opened.file.text(key));
        let found = of_vision?.or(of_file?);
        if found != Some(PROJECTOR) {
            let expected = "`qwen2.5vl_merger` (the tower of Qwen2.5-VL)";
            return Err(opened.unsupported(PROJECTORS[1], found, expected));
        }
        Ok(opened)
    }

    fn unsupported(&self, key: &str, found: Option<&str>, expected: &str) -> Error {
        let found = found.map_or("missing".to_owned(), |found| format!("`{found}`"));
        let path = self.file.path().to_owned();
        Error::Processor { path, fault: format!("`{key}` must be {expected}, not {found}") }
    }

    fn size(&self, field: &str) -> Result<u64> {
        let key = format!("clip.vision.{field}");
        let missing = || self.file.error(GgufFault::Missing { key: key.clone() });
        Ok(self.file.count(&key)?.ok_or_else(missing)?)
    }

    pub(super) fn config(&self) -> Result<(VisionConfig, ImageTokens)> {
        let depth = self.size("block_count")?;
        let every = self.file.count(FULL_BLOCKS)?.unwrap_or_default().max(1);
        let blocks = 1..=depth.min(LARGEST as u64);
        let full_blocks: Vec<u64> =
            blocks.filter(|block| block.is_multiple_of(every)).map(|block| block - 1).collect();
        let mut vision = json!({
            "depth": depth,
            "hidden_size": self.size("embedding_length")?,
            "intermediate_size": self.size("feed_forward_length")?,
            "num_heads": self.size("attention.head_count")?,
            "patch_size": self.size("patch_size")?,
            "out_hidden_size": self.size("projection_dim")?,
            "fullatt_block_indexes": full_blocks,
            "tokens_per_second": 2,
        });
        for field in ["spatial_merge_size", "window_size"] {
            if let Some(size) = self.file.count(&format!("clip.vision.{field}"))? {
                vision[field] = size.into();
            }
        }
        let mut whole = json!({ "vision_config": vision });
        let tokenizer = Tokenizer::from_dir(&self.decoder)?;
        for (field, token) in
            ["image_token_id", "video_token_id"].into_iter().zip(PLACEHOLDER_TOKENS)
        {
            if let Some(id) = tokenizer.token_id(token) {
                whole[field] = id.into();
            }
        }
        config::of_json(&whole, self.file.path())
    }

    /// Processor files next to the model take precedence.
    pub(super) fn settings(&self) -> Result<(Settings, Settings)> {
        let folder = gguf::folder(&self.decoder)?;
        if let Some(settings) = processor::of_folder(&folder)? {
            return Ok(settings);
        }
        let mut fields = Map::new();
        fields.insert("patch_size".to_owned(), self.size("patch_size")?.into());
        for (field, key) in [
            ("merge_size", "spatial_merge_size"),
            ("min_pixels", "image_min_pixels"),
            ("max_pixels", "image_max_pixels"),
        ] {
            let found = self.file.count(&format!("clip.vision.{key}"))?;
            fields.extend(found.map(|found| (field.to_owned(), Value::from(found))));
        }
        for field in ["image_mean", "image_std"] {
            let found = self.file.numbers(&format!("clip.vision.{field}"))?;
            fields.extend(found.map(|found| (field.to_owned(), Value::from(found))));
        }
        processor::of_json(fields.into(), self.file.path())
    }

    /// The tower's weights in the file's format, on the placement's device.
    pub(super) fn weights(&self, placement: &WeightPlacement) -> MmprojWeights<'_> {
        MmprojWeights { file: &self.file, placement: placement.clone() }
    }
}

/// A file's tensors.
pub(super) struct MmprojWeights<'a> {
    file: &'a GgufFile,
    placement: WeightPlacement,
}

impl MmprojWeights<'_> {
    fn matrix(&self, name: &str, shape: [usize; 2]) -> Result<Weight> {
        match self.file.tensor(name, &shape)? {
            GgufTensor::Matrix(matrix) => Ok(self.placement.blocks(&matrix)?),
            GgufTensor::Vector(tensor) => Ok(Weight::f32(&self.placement.vector(&tensor)?)?),
        }
    }

    fn vector(&self, name: &str, width: usize) -> Result<Tensor> {
        let vector = self.file.tensor(name, &[width])?.dequantize()?;
        Ok(self.placement.vector(&vector)?)
    }

    /// Files of towers with learned positions are not read.
    fn no_positions(&self) -> Error {
        self.file.error(GgufFault::Missing { key: "v.position_embd.weight".to_owned() }).into()
    }

    fn layer(&self, name: &str, outputs: usize, inputs: usize) -> Result<Linear> {
        let weight = self.matrix(&format!("{name}.weight"), [outputs, inputs])?;
        Ok(Linear::new(weight, self.vector(&format!("{name}.bias"), outputs)?))
    }
}

/// The file's name of a vector.
fn stored_vector(name: &str) -> String {
    let (stem, part) = name.rsplit_once('.').unwrap_or((name, "weight"));
    format!("{}.{part}", stored_name(stem))
}

/// The patch embeddings of the two frames of a patch.
const PATCHES: [&str; 2] = ["v.patch_embd.weight", "v.patch_embd.weight.1"];

fn patches_shape(config: &VisionConfig) -> [usize; 4] {
    [config.hidden_size, config.in_channels, config.patch_size, config.patch_size]
}

/// The names of the parts of a fused projection.
fn qkv_names(fused: &str) -> [String; 3] {
    let block = fused.trim_start_matches("blocks.").split('.').next().unwrap_or_default();
    ["q", "k", "v"].map(|letter| format!("v.blk.{block}.attn_{letter}"))
}

/// The file's name of a weight.
fn stored_name(name: &str) -> String {
    match name {
        "merger.ln_q" => return "v.post_ln".to_owned(),
        "merger.mlp.0" => return "mm.0".to_owned(),
        "merger.mlp.2" => return "mm.2".to_owned(),
        _ => {}
    }
    let in_block = name.strip_prefix("blocks.").and_then(|rest| rest.split_once('.'));
    let Some((block, part)) = in_block else { return name.to_owned() };
    let part = match part {
        "norm1" => "ln1",
        "norm2" => "ln2",
        "attn.proj" => "attn_out",
        "mlp.gate_proj" => "ffn_gate",
        "mlp.up_proj" => "ffn_up",
        "mlp.down_proj" => "ffn_down",
        other => other,
    };
    format!("v.blk.{block}.{part}")
}

impl TowerWeights for MmprojWeights<'_> {
    /// The file has one matrix for each of a patch's two frames.
    fn patches(&self, config: &VisionConfig) -> Result<Weight> {
        let (hidden, side) = (config.hidden_size, config.patch_size);
        let shape = patches_shape(config);
        let frame = |name: &str| -> Result<Vec<f32>> {
            let matrix = self.file.tensor(name, &shape)?.dequantize()?;
            Ok(memory::floats(&matrix, "read the patches' weights")?.to_vec())
        };
        let frames = [frame(PATCHES[0])?, frame(PATCHES[1])?];
        // (hidden, channels, frames, side, side).
        let one = side * side;
        let channels = hidden * config.in_channels;
        let values = (0..channels).flat_map(|at| {
            frames.iter().flat_map(move |frame| frame[at * one..(at + 1) * one].iter().copied())
        });
        let weight = memory::tensor(values.collect(), (hidden, config.patch_elements()))?;
        Ok(Weight::f32(&self.placement.vector(&weight)?)?)
    }

    fn check(&self, part: &TowerPart, config: &VisionConfig) -> Result<()> {
        let check = |name: &str, shape: &[usize]| self.file.tensor(name, shape).map(|_| ());
        let layer = |name: &str, outputs: usize, inputs: usize| -> Result<()> {
            check(&format!("{name}.weight"), &[outputs, inputs])?;
            Ok(check(&format!("{name}.bias"), &[outputs])?)
        };
        match part {
            TowerPart::Patches => {
                PATCHES.iter().try_for_each(|name| check(name, &patches_shape(config)))?;
            }
            TowerPart::Vector(name, width) => check(&stored_vector(name), &[*width])?,
            TowerPart::Positions(_) => return Err(self.no_positions()),
            TowerPart::Linear(name, outputs, inputs) => {
                layer(&stored_name(name), *outputs, *inputs)?;
            }
            TowerPart::Qkv(block, width) => qkv_names(&layout::qkv_name(*block))
                .iter()
                .try_for_each(|name| layer(name, *width, *width))?,
        }
        Ok(())
    }

    fn vector(&self, name: &str, width: usize) -> Result<Tensor> {
        Self::vector(self, &stored_vector(name), width)
    }

    fn positions(&self, _side: usize, _hidden_size: usize) -> Result<Tensor> {
        Err(self.no_positions())
    }

    fn linear(&self, name: &str, outputs: usize, inputs: usize) -> Result<Linear> {
        self.layer(&stored_name(name), outputs, inputs)
    }

    fn qkv(&self, name: &str, width: usize) -> Result<[Linear; 3]> {
        let [q, k, v] = qkv_names(name).map(|name| self.layer(&name, width, width));
        Ok([q?, k?, v?])
    }
}
