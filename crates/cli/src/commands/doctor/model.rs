//! Completeness of a model in the Hugging Face layout, a GGUF file, or an adapter.

use std::path::Path;

use embodied_r_policy::tokenizer::{ChatMessage, GenerationPrompt, Tokenizer};
use embodied_r_policy::weights::{self, StoredDecoder};
use embodied_r_policy::{Adapter, Error, GgufModel, ModelConfig, gguf, lora};

use embodied_r_vision::Error as VisionError;

use super::check::{Check, size};

const AREA: &str = "model";
const ADAPTER: &str = "adapter";
const BASE: &str = "put the adapter's base model at that path";
const FETCH: &str = "download the model again, with all of its files";
const ONE_FILE: &str = "give the path of one file";

/// Checks `folder`; `memory` is the available memory in bytes.
pub(super) fn checks(folder: &Path, memory: Option<u64>) -> Vec<Check> {
    match lora::base_model_dir(folder) {
        Ok(None) => {}
        Ok(Some(base)) => return adapter_checks(folder, &base, memory),
        Err(error) => return vec![Check::missing(AREA, ADAPTER, error.to_string(), BASE)],
    }
    match gguf::find(folder) {
        Ok(None) => {}
        Ok(Some(file)) => return gguf_checks(&file, memory),
        Err(error) => return vec![Check::missing(AREA, "GGUF file", error.to_string(), ONE_FILE)],
    }
    if !folder.is_dir() {
        let found = format!("no directory `{}`", folder.display());
        return vec![Check::missing(
            AREA,
            "folder",
            found,
            "give a model directory with `--model`",
        )];
    }
    let config = ModelConfig::from_dir(folder);
    let mut checks = vec![configuration(config.as_ref())];
    checks.extend(tokenizer(folder, config.as_ref().ok()));
    if let Ok(config) = &config {
        checks.extend(weights(folder, config, memory));
    }
    checks.extend(vision_encoder(folder));
    checks
}

/// Checks an adapter against its base model, then the base model.
fn adapter_checks(folder: &Path, base: &Path, memory: Option<u64>) -> Vec<Check> {
    let adapter = match checked_adapter(folder, base) {
        Ok(adapter) => {
            let found = format!("adapts {} weights of `{}`", adapter.len(), base.display());
            Check::ok(AREA, ADAPTER, found)
        }
        Err(error) => Check::missing(AREA, ADAPTER, error.to_string(), BASE),
    };
    std::iter::once(adapter).chain(checks(base, memory)).collect()
}

/// The adapter in `folder`, which fits its base model.
fn checked_adapter(folder: &Path, base: &Path) -> Result<Adapter, VisionError> {
    let adapter = Adapter::open(folder, &ModelConfig::of_model(base)?)?;
    if adapter.adapts_encoder() {
        embodied_r_vision::check_adapter(folder)?;
    }
    lora::check_base(folder, base)?;
    Ok(adapter)
}

/// Checks a GGUF file, which holds configuration, tokenizer and weights; opening it verifies that they match.
fn gguf_checks(file: &Path, memory: Option<u64>) -> Vec<Check> {
    let name = "GGUF file";
    let model = match GgufModel::open(file) {
        Ok(model) => model,
        Err(error) => {
            let advice = "use an intact file of a Qwen2, Qwen2.5, Qwen2.5-VL, Qwen3 or Llama model";
            return vec![Check::missing(AREA, name, error.to_string(), advice)];
        }
    };
    let config = model.config();
    let parameters = config.parameter_count();
    let family = config.model_type.name();
    let found = format!("{family}, {:.1} million parameters", parameters as f64 / 1e6);
    let mut checks = vec![Check::ok(AREA, name, found)];
    checks.extend(tokenizer(file, Some(config)));
    checks.extend(vision_encoder(file));
    checks.extend(memory.and_then(|memory| fits(parameters as u64, memory)));
    checks
}

fn configuration(config: Result<&ModelConfig, &Error>) -> Check {
    let name = "config.json";
    match config {
        Ok(config) => {
            let millions = config.parameter_count() as f64 / 1e6;
            let family = config.model_type.name();
            Check::ok(AREA, name, format!("{family}, {millions:.1} million parameters"))
        }
        Err(error @ Error::Config { .. }) => {
            let advice = "use a Qwen2, Qwen2.5, Qwen2.5-VL, Qwen3 or Llama model";
            Check::missing(AREA, name, error.to_string(), advice)
        }
        Err(error) => Check::missing(AREA, name, error.to_string(), FETCH),
    }
}

/// Checks the tokenizer, and renders the chat template.
fn tokenizer(folder: &Path, config: Option<&ModelConfig>) -> Vec<Check> {
    let name = "tokenizer.json";
    let tokenizer = match Tokenizer::from_dir(folder) {
        Ok(tokenizer) => tokenizer,
        Err(error) => return vec![Check::missing(AREA, name, error.to_string(), FETCH)],
    };
    let entries = tokenizer.len();
    let rows = config.map_or(usize::MAX, |config| config.vocab_size);
    let vocabulary = if entries > rows {
        let found = format!("{entries} tokens, but the model's vocabulary has {rows}");
        Check::missing(AREA, name, found, "use the model's own tokenizer")
    } else {
        Check::ok(AREA, name, format!("{entries} tokens"))
    };
    let message = ChatMessage { role: "user".to_owned(), content: "?".to_owned() };
    let template = match tokenizer.apply_chat_template(&[message], GenerationPrompt::Append) {
        Ok(_) => Check::ok(AREA, "chat template", "works"),
        Err(error) => {
            let advice = "download `tokenizer_config.json`, or use an instruction-tuned model";
            Check::missing(AREA, "chat template", error.to_string(), advice)
        }
    };
    vec![vocabulary, template]
}

/// Runs the checks of the loader, which read the files' headers: names, shapes, types and places of all tensors.
fn weights(folder: &Path, config: &ModelConfig, memory: Option<u64>) -> Vec<Check> {
    let StoredDecoder { files, bytes, parameters } = match weights::check_headers(folder, config) {
        Ok(stored) => stored,
        Err(error) => return vec![Check::missing(AREA, "weights", error.to_string(), FETCH)],
    };
    let found = format!(
        "{files} of {files} files, {:.1} million parameters, {}",
        parameters as f64 / 1e6,
        size(bytes)
    );
    let fits = memory.and_then(|memory| fits(parameters, memory));
    std::iter::once(Check::ok(AREA, "weights", found)).chain(fits).collect()
}

/// Checks the image processor and the headers of the vision tower, if the model is a vision-language model.
fn vision_encoder(model: &Path) -> Option<Check> {
    let name = "vision encoder";
    match embodied_r_vision::check_headers(model) {
        Ok(()) => Some(Check::ok(AREA, name, "all of its tensors are there")),
        // Text models, and files that the checks above report.
        Err(
            VisionError::NoVision { .. }
            | VisionError::NoMmproj { .. }
            | VisionError::Json { .. }
            | VisionError::Io { .. },
        ) => None,
        Err(error) => Some(Check::missing(AREA, name, error.to_string(), FETCH)),
    }
}

/// A warning if the f32 weights alone, as used on the CPU, exceed the memory.
fn fits(parameters: u64, memory: u64) -> Option<Check> {
    let needed = parameters * 4;
    (needed > memory).then(|| {
        let found = format!("{} in f32, {} of memory available", size(needed), size(memory));
        let advice = "use a smaller model or a machine with more memory";
        Check::warning(AREA, "memory", found, advice)
    })
}

#[cfg(test)]
mod tests {
    use super::super::check::State;
    use super::*;

    fn write(folder: &Path, name: &str, bytes: impl AsRef<[u8]>) {
        std::fs::write(folder.join(name), bytes).unwrap();
    }

    /// A small model in two files, and its configuration.
    fn model() -> (tempfile::TempDir, ModelConfig) {
        let folder = tempfile::tempdir().unwrap();
        let text = r#"{"model_type": "qwen2", "vocab_size": 32, "hidden_size": 8, "intermediate_size": 16,
            "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "rope_theta": 10000.0,
            "rms_norm_eps": 1e-6, "max_position_embeddings": 64, "hidden_act": "silu"}"#;
        write(folder.path(), "config.json", text);
        let config = ModelConfig::from_dir(folder.path()).unwrap();
        let policy = embodied_r_policy::Policy::random(&config, 1).unwrap();
        policy.save(folder.path(), &weights::SaveOptions::default()).unwrap();
        (folder, config)
    }

    const FILE: &str = "model.safetensors";

    /// The file with its header changed by `edit`, which keeps its length.
    fn edited(folder: &Path, edit: impl Fn(&str) -> String) {
        let bytes = std::fs::read(folder.join(FILE)).unwrap();
        let length = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
        let header = std::str::from_utf8(&bytes[8..8 + length]).unwrap();
        let header = format!("{:length$}", edit(header).trim_end());
        assert_eq!(header.len(), length);
        let whole = [&bytes[..8], header.as_bytes(), &bytes[8 + length..]].concat();
        write(folder, FILE, whole);
    }

    fn found(folder: &Path, config: &ModelConfig) -> (State, String) {
        let check = weights(folder, config, None).remove(0);
        (check.state, check.found)
    }

    #[test]
    fn whole_weights_are_counted() {
        let (folder, config) = model();
        let (state, found) = found(folder.path(), &config);
        assert_eq!(state, State::Ok, "{found}");
        assert!(found.starts_with("1 of 1 files, 0.0 million"), "{found}");
    }

    #[test]
    fn what_the_loader_would_refuse_is_missing() {
        let (folder, config) = model();
        let whole = std::fs::read(folder.path().join(FILE)).unwrap();
        let name = "model.layers.0.mlp.up_proj.weight";
        let faults: [(&str, &dyn Fn()); 6] = [
            ("[8, 16]", &|| {
                edited(folder.path(), |header| {
                    let (before, after) = header.split_once(name).unwrap();
                    format!("{before}{name}{}", after.replacen("[16,8]", "[8,16]", 1))
                })
            }),
            (name, &|| {
                edited(folder.path(), |header| header.replace(name, &name.replace("up", "ux")))
            }),
            ("must begin at", &|| {
                edited(folder.path(), |header| {
                    let (before, after) = header.split_once("\"data_offsets\":[").unwrap();
                    let (offsets, after) = after.split_once(']').unwrap();
                    let (_, end) = offsets.split_once(',').unwrap();
                    let end: usize = end.parse().unwrap();
                    format!("{before}\"data_offsets\":[8,{}]{after}", end + 8)
                })
            }),
            ("trailing", &|| write(folder.path(), FILE, [&whole[..], &[0; 8]].concat())),
            ("outside of the", &|| write(folder.path(), FILE, &whole[..whole.len() - 4])),
            ("Git LFS", &|| {
                write(folder.path(), FILE, "version https://git-lfs.github.com/spec/v1\n")
            }),
        ];
        for (expected, damage) in faults {
            damage();
            let (state, found) = found(folder.path(), &config);
            assert_eq!(state, State::Missing, "{expected}: {found}");
            let is_named = found.contains(expected)
                || (expected == "trailing" && found.contains("tensors end at"));
            assert!(is_named, "{expected}: {found}");
            write(folder.path(), FILE, &whole);
        }
    }

    #[test]
    fn an_empty_folder_lacks_configuration_and_tokenizer() {
        let folder = tempfile::tempdir().unwrap();
        let checks = checks(folder.path(), None);
        let found: Vec<_> = checks.iter().map(|check| (check.name.as_str(), check.state)).collect();
        let missing = ["config.json", "tokenizer.json"];
        assert_eq!(found, missing.map(|name| (name, State::Missing)));
    }

    #[test]
    fn a_truncated_gguf_file_is_missing_with_its_fault() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "m.gguf", b"GGUF\x03\x00\x00\x00");
        let checks = checks(folder.path(), None);
        assert_eq!((checks.len(), checks[0].state), (1, State::Missing));
        assert!(checks[0].found.contains("the number of tensors needs 8 bytes"), "{checks:?}");
    }

    #[test]
    fn an_unsupported_model_family_is_named() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "config.json", r#"{"model_type": "mamba"}"#);
        let check = checks(folder.path(), None).remove(0);
        assert_eq!(check.state, State::Missing);
        assert!(check.found.contains("mamba"), "{check:?}");
        assert!(check.advice.unwrap().contains("Qwen2"));
    }

    #[test]
    fn weights_larger_than_the_memory_are_a_warning() {
        assert_eq!(fits(100, 399).unwrap().state, State::Warning);
        assert_eq!(fits(100, 400), None);
    }
}
