//! A model's tensors, and the gradients of those that are trained.

use candle_core::{Device, Tensor};
use embodied_r_kernels::memory;
use indexmap::IndexMap;

use crate::config::ModelConfig;
use crate::decoder::DecoderGradients;
use crate::error::{During, Result};
use crate::random::Stream;
use crate::weights::tensor_shapes;

/// Tensors of a decoder in the model's order, by canonical name.
#[derive(Clone)]
pub struct Parameters {
    tensors: IndexMap<String, Tensor>,
}

impl Parameters {
    pub(crate) fn new(tensors: IndexMap<String, Tensor>) -> Self {
        Self { tensors }
    }

    /// Draws fresh weights: normal with the configuration's `initializer_range`, norms 1, biases 0.
    pub(crate) fn random(config: &ModelConfig, seed: u64) -> Result<Self> {
        let shapes = tensor_shapes(config);
        let mut tensors = IndexMap::with_capacity(shapes.len());
        for (index, (name, shape)) in shapes.into_iter().enumerate() {
            let n = shape.iter().product();
            let values = if name.ends_with("norm.weight") {
                vec![1.0; n]
            } else if name.ends_with(".bias") {
                vec![0.0; n]
            } else {
                let stream = Stream::new(seed, index as u64);
                let normal = |i| stream.normal(i) * config.initializer_range;
                (0..n as u64).map(|i| normal(i) as f32).collect()
            };
            tensors.insert(name, memory::tensor(values, shape)?);
        }
        Ok(Self { tensors })
    }

    /// The tensors with their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// The tensor of that name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// Numbers in all tensors.
    pub fn numbers(&self) -> usize {
        self.tensors.values().map(Tensor::elem_count).sum()
    }

    /// The tensors of these names; none is copied.
    pub(crate) fn only(&self, names: &[&str]) -> Self {
        let of = |name: &&str| Some(((*name).to_owned(), self.tensors.get(*name)?.clone()));
        Self { tensors: names.iter().filter_map(of).collect() }
    }

    /// These tensors, but those of `others` where they have the same name.
    pub(crate) fn replaced_by(&self, others: &Self) -> Self {
        let of = |(name, tensor): (&String, &Tensor)| {
            (name.clone(), others.get(name).unwrap_or(tensor).clone())
        };
        Self { tensors: self.tensors.iter().map(of).collect() }
    }

    /// The lowest of `layers` layers that has one of these tensors, or one below it; `layers` if none has.
    pub(crate) fn lowest_layer(&self, layers: usize) -> usize {
        let layer = |name: &String| {
            if name == "model.embed_tokens.weight" {
                return Some(0);
            }
            name.strip_prefix("model.layers.")?.split('.').next()?.parse().ok()
        };
        self.tensors.keys().filter_map(layer).min().unwrap_or(layers)
    }

    /// The same numbers in memory of their own.
    pub(crate) fn copied(&self) -> Result<Self> {
        let copy = |(name, t): (&String, &Tensor)| Ok((name.clone(), t.copy()?));
        let tensors = self.tensors.iter().map(copy).collect::<candle_core::Result<_>>();
        Ok(Self { tensors: tensors.during("copy the weights")? })
    }

    pub(crate) fn tensors(&self) -> &IndexMap<String, Tensor> {
        &self.tensors
    }
}

/// One gradient for each trainable tensor; backward passes add to them.
pub struct Gradients {
    tensors: IndexMap<String, Tensor>,
    pub(crate) decoder: DecoderGradients,
}

impl Gradients {
    /// Zeros for each tensor of `parameters`.
    pub(crate) fn zeros(parameters: &Parameters, config: &ModelConfig) -> Result<Self> {
        let zeros = |(name, t): (&str, &Tensor)| {
            let zeros = Tensor::from_vec(vec![0f32; t.elem_count()], t.shape(), &Device::Cpu)?;
            Ok((name.to_owned(), zeros))
        };
        let tensors: IndexMap<String, Tensor> = parameters
            .iter()
            .map(zeros)
            .collect::<candle_core::Result<_>>()
            .during("make room for the gradients")?;
        let decoder = DecoderGradients::new(&tensors, config);
        Ok(Self { tensors, decoder })
    }

    /// Sets all of them to zero.
    ///
    /// # Errors
    /// Only if a tensor has left the CPU.
    pub fn clear(&mut self) -> Result<()> {
        for tensor in self.tensors.values() {
            memory::update(tensor, "clear", |values| values.fill(0.0))?;
        }
        Ok(())
    }

    /// The gradients with the names of their tensors.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// The gradient of the tensor of that name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    /// The Euclidean norm over all of them, not finite if any number is not.
    ///
    /// # Errors
    /// Only if a tensor has left the CPU.
    pub fn norm(&self) -> Result<f64> {
        let mut total = 0.0;
        for tensor in self.tensors.values() {
            total += memory::sum_of_squares(&memory::floats(tensor, "norm")?);
        }
        Ok(total.sqrt())
    }
}
