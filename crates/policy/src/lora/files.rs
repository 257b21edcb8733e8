//! The files of an adapter.

/// The adapter's configuration file.
pub const CONFIG_FILE: &str = "adapter_config.json";

/// The adapter's weight file.
pub const WEIGHTS_FILE: &str = "adapter_model.safetensors";

/// The entry in the metadata of the weight file that has the base model's [`crate::weights_fingerprint`].
pub(crate) const BASE_FINGERPRINT: &str = "base_model_fingerprint";
