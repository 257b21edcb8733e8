//! A vision encoder in llama.cpp's `mmproj` GGUF file, next to the decoder's.
//!
//! Keys and names are those of llama.cpp's converter; what a family has of its own is in its [`GgufFormat`]. Missing values
//! default to the published models'.

mod weights;

use std::path::Path;

use embodied_r_policy::tokenizer::{Tokenizer, VISION_TOKENS};
use embodied_r_policy::{GgufFault, GgufFile, GgufModel, WeightPlacement, gguf};
use serde_json::{Map, Value, json};

use crate::config::{self, ImageTokens, VisionConfig};
use crate::error::{Error, Result};
use crate::family::GgufFormat;
use crate::processor::{self, Settings, VideoRules};
use weights::MmprojWeights;

const ARCHITECTURE: &str = "general.architecture";

/// The projector type; multimodal files have one per modality.
const PROJECTORS: [&str; 2] = ["clip.vision.projector_type", "clip.projector_type"];

/// An open file.
pub(crate) struct Mmproj {
    file: GgufFile,
    format: &'static GgufFormat,
    /// The decoder's file, which has the tokenizer.
    decoder: GgufFile,
}

impl Mmproj {
    /// Opens the `mmproj` file of `decoder`.
    ///
    /// # Errors
    /// [`Error::Processor`] if it is not a vision tower of a supported family; an error of the decoder's file if that
    /// cannot be loaded, or is of another family.
    pub(super) fn open(path: &Path, decoder: &Path) -> Result<Self> {
        let file = GgufFile::open(path)?;
        let format = format(&file)?;
        // All tensors of the decoder are checked, too.
        GgufModel::open(decoder)?;
        let opened = Self { file, format, decoder: GgufFile::open(decoder)? };
        opened.check_decoder_family()?;
        Ok(opened)
    }

    /// The decoder has to be of the tower's family.
    fn check_decoder_family(&self) -> Result<()> {
        let GgufFormat { name, decoder: want, .. } = self.format;
        match self.decoder.text(ARCHITECTURE)? {
            Some(found) if found == *want => Ok(()),
            found => {
                let file = self.file.path().display();
                let want = format!("`{want}`, because `{file}` is a vision tower of {name}");
                Err(self.decoder_fault(ARCHITECTURE.to_owned(), quoted(found), want))
            }
        }
    }

    /// The decoder has to have as many DeepStack layers as the tower has mergers for, if it says.
    fn check_deepstack(&self, tower: &VisionConfig) -> Result<()> {
        let key = format!("{}.n_deepstack_layers", self.format.decoder);
        let want = tower.feature_levels() as u64 - 1;
        match self.decoder.count(&key)? {
            Some(found) if found != want => {
                let want = format!("{want}, as in `{}`", self.file.path().display());
                Err(self.decoder_fault(key, found.to_string(), want))
            }
            _ => Ok(()),
        }
    }

    fn decoder_fault(&self, key: String, found: String, want: String) -> Error {
        self.decoder.error(GgufFault::Value { key, found, want }).into()
    }

    fn size(&self, field: &str) -> Result<u64> {
        let key = format!("clip.vision.{field}");
        let missing = || self.file.error(GgufFault::Missing { key: key.clone() });
        Ok(self.file.count(&key)?.ok_or_else(missing)?)
    }

    /// The fields of `vision_config`.
    fn vision_fields(&self) -> Result<Value> {
        let depth = self.size("block_count")?;
        let mut vision = (self.format.fields)(&self.file, depth)?;
        for (field, key) in [
            ("hidden_size", "embedding_length"),
            ("intermediate_size", "feed_forward_length"),
            ("num_heads", "attention.head_count"),
            ("patch_size", "patch_size"),
            ("out_hidden_size", "projection_dim"),
        ] {
            vision[field] = self.size(key)?.into();
        }
        if let Some(size) = self.file.count("clip.vision.spatial_merge_size")? {
            vision["spatial_merge_size"] = size.into();
        }
        vision["depth"] = depth.into();
        vision["model_type"] = self.format.model_type.into();
        Ok(vision)
    }

    /// The tower's configuration alone, without reading the tokenizer.
    pub(super) fn vision_config(&self) -> Result<VisionConfig> {
        let whole = json!({ "vision_config": self.vision_fields()? });
        Ok(config::of_json(&whole, self.file.path())?.0)
    }

    pub(super) fn config(&self) -> Result<(VisionConfig, ImageTokens)> {
        let mut whole = json!({ "vision_config": self.vision_fields()? });
        let tokenizer = Tokenizer::from_dir(self.decoder.path())?;
        let [_, _, image, video] = VISION_TOKENS;
        for (field, token) in [("image_token_id", image), ("video_token_id", video)] {
            if let Some(id) = tokenizer.token_id(token) {
                whole[field] = id.into();
            }
        }
        let (tower, tokens) = config::of_json(&whole, self.file.path())?;
        self.check_deepstack(&tower)?;
        Ok((tower, tokens))
    }

    /// Processor files next to the model take precedence. Without them, the settings are those of the family's published
    /// models ([`processor_files`](crate::family::VisionFamily::processor_files)) with the values of the file, whose limits
    /// are those of images.
    pub(super) fn settings(&self, rules: &VideoRules) -> Result<(Settings, Settings)> {
        let folder = gguf::folder(self.decoder.path())?;
        if let Some(settings) = processor::of_folder(&folder, rules)? {
            return Ok(settings);
        }
        let limits =
            self.counts(&[("min_pixels", "image_min_pixels"), ("max_pixels", "image_max_pixels")])?;
        let mut of_both =
            self.counts(&[("patch_size", "patch_size"), ("merge_size", "spatial_merge_size")])?;
        for field in ["image_mean", "image_std"] {
            let found = self.file.numbers(&format!("clip.vision.{field}"))?;
            of_both.extend(found.map(|found| (field.to_owned(), Value::from(found))));
        }
        let set = |fields: &mut Value, values: &Map<String, Value>| {
            values.iter().for_each(|(field, value)| fields[field] = value.clone());
        };
        let mut files = self.vision_config()?.family().processor_files();
        set(&mut files.images, &of_both);
        set(&mut files.images, &limits);
        if let Some(videos) = &mut files.videos {
            set(videos, &of_both);
        }
        processor::of_files(files, self.file.path(), rules)
    }

    /// The processor's fields that the file has, by the names of both.
    fn counts(&self, fields: &[(&str, &str)]) -> Result<Map<String, Value>> {
        let mut found = Map::new();
        for (field, key) in fields {
            let count = self.file.count(&format!("clip.vision.{key}"))?;
            found.extend(count.map(|count| ((*field).to_owned(), Value::from(count))));
        }
        Ok(found)
    }

    /// The tower's weights in the file's format, on the placement's device.
    pub(super) fn weights(&self, placement: &WeightPlacement) -> Result<MmprojWeights<'_>> {
        let layout = self.vision_config()?.layout();
        Ok(MmprojWeights::new(&self.file, self.format, &layout, placement.clone()))
    }
}

/// What a file is, by its metadata.
fn format(file: &GgufFile) -> Result<&'static GgufFormat> {
    let unsupported = |key: &str, found: Option<&str>, expected: &str| {
        let fault = format!("`{key}` must be {expected}, not {}", quoted(found));
        Error::Processor { path: file.path().to_owned(), fault }
    };
    let found = file.text(ARCHITECTURE)?;
    if found != Some("clip") {
        return Err(unsupported(ARCHITECTURE, found, "`clip` (a vision tower)"));
    }
    let [of_vision, of_file] = PROJECTORS.map(|key| file.text(key));
    let found = of_vision?.or(of_file?);
    let format = GgufFormat::ALL.into_iter().find(|format| found == Some(format.projector));
    format.ok_or_else(|| {
        let known = GgufFormat::ALL.map(|known| format!("`{}` ({})", known.projector, known.name));
        unsupported(PROJECTORS[1], found, &known.join(" or "))
    })
}

fn quoted(found: Option<&str>) -> String {
    found.map_or("missing".to_owned(), |found| format!("`{found}`"))
}
