//! Adapters of a vision tower.

use std::path::Path;

use candle_core::Tensor;
use indexmap::IndexMap;

use super::read::{LowRankUpdate, PREFIX};
use super::settings::{A, B};
use super::{Adapter, AdapterFault, LoraConfig, VisionModule, WEIGHTS_FILE, train};
use crate::config::ModelConfig;
use crate::error::{Error, Result};
use crate::weights;

impl LoraConfig {
    /// Shapes of the adapter's tensors for a tower with the tensors `tower`, by name: `LAYER.lora_A.weight` (r, inputs),
    /// then `LAYER.lora_B.weight` (outputs, r), for each of [`Self::vision_modules`]. Names begin as those of the tower's
    /// tensors: within the tower, or in a checkpoint.
    #[must_use]
    pub fn vision_shapes<'a>(
        &self,
        tower: impl IntoIterator<Item = (&'a str, &'a [usize])>,
    ) -> IndexMap<String, Vec<usize>> {
        let mut shapes = IndexMap::new();
        for (name, shape) in tower {
            let (Some(layer), [outputs, inputs]) = (name.strip_suffix(".weight"), shape) else {
                continue;
            };
            let within = weights::of_vision(layer).unwrap_or(layer);
            let module = VisionModule::of_layer(within);
            if module.is_some_and(|module| self.vision_modules.contains(&module)) {
                shapes.insert(format!("{layer}.{A}"), vec![self.r, *inputs]);
                shapes.insert(format!("{layer}.{B}"), vec![*outputs, self.r]);
            }
        }
        shapes
    }

    /// The adapter of a tower, `A` and `B` by layer, for training on the base model in `base`: that in the folder `dir`, or,
    /// if that is the base model itself, a new one without effect, whose `A` is drawn with `seed` after the decoder's.
    /// `shapes` are those of [`Self::vision_shapes`].
    ///
    /// # Errors
    /// As [`Adapter::open`], and for an adapter with other layers or another rank.
    pub fn vision_adapters(
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
            let within = weights::of_vision(layer).unwrap_or(layer);
            let Some(LowRankUpdate { a, b, .. }) = adapter.vision.remove(within) else {
                faults.push(AdapterFault::Missing { name: in_file(within, A) });
                continue;
            };
            for (part, tensor) in [(A, &a), (B, &b)] {
                let want = shapes.get(&format!("{layer}.{part}")).cloned().unwrap_or_default();
                let (name, found) = (in_file(within, part), tensor.dims().to_vec());
                if found != want {
                    faults.push(AdapterFault::ShapeMismatch { name, found, want });
                }
            }
            adapters.insert(layer.to_owned(), [a, b]);
        }
        let why = "its module is not in the run's settings";
        let unexpected = |layer: String| AdapterFault::Unexpected { name: in_file(&layer, A), why };
        faults.extend(adapter.vision.into_keys().map(unexpected));
        match faults.is_empty() {
            true => Ok(adapters),
            false => Err(Error::Adapter { path: dir.join(WEIGHTS_FILE), faults }),
        }
    }
}

impl Adapter {
    /// Whether layers of the vision tower are adapted.
    #[must_use]
    pub fn adapts_vision(&self) -> bool {
        !self.vision.is_empty()
    }

    /// Whether the adapter changes the tensor `name` of the vision tower, named within it.
    pub(crate) fn changes_vision(&self, name: &str) -> bool {
        name.strip_suffix(".weight").is_some_and(|layer| self.vision.contains_key(layer))
    }

    /// Merges the adapter into the tensor `name` of the vision tower, named within it, in place and in f32. Other tensors
    /// stay.
    pub(crate) fn apply_to_vision(&self, name: &str, weight: &Tensor) -> Result<()> {
        let layer = name.strip_suffix(".weight").and_then(|layer| self.vision.get(layer));
        layer.map_or(Ok(()), |update| self.add(name, update, weight))
    }

    /// Checks that the adapter fits a vision tower with tensors of these names within it and these shapes.
    ///
    /// # Errors
    /// [`Error::Adapter`] with every missing, misshapen or unexpected tensor.
    pub(crate) fn check_vision<'a>(
        &self,
        tower: impl Iterator<Item = (&'a str, &'a [usize])>,
    ) -> Result<()> {
        if self.vision.is_empty() {
            return Ok(());
        }
        let (mut faults, mut left) = (Vec::new(), self.vision.clone());
        for (name, shape) in tower {
            let Some(layer) = name.strip_suffix(".weight") else { continue };
            if VisionModule::of_layer(layer).is_none() {
                continue;
            }
            match (left.remove(layer), shape) {
                (Some(update), [outputs, inputs]) => {
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
                // An adapter without any layer of the tower leaves it as it is.
                (None, _) if self.settings.targets(&format!("model.visual.{layer}")) => {
                    faults.push(AdapterFault::Missing { name: in_file(layer, A) });
                }
                _ => {}
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

/// The name in an adapter's file of a tensor of a layer, named within the tower.
fn in_file(layer: &str, part: &str) -> String {
    format!("{PREFIX}model.visual.{layer}.{part}")
}
