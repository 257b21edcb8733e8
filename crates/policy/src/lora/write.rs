//! Writes an adapter in `peft`'s format.

use std::path::Path;

use embodied_r_files::write_json_in_existing_folder;
use indexmap::{IndexMap, IndexSet};
use serde_json::{Value, json};

use super::read::PREFIX;
use super::settings::A;
use super::{BASE_FINGERPRINT, CONFIG_FILE, EncoderModule, Lora, WEIGHTS_FILE};
use crate::config::WeightDtype;
use crate::error::Result;
use crate::weights::{self, ENCODER};

/// The class of the base model in `transformers`, which decides the tensor names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BaseModel {
    /// A text model.
    Text,
    /// A multimodal model, whose decoder's names have another prefix.
    Multimodal,
}

impl Lora {
    /// Writes settings and tensors into `dir`, for `peft` to load onto the base model.
    ///
    /// # Errors
    /// A file cannot be written.
    pub(crate) fn save(&self, dir: &Path, base_model: BaseModel, dtype: WeightDtype) -> Result<()> {
        let root = match base_model {
            BaseModel::Text => "model.",
            BaseModel::Multimodal => "model.language_model.",
        };
        let named = |name: &str| {
            let rest = name.strip_prefix("model.").unwrap_or(name);
            format!("{PREFIX}{root}{rest}")
        };
        let of_encoder =
            |name: &str| format!("{PREFIX}model.{}", weights::of_encoder(name).unwrap_or(name));
        let encoder = self.encoder.iter().map(|(name, tensor)| (of_encoder(name), tensor));
        let decoder = self.tensors.iter().map(|(name, tensor)| (named(name), tensor));
        let tensors: Vec<_> = decoder.chain(encoder).collect();
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
            // The encoder has modules of the same names, which must not match unless they are adapted.
            BaseModel::Multimodal => {
                let decoder = format!(r"model\.language_model(?=\.).*\.({})", names.join("|"));
                match self.encoder_targets() {
                    Some(encoder) => json!(format!("^({decoder}|{encoder})$")),
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

    /// A regular expression of the adapted layers of the encoder; `None` if there are none.
    fn encoder_targets(&self) -> Option<String> {
        let escaped = |name: &str| name.replace('.', r"\.");
        let layers = self.encoder.keys().filter_map(|name| name.strip_suffix(A)?.strip_suffix('.'));
        let mut names: IndexMap<String, IndexSet<String>> = IndexMap::new();
        for layer in layers {
            let module = EncoderModule::of_layer(weights::of_encoder(layer).unwrap_or(layer));
            let within = |name: &str| escaped(name.strip_prefix(ENCODER).unwrap_or(name));
            let list = module.list().map(|list| format!(r"{}\.\d+\.", within(list)));
            names.entry(list.unwrap_or_default()).or_default().insert(within(module.name()));
        }
        let part = |(list, names): (&String, &IndexSet<String>)| {
            format!("{list}({})", names.iter().map(String::as_str).collect::<Vec<_>>().join("|"))
        };
        let parts: Vec<String> = names.iter().map(part).collect();
        (!parts.is_empty()).then(|| format!(r"model\.{}({})", escaped(ENCODER), parts.join("|")))
    }
}
