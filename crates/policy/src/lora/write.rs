//! Writes an adapter in `peft`'s format.

use std::path::Path;

use embodied_r_files::write_json_in_existing_folder;
use serde_json::{Value, json};

use super::read::PREFIX;
use super::settings::A;
use super::vision_module::VisionPart;
use super::{BASE_FINGERPRINT, CONFIG_FILE, Lora, VisionModule, WEIGHTS_FILE};
use crate::config::WeightDtype;
use crate::error::Result;
use crate::weights;

/// The class of the base model in `transformers`, which decides the tensor names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BaseModel {
    /// A text model.
    Text,
    /// A vision-language model, whose decoder's names have another prefix.
    VisionLanguage,
}

impl Lora {
    /// Writes settings and tensors into `dir`, for `peft` to load onto the base model.
    ///
    /// # Errors
    /// A file cannot be written.
    pub(crate) fn save(&self, dir: &Path, base_model: BaseModel, dtype: WeightDtype) -> Result<()> {
        let root = match base_model {
            BaseModel::Text => "model.",
            BaseModel::VisionLanguage => "model.language_model.",
        };
        let named = |name: &str| {
            let rest = name.strip_prefix("model.").unwrap_or(name);
            format!("{PREFIX}{root}{rest}")
        };
        let of_vision = |name: &str| {
            format!("{PREFIX}model.visual.{}", weights::of_vision(name).unwrap_or(name))
        };
        let vision = self.vision.iter().map(|(name, tensor)| (of_vision(name), tensor));
        let decoder = self.tensors.iter().map(|(name, tensor)| (named(name), tensor));
        let tensors: Vec<_> = decoder.chain(vision).collect();
        let tensors = tensors.iter().map(|(name, tensor)| (name.as_str(), *tensor));
        let base = self.config.base_fingerprint.as_deref();
        let metadata: Vec<_> = base.map(|base| (BASE_FINGERPRINT, base)).into_iter().collect();
        weights::save_file_with_metadata(&dir.join(WEIGHTS_FILE), tensors, dtype, &metadata)?;
        // The configuration is written last, so that an interrupted save is not an adapter.
        Ok(write_json_in_existing_folder(&dir.join(CONFIG_FILE), &self.settings(base_model))?)
    }

    fn settings(&self, base_model: BaseModel) -> Value {
        let config = &self.config;
        let names: Vec<&str> =
            config.target_modules.iter().map(|module| module.short_name()).collect();
        let targets = match base_model {
            BaseModel::Text => json!(names),
            // The vision tower has modules of the same names, which must not match unless they are adapted.
            BaseModel::VisionLanguage => {
                let decoder = format!(r"model\.language_model(?=\.).*\.({})", names.join("|"));
                match self.vision_targets() {
                    Some(vision) => json!(format!("^({decoder}|{vision})$")),
                    None => json!(format!("^{decoder}$")),
                }
            }
        };
        json!({
            "alpha_pattern": {},
            "base_model_name_or_path": config.base_model_name_or_path,
            "bias": "none",
            "fan_in_fan_out": false,
            "inference_mode": true,
            "init_lora_weights": true,
            "layers_pattern": null,
            "layers_to_transform": null,
            "lora_alpha": config.lora_alpha,
            "lora_bias": false,
            "lora_dropout": config.lora_dropout,
            "modules_to_save": null,
            "peft_type": "LORA",
            "r": config.r,
            "rank_pattern": {},
            "revision": null,
            "target_modules": targets,
            "task_type": "CAUSAL_LM",
            "use_dora": false,
            "use_rslora": config.use_rslora,
        })
    }

    /// A regular expression of the adapted layers of the vision tower; `None` if there are none.
    fn vision_targets(&self) -> Option<String> {
        let adapted = |module: &&VisionModule| {
            let layers = self.vision.keys().filter_map(|name| name.strip_suffix(&format!(".{A}")));
            let mut layers = layers.map(|layer| weights::of_vision(layer).unwrap_or(layer));
            layers.any(|layer| VisionModule::of_layer(layer) == Some(**module))
        };
        let adapted: Vec<&VisionModule> = VisionModule::ALL.iter().filter(adapted).collect();
        let parts = VisionPart::ALL.into_iter().filter_map(|part| {
            let of_part = adapted.iter().filter(|module| module.part() == part);
            let names: Vec<_> = of_part.map(|it| it.name().replace('.', r"\.")).collect();
            let prefix = part.list().map(|list| format!(r"{list}\.\d+\.")).unwrap_or_default();
            (!names.is_empty()).then(|| format!("{prefix}({})", names.join("|")))
        });
        let parts: Vec<String> = parts.collect();
        (!parts.is_empty()).then(|| format!(r"model\.visual\.({})", parts.join("|")))
    }
}
