//! The small base model embedded in the program.

use std::path::Path;

use embodied_r_files::write_atomic;

/// The files; `pretrain.json` records how they were made.
const FILES: [(&str, &[u8]); 6] = [
    ("config.json", include_bytes!("../../../base/config.json")),
    ("generation_config.json", include_bytes!("../../../base/generation_config.json")),
    ("model.safetensors", include_bytes!("../../../base/model.safetensors")),
    ("pretrain.json", include_bytes!("../../../base/pretrain.json")),
    ("tokenizer.json", include_bytes!("../../../base/tokenizer.json")),
    ("tokenizer_config.json", include_bytes!("../../../base/tokenizer_config.json")),
];

/// Writes the model into `dir`.
pub(crate) fn unpack(dir: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir).map_err(embodied_r_files::Error::io("create", dir))?;
    for (name, bytes) in FILES {
        write_atomic(&dir.join(name), bytes)?;
    }
    Ok(())
}
