//! The model that `plan` estimates for.

use std::path::Path;

use embodied_r_policy::ModelConfig;
use embodied_r_policy::config::published_names;
use embodied_r_vision::VisionConfig;

use crate::exit::Usage;

/// The decoder's configuration, from its files or its published name.
pub(super) fn shape(model: &str) -> anyhow::Result<ModelConfig> {
    let path = Path::new(model);
    if path.exists() {
        return ModelConfig::of_model(path).map_err(|error| Usage(error.to_string()).into());
    }
    ModelConfig::published(model).ok_or_else(|| {
        let known = published_names().collect::<Vec<_>>().join(", ");
        let what = format!(
            "unknown model `{model}`, neither a directory nor a GGUF file; available: {known}"
        );
        Usage(what).into()
    })
}

/// The vision encoder's configuration, from its files or its published name.
pub(super) fn tower(name: &str) -> anyhow::Result<VisionConfig> {
    let path = Path::new(name);
    if path.exists() {
        return VisionConfig::of_model(path).map_err(|error| Usage(error.to_string()).into());
    }
    let unknown = || {
        Usage(format!(
            "unknown vision-language model `{name}`; give its directory, or the Hub ID of a Qwen2.5-VL or Qwen3-VL model"
        ))
    };
    VisionConfig::published(name).ok_or_else(|| unknown().into())
}
