//! All tensors of a decoder: their names, shapes, order and number of elements.

use indexmap::IndexMap;

use crate::config::ModelConfig;
use crate::layer::{LAYERS, Module, Part, Size};

/// The embedding matrix.
pub(crate) const EMBEDDING: &str = "model.embed_tokens.weight";

/// The norm after the last layer.
pub(crate) const FINAL_NORM: &str = "model.norm.weight";

/// The LM head, unless it shares the embedding matrix.
pub(crate) const HEAD: &str = "lm_head.weight";

/// Prefix of the names of the layers' tensors in GGUF files.
const GGUF_LAYERS: &str = "blk.";

/// A tensor of a decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Embedding,
    Layer(usize, Part),
    FinalNorm,
    Head,
}

impl Place {
    /// Those outside of the layers.
    const OUTER: [Self; 3] = [Self::Embedding, Self::FinalNorm, Self::Head];

    /// The tensors of a model of `config`, in its order.
    pub(crate) fn all(config: &ModelConfig) -> impl Iterator<Item = Self> {
        let layers = 0..config.num_hidden_layers;
        let layers = layers.flat_map(|layer| Part::of(config).map(move |part| (layer, part)));
        std::iter::once(Self::Embedding)
            .chain(layers.map(|(layer, part)| Self::Layer(layer, part)))
            .chain([Self::FinalNorm])
            .chain((!config.tie_word_embeddings).then_some(Self::Head))
    }

    /// The tensor of a canonical name, in any family.
    pub(crate) fn of(name: &str) -> Option<Self> {
        Self::OUTER.into_iter().find(|place| place.name() == name).or_else(|| {
            let (layer, rest) = layer_and_rest(name.strip_prefix(LAYERS)?)?;
            let part = Part::ALL.into_iter().find(|part| part.name() == rest)?;
            Some(Self::Layer(layer, part))
        })
    }

    /// The tensor of a name in GGUF files, in any family.
    pub(crate) fn of_gguf(name: &str) -> Option<Self> {
        Self::OUTER.into_iter().find(|place| place.gguf_name() == name).or_else(|| {
            let (layer, rest) = layer_and_rest(name.strip_prefix(GGUF_LAYERS)?)?;
            let part = Part::ALL.into_iter().find(|part| part.gguf_name() == rest)?;
            Some(Self::Layer(layer, part))
        })
    }

    /// Its name in GGUF files.
    pub(crate) fn gguf_name(self) -> String {
        match self {
            Self::Embedding => "token_embd.weight".to_owned(),
            Self::Layer(layer, part) => format!("{GGUF_LAYERS}{layer}.{}", part.gguf_name()),
            Self::FinalNorm => "output_norm.weight".to_owned(),
            Self::Head => "output.weight".to_owned(),
        }
    }

    /// Its canonical name.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Embedding => EMBEDDING.to_owned(),
            Self::Layer(layer, part) => format!("{LAYERS}{layer}.{}", part.name()),
            Self::FinalNorm => FINAL_NORM.to_owned(),
            Self::Head => HEAD.to_owned(),
        }
    }

    /// The sizes of its shape: of a matrix (outputs, inputs), of an embedding (vocabulary, hidden).
    pub(crate) fn sizes(self) -> Vec<Size> {
        match self {
            Self::Embedding | Self::Head => vec![Size::Vocabulary, Size::Hidden],
            Self::Layer(_, part) => part.sizes().collect(),
            Self::FinalNorm => vec![Size::Hidden],
        }
    }

    /// Its shape in a model of `config`.
    fn shape(self, config: &ModelConfig) -> Vec<usize> {
        self.sizes().into_iter().map(|size| size.of(config)).collect()
    }

    /// Whether it is a linear module's weight, in a layer.
    pub(crate) fn is_module_weight(self) -> bool {
        matches!(self, Self::Layer(_, Part::Weight(_)))
    }
}

/// The number before the first dot, and what follows it. `007` or `+7` would be an alias of the same layer.
fn layer_and_rest(name: &str) -> Option<(usize, &str)> {
    let (layer, rest) = name.split_once('.')?;
    let number = layer.parse::<u32>().ok().filter(|number| number.to_string() == layer)?;
    Some((number as usize, rest))
}

/// The layer of a tensor of a decoder or of an adapter, by canonical name.
pub(crate) fn layer_of(name: &str) -> Option<usize> {
    layer_and_rest(name.strip_prefix(LAYERS)?).map(|(layer, _)| layer)
}

/// The tensors of a decoder in the model's order, by canonical name.
///
/// # Shapes
/// Linear weights are `(out, in)`, biases and norms `(out)`, embeddings `(vocab_size, hidden_size)`.
pub fn tensor_shapes(config: &ModelConfig) -> IndexMap<String, Vec<usize>> {
    Place::all(config).map(|place| (place.name(), place.shape(config))).collect()
}

impl ModelConfig {
    /// Number of parameters.
    pub fn parameter_count(&self) -> usize {
        Place::all(self).map(|place| place.shape(self).iter().product::<usize>()).sum()
    }

    /// Number of parameters in a layer's matrices.
    pub(crate) fn layer_matrices(&self) -> usize {
        Module::ALL.iter().map(|module| module.weights(self)).sum()
    }

    /// The largest dimension of a layer's matrices.
    pub(crate) fn largest_dimension(&self) -> usize {
        let shapes = Module::ALL.iter().flat_map(|module| Part::Weight(*module).shape(self));
        shapes.max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ModelType;

    fn config(model_type: ModelType, tied: bool) -> ModelConfig {
        let json = serde_json::json!({
            "model_type": model_type.name(), "vocab_size": 10, "hidden_size": 8, "intermediate_size": 6,
            "num_hidden_layers": 2, "num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 4,
            "tie_word_embeddings": tied,
        });
        ModelConfig::from_json(&json).unwrap()
    }

    #[test]
    fn names_order_and_shapes_are_those_of_transformers() {
        let layer = |model_type: ModelType| {
            let biases = model_type == ModelType::Qwen2;
            let mut tensors = vec![("input_layernorm.weight", vec![8])];
            for (weight, bias, out) in [
                ("self_attn.q_proj.weight", "self_attn.q_proj.bias", 12),
                ("self_attn.k_proj.weight", "self_attn.k_proj.bias", 4),
                ("self_attn.v_proj.weight", "self_attn.v_proj.bias", 4),
            ] {
                tensors.push((weight, vec![out, 8]));
                tensors.extend(biases.then(|| (bias, vec![out])));
            }
            tensors.push(("self_attn.o_proj.weight", vec![8, 12]));
            if model_type == ModelType::Qwen3 {
                tensors.push(("self_attn.q_norm.weight", vec![4]));
                tensors.push(("self_attn.k_norm.weight", vec![4]));
            }
            tensors.extend([
                ("post_attention_layernorm.weight", vec![8]),
                ("mlp.gate_proj.weight", vec![6, 8]),
                ("mlp.up_proj.weight", vec![6, 8]),
                ("mlp.down_proj.weight", vec![8, 6]),
            ]);
            tensors
        };
        for (model_type, tied) in [
            (ModelType::Qwen2, true),
            (ModelType::Qwen2, false),
            (ModelType::Qwen3, true),
            (ModelType::Llama, true),
            (ModelType::Llama, false),
        ] {
            let mut expected = vec![("model.embed_tokens.weight".to_owned(), vec![10, 8])];
            for index in 0..2 {
                let of_layer = layer(model_type).into_iter();
                expected.extend(
                    of_layer.map(|(name, shape)| (format!("model.layers.{index}.{name}"), shape)),
                );
            }
            expected.push(("model.norm.weight".to_owned(), vec![8]));
            expected.extend((!tied).then(|| ("lm_head.weight".to_owned(), vec![10, 8])));
            let config = config(model_type, tied);
            let found: Vec<_> = tensor_shapes(&config).into_iter().collect();
            assert_eq!(found, expected, "{model_type:?}, {tied}");
            let elements: usize =
                expected.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
            assert_eq!(config.parameter_count(), elements);
        }
    }

    #[test]
    fn a_tensor_is_found_by_its_name() {
        for place in Place::all(&config(ModelType::Qwen2, false)) {
            assert_eq!(Place::of(&place.name()), Some(place));
            assert_eq!(Place::of_gguf(&place.gguf_name()), Some(place));
        }
        for name in ["model.layers.00.mlp.up_proj.weight", "model.layers.0.mlp.x.weight", "lm_head"]
        {
            assert_eq!(Place::of(name), None, "{name}");
        }
        assert_eq!(layer_of("model.layers.3.self_attn.q_proj.lora_A.weight"), Some(3));
        assert_eq!(layer_of("model.norm.weight"), None);
    }

    #[test]
    fn a_tensor_has_exactly_one_name_in_gguf_files() {
        let bias = Place::of_gguf("blk.7.attn_q.bias").unwrap();
        assert_eq!(bias.name(), "model.layers.7.self_attn.q_proj.bias");
        for name in ["blk.07.attn_q.bias", "blk.+7.attn_q.bias", "blk.7.attn_q", "blk.7.x.weight"] {
            assert_eq!(Place::of_gguf(name), None, "{name}");
        }
    }
}
