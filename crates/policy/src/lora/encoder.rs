//! Adapters of an encoder that a checkpoint stores beside its decoder.

use std::path::Path;

use candle_core::Tensor;
use indexmap::IndexMap;

use super::encoder_module::is_linear;
use super::read::{LowRankUpdate, PREFIX};
use super::settings::{A, B};
use super::{Adapter, AdapterFault, EncoderModule, LoraConfig, WEIGHTS_FILE, train};
use crate::config::ModelConfig;
use crate::error::{Error, Result};
use crate::weights;

impl LoraConfig {
    /// Shapes of the adapter's tensors for an encoder with tensors of these names in a checkpoint:
    /// `LAYER.lora_A.weight` (r, inputs), then `LAYER.lora_B.weight` (outputs, r), for each of [`Self::encoder_modules`].
    #[must_use]
    pub fn encoder_shapes<'a>(
        &self,
        encoder: impl IntoIterator<Item = (&'a str, &'a [usize])>,
    ) -> IndexMap<String, Vec<usize>> {
        let mut shapes = IndexMap::new();
        for (name, shape) in encoder {
            let (Some(layer), [outputs, inputs]) = (name.strip_suffix(".weight"), shape) else {
                continue;
            };
            let canonical = weights::of_encoder(layer).unwrap_or(layer);
            if self.encoder_modules.contains(&EncoderModule::of_layer(canonical)) {
                shapes.insert(format!("{layer}.{A}"), vec![self.r, *inputs]);
                shapes.insert(format!("{layer}.{B}"), vec![*outputs, self.r]);
            }
        }
        shapes
    }

    /// The adapter of an encoder, `A` and `B` by layer, for training on the base model in `base`: that in the folder `dir`,
    /// or, if that is the base model itself, a new one without effect, whose `A` is drawn with `seed` after the decoder's.
    ///
    /// # Shapes
    /// `shapes` are those of [`Self::encoder_shapes`].
    ///
    /// # Errors
    /// As [`Adapter::open`], and for an adapter with other layers or another rank.
    pub fn encoder_adapters(
        &self,
        dir: &Path,
        base: &Path,
        shapes: &IndexMap<String, Vec<usize>>,
        seed: u64,
    ) -> Result<IndexMap<String, [Tensor; 2]>> {
        let config = ModelConfig::of_model(base)?;
        let layers = shapes.keys().filter_map(|name| name.strip_suffix(A)?.strip_suffix('.'));
        if dir == base {
            let tensors = train::random(shapes, seed, self.shapes(&config).len())?;
            let part = |layer: &str, part: &str| tensors.get(&format!("{layer}.{part}")).cloned();
            let pair = |layer: &str| Some((layer.to_owned(), [part(layer, A)?, part(layer, B)?]));
            return Ok(layers.filter_map(pair).collect());
        }
        let mut adapter = Adapter::open(dir, &config)?;
        let (mut adapters, mut faults) = (IndexMap::new(), Vec::new());
        for layer in layers {
            let canonical = weights::of_encoder(layer).unwrap_or(layer);
            let Some(LowRankUpdate { a, b, .. }) = adapter.encoder.remove(canonical) else {
                faults.push(AdapterFault::Missing { name: in_file(canonical, A) });
                continue;
            };
            for (part, tensor) in [(A, &a), (B, &b)] {
                let want = shapes.get(&format!("{layer}.{part}")).cloned().unwrap_or_default();
                let (name, found) = (in_file(canonical, part), tensor.dims().to_vec());
                if found != want {
                    faults.push(AdapterFault::ShapeMismatch { name, found, want });
                }
            }
            adapters.insert(layer.to_owned(), [a, b]);
        }
        let why = "its module is not in the run's settings";
        let unexpected = |layer: String| AdapterFault::Unexpected { name: in_file(&layer, A), why };
        faults.extend(adapter.encoder.into_keys().map(unexpected));
        match faults.is_empty() {
            true => Ok(adapters),
            false => Err(Error::Adapter { path: dir.join(WEIGHTS_FILE), faults }),
        }
    }
}

impl Adapter {
    /// Whether layers of an encoder are adapted.
    #[must_use]
    pub fn adapts_encoder(&self) -> bool {
        !self.encoder.is_empty()
    }

    /// Whether the adapter changes the tensor of an encoder with this canonical name.
    pub(crate) fn changes_encoder(&self, name: &str) -> bool {
        name.strip_suffix(".weight").is_some_and(|layer| self.encoder.contains_key(layer))
    }

    /// Merges the adapter into the tensor of an encoder with this canonical name, in place and in f32. Other tensors stay.
    pub(crate) fn apply_to_encoder(&self, name: &str, weight: &Tensor) -> Result<()> {
        let layer = name.strip_suffix(".weight").and_then(|layer| self.encoder.get(layer));
        layer.map_or(Ok(()), |update| self.add(name, update, weight))
    }

    /// Checks that the adapter fits an encoder with tensors of these canonical names and shapes.
    ///
    /// # Errors
    /// [`Error::Adapter`] with every missing, misshapen or unexpected tensor.
    pub(crate) fn check_encoder<'a>(
        &self,
        encoder: impl Iterator<Item = (&'a str, &'a [usize])>,
    ) -> Result<()> {
        if self.encoder.is_empty() {
            return Ok(());
        }
        let (mut faults, mut left) = (Vec::new(), self.encoder.clone());
        for (name, shape) in encoder {
            let (Some(layer), [outputs, inputs]) = (name.strip_suffix(".weight"), shape) else {
                continue;
            };
            match left.remove(layer) {
                Some(update) => {
                    let rank = update.a.dims().first().copied().unwrap_or(0);
                    let parts =
                        [(A, &update.a, vec![rank, *inputs]), (B, &update.b, vec![*outputs, rank])];
                    for (part, tensor, want) in parts {
                        let (name, found) = (in_file(layer, part), tensor.dims().to_vec());
                        if found != want {
                            faults.push(AdapterFault::ShapeMismatch { name, found, want });
                        }
                    }
                }
                // An adapter without any layer of the encoder leaves it as it is.
                None if is_linear(layer) && self.settings.targets(&format!("model.{layer}")) => {
                    faults.push(AdapterFault::Missing { name: in_file(layer, A) });
                }
                None => {}
            }
        }
        let why = "the model has no such linear module";
        let unexpected = |layer: String| AdapterFault::Unexpected { name: in_file(&layer, A), why };
        faults.extend(left.into_keys().map(unexpected));
        match faults.is_empty() {
            true => Ok(()),
            false => Err(Error::Adapter { path: self.dir.join(WEIGHTS_FILE), faults }),
        }
    }
}

/// The name in an adapter's file of a tensor of a layer with this canonical name.
fn in_file(layer: &str, part: &str) -> String {
    format!("{PREFIX}model.{layer}.{part}")
}
