//! Which files of a repository a model consists of.

use super::fault::HubFault;
use super::name::{Name, Part, has_quantization, is_gguf};
use crate::lora;
use crate::weights::{INDEX_FILE, SINGLE_FILE};

/// What a command needs of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// The decoder, or an adapter and its base model.
    Decoder,
    /// The decoder and its vision encoder, if it has one.
    VisionEncoder,
    /// An adapter without its base model.
    Adapter,
}

/// The files to download. Weights are last, so that a snapshot with all weights is complete.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Selection {
    pub(super) files: Vec<String>,
    /// The decoder's file, if it is in GGUF.
    pub(super) gguf: Option<String>,
}

/// Selects from `all` files of the repository.
pub(super) fn select(all: &[&str], name: Name<'_>, needs: Needs) -> Result<Selection, HubFault> {
    let decoders = || all.iter().copied().filter(|file| is_decoder(file));
    let available = || decoders().map(str::to_owned).collect::<Vec<_>>();
    let gguf = match name.part {
        Part::Whole => return whole(all, name.repo, needs),
        Part::File(file) if all.contains(&file) => file,
        Part::File(file) => {
            return Err(HubFault::NoFile { file: file.to_owned(), available: available() });
        }
        Part::Quantization(wanted) => {
            let found: Vec<_> = decoders().filter(|file| quantized(file, wanted)).collect();
            match found[..] {
                [file] => file,
                [first, ..] if is_split(first) => first,
                _ => {
                    return Err(HubFault::Quantization {
                        quantization: wanted.to_owned(),
                        several: !found.is_empty(),
                        available: available(),
                    });
                }
            }
        }
    };
    with_vision_encoder(all, gguf, needs)
}

fn whole(all: &[&str], repo: &str, needs: Needs) -> Result<Selection, HubFault> {
    let has = |wanted: &str| all.contains(&wanted);
    let is_adapter = has(lora::CONFIG_FILE) && has(lora::WEIGHTS_FILE);
    let folder = |weights: &dyn Fn(&str) -> bool| {
        let small = all.iter().filter(|file| is_small(file, has(SINGLE_FILE)));
        let files = small.chain(all.iter().filter(|file| weights(file)));
        Ok(Selection { files: files.map(|file| (*file).to_owned()).collect(), gguf: None })
    };
    let is_shard = |file: &str| file.starts_with("model-") && file.ends_with(".safetensors");
    let decoders: Vec<_> = all.iter().copied().filter(|file| is_decoder(file)).collect();
    match &decoders[..] {
        _ if needs == Needs::Adapter => match is_adapter {
            true => folder(&|file| file == lora::WEIGHTS_FILE),
            false => Err(HubFault::NoAdapter),
        },
        _ if has(SINGLE_FILE) => folder(&|file| file == SINGLE_FILE),
        _ if all.iter().any(|file| is_shard(file)) => folder(&is_shard),
        _ if is_adapter => folder(&|file| file == lora::WEIGHTS_FILE),
        [] => Err(HubFault::NoWeights),
        [file] => with_vision_encoder(all, file, needs),
        files => Err(HubFault::SeveralGguf {
            repo: repo.to_owned(),
            available: files.iter().map(|file| (*file).to_owned()).collect(),
        }),
    }
}

/// The decoder's file, and the vision encoder's in the same folder if it is needed.
fn with_vision_encoder(all: &[&str], gguf: &str, needs: Needs) -> Result<Selection, HubFault> {
    if is_split(gguf) {
        return Err(HubFault::Split { file: gguf.to_owned() });
    }
    let folder = |file: &str| file.rfind('/').map(|end| file[..end].to_owned());
    let encoders =
        all.iter().copied().filter(|file| is_mmproj(file) && folder(file) == folder(gguf));
    // The precision that llama.cpp's converter writes by default first.
    let rank = |file: &&str| {
        let place = ["f16", "bf16", "f32"].iter().position(|format| quantized(file, format));
        place.unwrap_or(usize::MAX)
    };
    let encoder = encoders.min_by_key(rank).filter(|_| needs == Needs::VisionEncoder);
    let files = encoder.into_iter().chain([gguf]).map(str::to_owned).collect();
    Ok(Selection { files, gguf: Some(gguf.to_owned()) })
}

/// Configuration, tokenizer and chat template.
fn is_small(file: &str, is_single: bool) -> bool {
    let text = file.ends_with(".json") || file.ends_with(".jinja") || file == "merges.txt";
    let unused_index = file.starts_with("pytorch_model") || (is_single && file == INDEX_FILE);
    text && !file.contains('/') && !unused_index
}

pub(super) fn is_decoder(file: &str) -> bool {
    is_gguf(file) && !is_mmproj(file)
}

pub(super) fn is_mmproj(file: &str) -> bool {
    let name = file.rsplit('/').next().unwrap_or(file);
    is_gguf(file) && name.to_ascii_lowercase().contains("mmproj")
}

/// Whether a file has the quantization `wanted`, also as the first part of several.
fn quantized(file: &str, wanted: &str) -> bool {
    match split_stem(file) {
        Some(stem) => has_quantization(&format!("{stem}.gguf"), wanted),
        None => has_quantization(file, wanted),
    }
}

fn is_split(file: &str) -> bool {
    split_stem(file).is_some()
}

/// `name` of `name-00001-of-00003.gguf`.
fn split_stem(file: &str) -> Option<&str> {
    let stem = file.get(..file.len().checked_sub(".gguf".len())?)?;
    let (rest, count) = stem.rsplit_once("-of-")?;
    let (stem, number) = rest.rsplit_once('-')?;
    let is_number = |text: &str| text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    (is_gguf(file) && is_number(count) && is_number(number)).then_some(stem)
}

#[cfg(test)]
mod tests;
