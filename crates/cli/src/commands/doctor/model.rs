//! Completeness of a model in the Hugging Face layout, a GGUF file, or an adapter.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use embodied_r_policy::tokenizer::{ChatMessage, GenerationPrompt, Tokenizer};
use embodied_r_policy::{Adapter, Error, GgufModel, ModelConfig, gguf, lora};
use serde_json::Value;

use super::check::{Check, size};

const AREA: &str = "model";
const ADAPTER: &str = "adapter";
const BASE: &str = "put the adapter's base model at that path";
const FETCH: &str = "download the model again, with all of its files";
const ONE_FILE: &str = "give the path of one file";
const INDEX: &str = "model.safetensors.index.json";
const SINGLE: &str = "model.safetensors";

/// Maximum header size of the safetensors format.
const HEADER_LIMIT: u64 = 100_000_000;

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
    checks.extend(weights(folder, memory));
    checks
}

/// Checks an adapter against its base model, then the base model.
fn adapter_checks(folder: &Path, base: &Path, memory: Option<u64>) -> Vec<Check> {
    let opened = ModelConfig::of_model(base).and_then(|config| Adapter::open(folder, &config));
    let adapter = match opened {
        Ok(adapter) => {
            let found = format!("adapts {} weights of `{}`", adapter.len(), base.display());
            Check::ok(AREA, ADAPTER, found)
        }
        Err(error) => Check::missing(AREA, ADAPTER, error.to_string(), BASE),
    };
    std::iter::once(adapter).chain(checks(base, memory)).collect()
}

/// Checks a GGUF file, which holds configuration, tokenizer and weights; opening it verifies that they match.
fn gguf_checks(file: &Path, memory: Option<u64>) -> Vec<Check> {
    let name = "GGUF file";
    let model = match GgufModel::open(file) {
        Ok(model) => model,
        Err(error) => {
            let advice = "use an intact file of a Qwen2, Qwen2.5, Qwen2.5-VL or Llama model";
            return vec![Check::missing(AREA, name, error.to_string(), advice)];
        }
    };
    let config = model.config();
    let parameters = config.parameter_count();
    let family = config.model_type.name();
    let found = format!("{family}, {:.1} million parameters", parameters as f64 / 1e6);
    let mut checks = vec![Check::ok(AREA, name, found)];
    checks.extend(tokenizer(file, Some(config)));
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
            let advice = "use a Qwen2, Qwen2.5, Qwen2.5-VL or Llama model";
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

fn weights(folder: &Path, memory: Option<u64>) -> Vec<Check> {
    let expected = match expected_shards(folder) {
        Ok(expected) => expected,
        Err(check) => return vec![check],
    };
    let mut checks = Vec::new();
    let (mut bytes, mut parameters, mut whole) = (0, 0, 0);
    for (shard, tensors) in &expected {
        let fault = match read_shard(&folder.join(shard)) {
            Err(fault) => fault,
            Ok(found) => match tensors.iter().find(|name| !found.names.contains(*name)) {
                Some(name) => format!("lacks tensor `{name}`, which `{INDEX}` maps to it"),
                None => {
                    bytes += found.bytes;
                    parameters += found.parameters;
                    whole += 1;
                    continue;
                }
            },
        };
        checks.push(Check::missing(AREA, shard, fault, FETCH));
    }
    if checks.is_empty() {
        let found = format!(
            "{whole} of {whole} files, {:.1} million parameters, {}",
            parameters as f64 / 1e6,
            size(bytes)
        );
        checks.push(Check::ok(AREA, "weights", found));
        checks.extend(memory.and_then(|memory| fits(parameters, memory)));
    }
    checks
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

/// The expected weight files, with the tensors that the index maps to each.
fn expected_shards(folder: &Path) -> Result<BTreeMap<String, Vec<String>>, Check> {
    // As in the loader, a single file takes precedence over an index.
    if folder.join(SINGLE).exists() {
        return Ok(BTreeMap::from([(SINGLE.to_owned(), Vec::new())]));
    }
    let index = folder.join(INDEX);
    if !index.exists() {
        let found = format!("neither `{SINGLE}` nor `{INDEX}`");
        return Err(Check::missing(AREA, "weights", found, FETCH));
    }
    let fault = |found: String| Check::missing(AREA, INDEX, found, FETCH);
    let index = read_json(&index).map_err(fault)?;
    let map = index["weight_map"].as_object().filter(|map| !map.is_empty());
    let map = map.ok_or_else(|| fault("has no `weight_map`".to_owned()))?;
    let mut shards = BTreeMap::<String, Vec<String>>::new();
    for (tensor, shard) in map {
        let shard = shard.as_str().ok_or_else(|| fault(format!("`{tensor}` has no file name")))?;
        shards.entry(shard.to_owned()).or_default().push(tensor.clone());
    }
    Ok(shards)
}

/// The header of an intact safetensors file.
struct Shard {
    names: BTreeSet<String>,
    bytes: u64,
    parameters: u64,
}

/// Reads the header of a safetensors file and checks the file's length against it.
fn read_shard(path: &Path) -> Result<Shard, String> {
    let mut file = File::open(path).map_err(describe_io)?;
    let length = file.metadata().map_err(describe_io)?.len();
    let mut prefix = [0; 8];
    file.read_exact(&mut prefix).map_err(|_| "empty or truncated".to_owned())?;
    if &prefix == b"version " {
        return Err("a Git LFS pointer, not the file itself; run `git lfs pull`".to_owned());
    }
    let header_length = u64::from_le_bytes(prefix);
    if header_length > HEADER_LIMIT || 8 + header_length > length {
        return Err("not a safetensors file, or truncated".to_owned());
    }
    let mut header = Vec::new();
    file.take(header_length).read_to_end(&mut header).map_err(describe_io)?;
    let header: BTreeMap<String, Value> = serde_json::from_slice(&header)
        .map_err(|_| "its header cannot be parsed as JSON".to_owned())?;

    let mut shard = Shard { names: BTreeSet::new(), bytes: length, parameters: 0 };
    let mut end = 0;
    for (name, tensor) in header {
        if name == "__metadata__" {
            continue;
        }
        let offset = tensor["data_offsets"][1].as_u64();
        end = end.max(offset.ok_or_else(|| format!("tensor `{name}` has no `data_offsets`"))?);
        let shape = tensor["shape"].as_array().map_or(&[][..], Vec::as_slice);
        shard.parameters += shape.iter().filter_map(Value::as_u64).product::<u64>();
        shard.names.insert(name);
    }
    let whole = 8 + header_length + end;
    if length < whole {
        return Err(format!("truncated: {} of {}", size(length), size(whole)));
    }
    Ok(shard)
}

fn read_json(path: &Path) -> Result<Value, String> {
    let text = std::fs::read_to_string(path).map_err(describe_io)?;
    serde_json::from_str(&text).map_err(|error| format!("cannot be parsed: {error}"))
}

fn describe_io(error: std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "not found".to_owned(),
        _ => format!("cannot be read: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::State;
    use super::*;

    fn write(folder: &Path, name: &str, bytes: impl AsRef<[u8]>) {
        std::fs::write(folder.join(name), bytes).unwrap();
    }

    /// A safetensors file with one f32 tensor of four numbers, called `name`.
    fn shard(name: &str) -> Vec<u8> {
        let header =
            format!(r#"{{"{name}":{{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}}}"#);
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend([0; 16]);
        bytes
    }

    fn two_shards() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        write(
            folder.path(),
            INDEX,
            r#"{"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}"#,
        );
        write(folder.path(), "1.safetensors", shard("a"));
        write(folder.path(), "2.safetensors", shard("b"));
        folder
    }

    /// Names of the weights that are missing, with what was found.
    fn missing(folder: &Path) -> Vec<(String, String)> {
        let checks = weights(folder, None).into_iter();
        let checks = checks.filter(|check| check.state == State::Missing);
        checks.map(|check| (check.name, check.found)).collect()
    }

    #[test]
    fn intact_shards_are_counted() {
        let folder = two_shards();
        let weights = weights(folder.path(), Some(32));
        assert_eq!(weights.len(), 1);
        assert_eq!(weights[0].state, State::Ok);
        assert!(weights[0].found.starts_with("2 of 2 files, 0.0 million"), "{weights:?}");
    }

    #[test]
    fn a_shard_that_the_index_names_and_the_folder_lacks_is_missing() {
        let folder = two_shards();
        std::fs::remove_file(folder.path().join("2.safetensors")).unwrap();
        assert_eq!(missing(folder.path()), [("2.safetensors".into(), "not found".into())]);
    }

    #[test]
    fn a_truncated_download_is_detected_by_its_length() {
        let folder = two_shards();
        let whole = shard("a");
        write(folder.path(), "1.safetensors", &whole[..whole.len() - 1]);
        let missing = missing(folder.path());
        assert_eq!(missing.len(), 1);
        assert!(missing[0].1.starts_with("truncated"), "{missing:?}");
    }

    #[test]
    fn a_git_lfs_pointer_is_identified() {
        let folder = two_shards();
        write(folder.path(), "1.safetensors", "version https://git-lfs.github.com/spec/v1\n");
        assert!(missing(folder.path())[0].1.contains("Git LFS"));
    }

    #[test]
    fn a_shard_without_the_tensor_that_the_index_maps_to_it_is_missing() {
        let folder = two_shards();
        write(folder.path(), "1.safetensors", shard("c"));
        assert!(missing(folder.path())[0].1.contains("lacks tensor `a`"));
    }

    #[test]
    fn a_header_longer_than_the_file_is_not_safetensors() {
        let folder = two_shards();
        write(folder.path(), "1.safetensors", [0xff; 64]);
        assert!(missing(folder.path())[0].1.contains("not a safetensors file"));
    }

    #[test]
    fn an_empty_folder_lacks_configuration_tokenizer_and_weights() {
        let folder = tempfile::tempdir().unwrap();
        let checks = checks(folder.path(), None);
        let found: Vec<_> = checks.iter().map(|check| (check.name.as_str(), check.state)).collect();
        let missing = ["config.json", "tokenizer.json", "weights"];
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
