//! A trainable adapter.

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use embodied_r_kernels::memory;
use embodied_r_random::Stream;
use indexmap::IndexMap;

use super::settings::{A, B};
use super::{Adapter, AdapterFault, LoraConfig, WEIGHTS_FILE};
use crate::config::ModelConfig;
use crate::decoder::{Decoder, LowRank};
use crate::error::{Error, Result};
use crate::parameters::Parameters;

/// An adapter with its trainable tensors.
#[derive(Clone)]
pub(crate) struct Lora {
    pub(crate) config: LoraConfig,
    /// By canonical name.
    pub(crate) tensors: Parameters,
    /// Those of an encoder, which are saved with the decoder's, by their names in the checkpoint.
    pub(crate) encoder: IndexMap<String, Tensor>,
}

/// Tensors of a new adapter without effect, by name: as in `peft`, `A` is uniform within ±1/√inputs and `B` is 0. Random
/// numbers begin with the stream `first` of `seed`.
pub(super) fn random(
    shapes: &IndexMap<String, Vec<usize>>,
    seed: u64,
    first: usize,
) -> Result<IndexMap<String, Tensor>> {
    let mut tensors = IndexMap::new();
    for (index, (name, shape)) in shapes.iter().enumerate() {
        let n = shape.iter().product::<usize>();
        let values = if name.ends_with(A) {
            let bound = 1.0 / (shape[1] as f64).sqrt();
            let stream = Stream::new(seed, (first + index) as u64);
            let value = |i| ((2.0 * stream.uniform(i) - 1.0) * bound) as f32;
            (0..n as u64).map(value).collect()
        } else {
            vec![0.0; n]
        };
        tensors.insert(name.clone(), memory::tensor(values, shape.clone())?);
    }
    Ok(tensors)
}

impl Lora {
    /// A new adapter without effect.
    pub(crate) fn random(config: &LoraConfig, model: &ModelConfig, seed: u64) -> Result<Self> {
        config.check_rank(model)?;
        let tensors = Parameters::new(random(&config.shapes(model), seed, 0)?);
        Ok(Self { config: config.clone(), tensors, encoder: IndexMap::new() })
    }

    /// Loads an adapter with the target modules and the rank of `config`, such as one written by [`Self::save`].
    ///
    /// # Errors
    /// As [`Adapter::open`], and for an adapter with other modules or another rank.
    pub(crate) fn open(dir: &Path, config: &LoraConfig, model: &ModelConfig) -> Result<Self> {
        let adapter = Adapter::open(dir, model)?;
        let shapes = config.shapes(model);
        let (mut tensors, mut faults) = (IndexMap::new(), Vec::new());
        for (name, want) in &shapes {
            let module = name.strip_suffix(A).or_else(|| name.strip_suffix(B)).unwrap_or(name);
            let update = adapter.update(&format!("{module}weight"));
            let Some(tensor) =
                update.map(|update| if name.ends_with(A) { &update.a } else { &update.b })
            else {
                faults.push(AdapterFault::Missing { name: name.clone() });
                continue;
            };
            if tensor.dims() != want {
                let (found, want) = (tensor.dims().to_vec(), want.clone());
                faults.push(AdapterFault::ShapeMismatch { name: name.clone(), found, want });
            }
            tensors.insert(name.clone(), tensor.clone());
        }
        for name in adapter.names() {
            let module = name.strip_suffix("weight").unwrap_or(name);
            if !shapes.contains_key(&format!("{module}{A}")) {
                let why = "its module is not in the run's settings";
                faults.push(AdapterFault::Unexpected { name: name.to_owned(), why });
            }
        }
        if !faults.is_empty() {
            return Err(Error::Adapter { path: dir.join(WEIGHTS_FILE), faults });
        }
        let tensors = Parameters::new(tensors);
        Ok(Self { config: config.clone(), tensors, encoder: IndexMap::new() })
    }

    /// The adapter on `device`, in the dtype of the model's matrices there: products with bf16 activations need no
    /// conversion, and the optimizer keeps f32 master weights, as for other matrices.
    pub(crate) fn to_device(&self, device: &Device, matrices: DType) -> Result<Self> {
        let (config, encoder) = (self.config.clone(), self.encoder.clone());
        Ok(Self { config, tensors: self.tensors.to_device(device, matrices)?, encoder })
    }

    /// A deep copy of the decoder's part, or `None` if that has no effect.
    pub(crate) fn copied(&self) -> Result<Option<Self>> {
        let mut has_effect = false;
        for (_, tensor) in self.tensors.iter().filter(|(name, _)| name.ends_with(B)) {
            let tensor = memory::to_host(tensor)?;
            has_effect |= memory::floats(&tensor, "copy")?.iter().any(|number| *number != 0.0);
        }
        if !has_effect {
            return Ok(None);
        }
        let (config, encoder) = (self.config.clone(), IndexMap::new());
        Ok(Some(Self { config, tensors: self.tensors.copied()?, encoder }))
    }

    /// Attaches the tensors to their modules.
    pub(crate) fn attach(&self, decoder: &mut Decoder) {
        for (index, layer) in decoder.layers.iter_mut().enumerate() {
            for module in &self.config.target_modules {
                let name = module.name(index);
                let get = |part: &str| self.tensors.get(&format!("{name}.{part}"));
                if let (Some(a), Some(b)) = (get(A), get(B)) {
                    layer.module_mut(*module).low_rank = Some(LowRank {
                        a: a.clone(),
                        b: b.clone(),
                        scale: self.config.scale(),
                        dropout: self.config.lora_dropout,
                        module_index: module.index(index),
                    });
                }
            }
        }
    }
}
