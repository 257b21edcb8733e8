//! A model's parameters and their gradients.

use candle_core::{DType, Device, Tensor};
use embodied_r_kernels::{embedding, memory};
use embodied_r_random::Stream;
use indexmap::IndexMap;

use crate::config::ModelConfig;
use crate::decoder::DecoderGradients;
use crate::error::{Error, Result, TensorContext};
use crate::image_rows::ImageGradients;
use crate::layer::Module;
use crate::packed::PackedBatch;
use crate::tensors::{EMBEDDING, layer_of, tensor_shapes};

/// Tensors of a decoder by canonical name, in the model's order.
#[derive(Clone)]
pub struct Parameters {
    tensors: IndexMap<String, Tensor>,
}

impl Parameters {
    pub(crate) fn new(tensors: IndexMap<String, Tensor>) -> Self {
        Self { tensors }
    }

    /// Random initialization: normal with standard deviation `initializer_range`, norms 1, biases 0.
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

    /// Number of elements in all tensors.
    pub fn elem_count(&self) -> usize {
        self.tensors.values().map(Tensor::elem_count).sum()
    }

    /// The tensors of these names, without copies.
    pub(crate) fn only(&self, names: &[&str]) -> Self {
        let of = |name: &&str| Some(((*name).to_owned(), self.tensors.get(*name)?.clone()));
        Self { tensors: names.iter().filter_map(of).collect() }
    }

    /// These tensors, replaced by those of `others` with the same name.
    pub(crate) fn replaced_by(&self, others: &Self) -> Self {
        let of = |(name, tensor): (&String, &Tensor)| {
            (name.clone(), others.get(name).unwrap_or(tensor).clone())
        };
        Self { tensors: self.tensors.iter().map(of).collect() }
    }

    /// The lowest of `layers` layers that a gradient has to reach: the first with one of these tensors, or 0 for the
    /// embedding; `layers` if there is none.
    pub(crate) fn lowest_layer(&self, layers: usize) -> usize {
        let layer = |name: &String| match name == EMBEDDING {
            true => Some(0),
            false => layer_of(name),
        };
        self.tensors.keys().filter_map(layer).min().unwrap_or(layers)
    }

    /// Copies to `device`, with matrices converted to the dtype `matrices`.
    pub(crate) fn to_device(&self, device: &Device, matrices: DType) -> Result<Self> {
        let moved = |(name, tensor): (&String, &Tensor)| {
            let held = if tensor.rank() == 2 { matrices } else { tensor.dtype() };
            let moved = memory::to_device(tensor, device)?.to_dtype(held);
            Ok((name.clone(), moved.context(format!("move `{name}` to the device"))?))
        };
        Ok(Self { tensors: self.tensors.iter().map(moved).collect::<Result<_>>()? })
    }

    /// Moves each layer's projections with the same input into contiguous memory.
    pub(crate) fn with_contiguous_projections(mut self, layers: usize) -> Result<Self> {
        for (layer, modules) in
            (0..layers).flat_map(|layer| Module::FUSED.map(|group| (layer, group)))
        {
            let name = |module: &Module| format!("{}.weight", module.name(layer));
            let names: Vec<String> = modules.iter().map(name).collect();
            let missing = |name: &String| Error::MissingTensor { name: name.clone() };
            let get = |name: &String| self.get(name).ok_or_else(|| missing(name));
            let tensors = names.iter().map(get).collect::<Result<Vec<_>>>()?;
            let tensors = memory::pack_contiguous(&tensors)?;
            self.tensors.extend(names.into_iter().zip(tensors));
        }
        Ok(self)
    }

    /// The index, with all elements flattened in order, from which on all belong to the layer `index` or above: their
    /// gradients are final after the backward of that layer.
    pub(crate) fn first_final(&self, index: usize) -> usize {
        let is_above = |name: &str| match layer_of(name) {
            Some(layer) => layer >= index,
            // A tied embedding also gets gradients below the layers.
            None => name != EMBEDDING,
        };
        let last = self.tensors.iter().rev().take_while(|(name, _)| is_above(name));
        self.elem_count() - last.map(|(_, tensor)| tensor.elem_count()).sum::<usize>()
    }

    /// A deep copy. Each tensor gets memory of its own: candle's copy takes the whole memory of which it is a view.
    pub(crate) fn copied(&self) -> Result<Self> {
        let copy = |(name, tensor): (&String, &Tensor)| Ok((name.clone(), memory::copy(tensor)?));
        Ok(Self { tensors: self.tensors.iter().map(copy).collect::<Result<_>>()? })
    }

    pub(crate) fn into_tensors(self) -> IndexMap<String, Tensor> {
        self.tensors
    }

    pub(crate) fn tensors(&self) -> &IndexMap<String, Tensor> {
        &self.tensors
    }
}

/// The gradients of all trainable tensors, in one flat buffer; backward passes accumulate into them.
pub struct Gradients {
    buffer: Tensor,
    /// Views into the buffer.
    tensors: IndexMap<String, Tensor>,
    pub(crate) decoder: DecoderGradients,
    images: Option<ImageGradients>,
}

impl Gradients {
    /// Zeros for each tensor of `parameters`.
    pub(crate) fn zeros(parameters: &Parameters, config: &ModelConfig) -> Result<Self> {
        let device = parameters.iter().next().map_or(&Device::Cpu, |(_, tensor)| tensor.device());
        let (buffer, views) =
            memory::flat_zeros(parameters.iter().map(|(_, tensor)| tensor), device)?;
        let names = parameters.iter().map(|(name, _)| name.to_owned());
        let tensors: IndexMap<String, Tensor> = names.zip(views).collect();
        let decoder = DecoderGradients::new(&tensors, config);
        Ok(Self { buffer, tensors, decoder, images: None })
    }

    /// With gradients of image embeddings, if given.
    pub(crate) fn with_images(self, images: Option<ImageGradients>) -> Self {
        Self { images, ..self }
    }

    /// The gradients of image embeddings, if the policy computes them ([`crate::Policy::with_images`]).
    pub fn images(&self) -> Option<&ImageGradients> {
        self.images.as_ref()
    }

    /// Adds the gradient `dx` of the input of a batch (tokens, hidden), to those of token and image embeddings.
    pub(crate) fn add_inputs(&self, batch: &PackedBatch, dx: &Tensor) -> Result<()> {
        if batch.images.is_empty() {
            return self.decoder.add_tokens(&batch.ids, dx);
        }
        if let Some(images) = &self.images {
            batch.images.iter().try_for_each(|image| images.add(image, 0, dx, None))?;
        }
        if self.decoder.embedding.is_none() {
            return Ok(());
        }
        // The embeddings of placeholder tokens are not used.
        let is_image = |row: &usize| batch.images.iter().any(|image| image.contains(*row));
        let text: Vec<usize> = (0..batch.ids.len()).filter(|row| !is_image(row)).collect();
        let ids: Vec<usize> = text.iter().map(|row| batch.ids[*row]).collect();
        self.decoder.add_tokens(&ids, &embedding::gather(dx, &text)?)
    }

    /// All gradients, flattened in the order of the parameters (elements).
    pub fn buffer(&self) -> &Tensor {
        &self.buffer
    }

    /// The gradients with the names of their tensors.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// The gradient of the tensor of that name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    /// The global L2 norm; not finite if any gradient is not.
    ///
    /// # Errors
    /// The device fails.
    pub fn norm(&self) -> Result<f64> {
        Ok(memory::squared_norm(&self.buffer)?.sqrt())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_of_views_takes_the_memory_of_the_views() {
        let whole = Tensor::arange(0.0, 12.0f32, &Device::Cpu).unwrap().reshape((6, 2)).unwrap();
        let view = |name: &str, first| (name.to_owned(), whole.narrow(0, first, 3).unwrap());
        let views = Parameters::new([view("q", 0), view("k", 3)].into_iter().collect());
        for ((name, copy), (_, view)) in views.copied().unwrap().iter().zip(views.iter()) {
            assert_eq!(copy.to_vec2::<f32>().unwrap(), view.to_vec2::<f32>().unwrap(), "{name}");
            let (storage, _) = copy.storage_and_layout();
            let candle_core::Storage::Cpu(storage) = &*storage else { unreachable!() };
            assert_eq!(storage.as_slice::<f32>().unwrap().len(), 6, "{name}");
        }
    }

    #[test]
    fn a_gradient_has_to_reach_the_lowest_trained_layer() {
        let of = |names: &[&str]| {
            let one =
                |name: &&str| ((*name).to_owned(), memory::zeros(&[1], &Device::Cpu).unwrap());
            Parameters::new(names.iter().map(one).collect()).lowest_layer(12)
        };
        assert_eq!(of(&["model.layers.11.mlp.up_proj.weight", "model.norm.weight"]), 11);
        assert_eq!(of(&["model.layers.3.self_attn.q_proj.lora_A.weight", "lm_head.weight"]), 3);
        assert_eq!(of(&["model.norm.weight", "lm_head.weight"]), 12);
        assert_eq!(of(&["model.layers.3.input_layernorm.weight", "model.embed_tokens.weight"]), 0);
    }

    #[test]
    fn gradients_above_a_layer_are_final_before_the_layer_below() {
        let names = [
            "model.embed_tokens.weight",
            "model.layers.0.mlp.up_proj.weight",
            "model.layers.1.mlp.up_proj.weight",
            "model.norm.weight",
            "lm_head.weight",
        ];
        let one = |name: &&str| ((*name).to_owned(), memory::zeros(&[10], &Device::Cpu).unwrap());
        let parameters = Parameters::new(names.iter().map(one).collect());
        assert_eq!([2, 1, 0].map(|index| parameters.first_final(index)), [30, 20, 10]);
        // In reverse order, nothing is final before the embedding.
        let reversed = Parameters::new(names.iter().rev().map(one).collect());
        assert_eq!([2, 0].map(|index| reversed.first_final(index)), [50, 50]);
    }
}
