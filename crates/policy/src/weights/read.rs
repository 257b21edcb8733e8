//! Reads weight files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use candle_core::{Device, Tensor};
use indexmap::IndexMap;
use rayon::prelude::*;
use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensorError, SafeTensors};
use serde::Deserialize;

use super::map::map;
use super::names::{canonical, tensor_shapes};
use super::{INDEX_FILE, SINGLE_FILE, WeightFault};
use crate::config::ModelConfig;
use crate::error::{During, Error, Result};

/// Reads the decoder's weights from the folder `dir` as f32 on the CPU.
///
/// The result holds the names, the order and the shapes of [`tensor_shapes`]. Read is `model.safetensors`, or the
/// shards that `model.safetensors.index.json` names; tensors of a vision tower are passed over, and so is a stored
/// copy of an output layer that the configuration ties to the embedding.
///
/// # Errors
/// [`Error::NoWeights`], [`Error::CorruptWeights`] for a truncated or broken file, and [`Error::Weights`] with every
/// tensor that is missing, misshapen, doubled or not expected.
pub fn load(dir: &Path, config: &ModelConfig) -> Result<IndexMap<String, Tensor>> {
    let wanted = tensor_shapes(config);
    let mut found = BTreeMap::new();
    let mut faults = Vec::new();
    for path in files(dir)? {
        read_file(&path, &wanted, &mut found, &mut faults)?;
    }
    let mut tensors = IndexMap::with_capacity(wanted.len());
    for name in wanted.keys() {
        match found.remove(name) {
            Some(tensor) => {
                tensors.insert(name.clone(), tensor);
            }
            None if faults.iter().any(|fault| is_about(fault, name)) => {}
            None => faults.push(WeightFault::Missing { name: name.clone() }),
        }
    }
    if faults.is_empty() {
        return Ok(tensors);
    }
    Err(Error::Weights { dir: dir.to_owned(), faults })
}

/// The files that hold the model in `dir`.
pub(crate) fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let single = dir.join(SINGLE_FILE);
    if single.is_file() {
        return Ok(vec![single]);
    }
    let index = dir.join(INDEX_FILE);
    if !index.is_file() {
        return Err(Error::NoWeights { dir: dir.to_owned() });
    }
    let text = std::fs::read(&index).map_err(Error::io("read", &index))?;
    let Index { weight_map } = serde_json::from_slice(&text).map_err(Error::json(&index))?;
    let shards: BTreeSet<String> = weight_map.into_values().collect();
    shards.into_iter().map(|shard| shard_path(dir, &index, shard)).collect()
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// A shard is a file beside its index: an index from elsewhere must not lead out of the folder.
fn shard_path(dir: &Path, index: &Path, shard: String) -> Result<PathBuf> {
    let mut parts = Path::new(&shard).components();
    match (parts.next(), parts.next()) {
        (Some(Component::Normal(_)), None) => Ok(dir.join(shard)),
        _ => Err(Error::ShardName { index: index.to_owned(), shard }),
    }
}

fn read_file(
    path: &Path,
    wanted: &IndexMap<String, Vec<usize>>,
    found: &mut BTreeMap<String, Tensor>,
    faults: &mut Vec<WeightFault>,
) -> Result<()> {
    let bytes = map(path)?;
    let file = SafeTensors::deserialize(&bytes).map_err(|source| corrupt(path, &bytes, source))?;
    let mut views: Vec<_> = file.iter().collect();
    views.sort_by(|a, b| a.0.cmp(b.0));
    let mut fitting: Vec<(String, TensorView<'_>)> = Vec::with_capacity(views.len());
    for (name, view) in views {
        let Some(canonical) = canonical(name) else { continue };
        match check(name, &canonical, &view, wanted) {
            Err(fault) => faults.push(fault),
            Ok(Use::Skip) => {}
            Ok(Use::Take) => {
                let twice = found.contains_key(&canonical)
                    || fitting.iter().any(|(have, _)| *have == canonical);
                match twice {
                    true => faults.push(WeightFault::Duplicate { name: canonical }),
                    false => fitting.push((canonical, view)),
                }
            }
        }
    }
    let tensors: Result<Vec<_>> = fitting
        .into_par_iter()
        .map(|(name, view)| {
            let tensor = Tensor::from_vec(numbers(&view), view.shape(), &Device::Cpu)
                .during(format!("take `{name}` from the weights"))?;
            Ok((name, tensor))
        })
        .collect();
    found.extend(tensors?);
    Ok(())
}

enum Use {
    Take,
    Skip,
}

fn check(
    name: &str,
    canonical: &str,
    view: &TensorView<'_>,
    wanted: &IndexMap<String, Vec<usize>>,
) -> Result<Use, WeightFault> {
    let Some(want) = wanted.get(canonical) else {
        return match canonical {
            "lm_head.weight" => Ok(Use::Skip),
            _ => Err(WeightFault::Extra { name: name.to_owned() }),
        };
    };
    if !matches!(view.dtype(), Dtype::F32 | Dtype::BF16 | Dtype::F16) {
        return Err(WeightFault::Dtype { name: name.to_owned(), found: view.dtype().to_string() });
    }
    if view.shape() != want {
        let (found, want) = (view.shape().to_vec(), want.clone());
        return Err(WeightFault::Misshapen { name: name.to_owned(), found, want });
    }
    Ok(Use::Take)
}

/// Whether `fault` already explains why the tensor `name` was not taken.
fn is_about(fault: &WeightFault, name: &str) -> bool {
    match fault {
        WeightFault::Misshapen { name: stored, .. } | WeightFault::Dtype { name: stored, .. } => {
            canonical(stored).as_deref() == Some(name)
        }
        _ => false,
    }
}

/// The numbers of a tensor; bytes of a file need not be aligned.
fn numbers(view: &TensorView<'_>) -> Vec<f32> {
    let bytes = view.data();
    match view.dtype() {
        Dtype::BF16 => {
            bytes.as_chunks().0.iter().map(|b| half::bf16::from_le_bytes(*b).to_f32()).collect()
        }
        Dtype::F16 => {
            bytes.as_chunks().0.iter().map(|b| half::f16::from_le_bytes(*b).to_f32()).collect()
        }
        _ => bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
    }
}

fn corrupt(path: &Path, bytes: &[u8], source: SafeTensorError) -> Error {
    if bytes.starts_with(b"version https://git-lfs") {
        return Error::LfsPointer { path: path.to_owned() };
    }
    Error::CorruptWeights { path: path.to_owned(), source }
}
