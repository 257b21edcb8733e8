//! The tensors of a decoder's layer: their names, shapes and families, and the layer that holds them.

use crate::config::ModelConfig;

/// A size in the shape of a decoder's tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    /// `vocab_size`.
    Vocabulary,
    /// `hidden_size`.
    Hidden,
    /// All query heads.
    Queries,
    /// All key/value heads.
    Keys,
    /// `intermediate_size`.
    Inner,
    /// One head.
    HeadDim,
}

impl Size {
    /// The size in a model of `config`.
    pub(crate) fn of(self, config: &ModelConfig) -> usize {
        match self {
            Self::Vocabulary => config.vocab_size,
            Self::Hidden => config.hidden_size,
            Self::Queries => config.num_attention_heads * config.head_dim,
            Self::Keys => config.num_key_value_heads * config.head_dim,
            Self::Inner => config.intermediate_size,
            Self::HeadDim => config.head_dim,
        }
    }

    /// The fields of `config.json` that determine it.
    pub(crate) fn fields(self) -> &'static [&'static str] {
        match self {
            Self::Vocabulary => &["vocab_size"],
            Self::Hidden => &["hidden_size"],
            Self::Queries => &["num_attention_heads", "head_dim"],
            Self::Keys => &["num_key_value_heads", "head_dim"],
            Self::Inner => &["intermediate_size"],
            Self::HeadDim => &["head_dim"],
        }
    }

    /// Whether each tensor-parallel rank has a part of it.
    pub(crate) fn is_sharded(self) -> bool {
        match self {
            Self::Vocabulary | Self::Queries | Self::Keys | Self::Inner => true,
            Self::Hidden | Self::HeadDim => false,
        }
    }
}

/// A linear module of each layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Module {
    /// `q_proj`, the query projection.
    Q,
    /// `k_proj`, the key projection.
    K,
    /// `v_proj`, the value projection.
    V,
    /// `o_proj`, the output projection of attention.
    O,
    /// `gate_proj` of the MLP.
    Gate,
    /// `up_proj` of the MLP.
    Up,
    /// `down_proj` of the MLP.
    Down,
}

/// A norm of each layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Norm {
    /// Before attention.
    Input,
    /// Before the MLP.
    PostAttention,
    /// Over each head of the queries.
    Query,
    /// Over each head of the keys.
    Key,
}

/// What a layer's tensor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Norm(Norm),
    Weight(Module),
    Bias(Module),
}

/// A module or a norm.
struct Row {
    /// Its name within a layer, in Hugging Face's files.
    name: &'static str,
    /// Its name within a block, in GGUF files.
    gguf: &'static str,
    outputs: Size,
    /// Of a matrix.
    inputs: Option<Size>,
}

impl Module {
    /// All of them, in the model's order.
    pub const ALL: [Self; 7] =
        [Self::Q, Self::K, Self::V, Self::O, Self::Gate, Self::Up, Self::Down];

    /// Modules with the same input, whose matmuls are fused.
    pub(crate) const FUSED: [&[Self]; 2] = [&[Self::Q, Self::K, Self::V], &[Self::Gate, Self::Up]];

    fn row(self) -> Row {
        use Size::{Hidden, Inner, Keys, Queries};
        let (name, gguf, outputs, inputs) = match self {
            Self::Q => ("self_attn.q_proj", "attn_q", Queries, Hidden),
            Self::K => ("self_attn.k_proj", "attn_k", Keys, Hidden),
            Self::V => ("self_attn.v_proj", "attn_v", Keys, Hidden),
            Self::O => ("self_attn.o_proj", "attn_output", Hidden, Queries),
            Self::Gate => ("mlp.gate_proj", "ffn_gate", Inner, Hidden),
            Self::Up => ("mlp.up_proj", "ffn_up", Inner, Hidden),
            Self::Down => ("mlp.down_proj", "ffn_down", Hidden, Inner),
        };
        Row { name, gguf, outputs, inputs: Some(inputs) }
    }

    /// Its name within a layer.
    pub(crate) fn name_in_layer(self) -> &'static str {
        self.row().name
    }

    /// The last component of its name.
    pub fn short_name(self) -> &'static str {
        let name = self.row().name;
        name.rsplit_once('.').map_or(name, |(_, short)| short)
    }

    /// Its canonical name in a layer.
    pub(crate) fn name(self, layer: usize) -> String {
        format!("{LAYERS}{layer}.{}", self.row().name)
    }

    /// Its index among all modules of the model.
    pub(crate) fn index(self, layer: usize) -> u64 {
        (layer * Self::ALL.len() + self as usize) as u64
    }

    /// Number of its weights in a model of `config`.
    pub(crate) fn weights(self, config: &ModelConfig) -> usize {
        Part::Weight(self).shape(config).iter().product()
    }
}

impl Norm {
    fn row(self) -> Row {
        let (name, gguf, outputs) = match self {
            Self::Input => ("input_layernorm", "attn_norm", Size::Hidden),
            Self::PostAttention => ("post_attention_layernorm", "ffn_norm", Size::Hidden),
            Self::Query => ("self_attn.q_norm", "attn_q_norm", Size::HeadDim),
            Self::Key => ("self_attn.k_norm", "attn_k_norm", Size::HeadDim),
        };
        Row { name, gguf, outputs, inputs: None }
    }
}

impl Part {
    /// All that a layer can have, in the model's order.
    pub(crate) const ALL: [Self; 14] = [
        Self::Norm(Norm::Input),
        Self::Weight(Module::Q),
        Self::Bias(Module::Q),
        Self::Weight(Module::K),
        Self::Bias(Module::K),
        Self::Weight(Module::V),
        Self::Bias(Module::V),
        Self::Weight(Module::O),
        Self::Norm(Norm::Query),
        Self::Norm(Norm::Key),
        Self::Norm(Norm::PostAttention),
        Self::Weight(Module::Gate),
        Self::Weight(Module::Up),
        Self::Weight(Module::Down),
    ];

    /// The tensors of a layer of `config`, in the model's order.
    pub(crate) fn of(config: &ModelConfig) -> impl Iterator<Item = Self> {
        let family = config.model_type.family();
        Self::ALL.into_iter().filter(move |part| match part {
            Self::Norm(Norm::Input | Norm::PostAttention) | Self::Weight(_) => true,
            Self::Bias(_) => family.has_qkv_bias,
            Self::Norm(Norm::Query | Norm::Key) => family.has_qk_norm,
        })
    }

    fn row(self) -> Row {
        match self {
            Self::Norm(norm) => norm.row(),
            Self::Weight(module) => module.row(),
            Self::Bias(module) => Row { inputs: None, ..module.row() },
        }
    }

    fn suffix(self) -> &'static str {
        match self {
            Self::Norm(_) | Self::Weight(_) => "weight",
            Self::Bias(_) => "bias",
        }
    }

    /// The name within a layer, in Hugging Face's files.
    pub(crate) fn name(self) -> String {
        format!("{}.{}", self.row().name, self.suffix())
    }

    /// The name within a block, in GGUF files.
    pub(crate) fn gguf_name(self) -> String {
        format!("{}.{}", self.row().gguf, self.suffix())
    }

    /// The sizes of its shape: of a matrix (outputs, inputs).
    pub(crate) fn sizes(self) -> impl Iterator<Item = Size> {
        let Row { outputs, inputs, .. } = self.row();
        std::iter::once(outputs).chain(inputs)
    }

    /// Its shape in a model of `config`.
    pub(crate) fn shape(self, config: &ModelConfig) -> Vec<usize> {
        self.sizes().map(|size| size.of(config)).collect()
    }
}

/// Prefix of the canonical names of the layers' tensors.
pub(crate) const LAYERS: &str = "model.layers.";

/// The norms and linear modules of one layer, and its attention window.
#[derive(Clone)]
pub(crate) struct Layer<Linear, Vector> {
    pub(crate) input_norm: Vector,
    pub(crate) q: Linear,
    pub(crate) k: Linear,
    pub(crate) v: Linear,
    pub(crate) o: Linear,
    /// Norms over each head of queries and keys, in the families that have them.
    pub(crate) qk_norms: Option<[Vector; 2]>,
    pub(crate) post_norm: Vector,
    pub(crate) gate: Linear,
    pub(crate) up: Linear,
    pub(crate) down: Linear,
    /// Attention window in tokens; `None` is full attention.
    pub(crate) window: Option<usize>,
}

impl<Linear, Vector> Layer<Linear, Vector> {
    /// The layer `index` of a decoder: `vector` returns norms and biases by canonical name, `linear` a module by its
    /// name and optional bias.
    ///
    /// # Errors
    /// Those of `vector` and `linear`.
    pub(crate) fn new<E>(
        config: &ModelConfig,
        index: usize,
        vector: impl Fn(&str) -> Result<Vector, E>,
        linear: impl Fn(&str, Option<Vector>) -> Result<Linear, E>,
    ) -> Result<Self, E> {
        let vector = |part: Part| vector(&format!("{LAYERS}{index}.{}", part.name()));
        let linear = |module: Module| {
            let mut parts = Part::of(config);
            let has_bias = parts.any(|part| part == Part::Bias(module));
            let bias = has_bias.then(|| vector(Part::Bias(module))).transpose()?;
            linear(&module.name(index), bias)
        };
        Ok(Self {
            input_norm: vector(Part::Norm(Norm::Input))?,
            q: linear(Module::Q)?,
            k: linear(Module::K)?,
            v: linear(Module::V)?,
            o: linear(Module::O)?,
            qk_norms: match config.model_type.family().has_qk_norm {
                true => Some([vector(Part::Norm(Norm::Query))?, vector(Part::Norm(Norm::Key))?]),
                false => None,
            },
            post_norm: vector(Part::Norm(Norm::PostAttention))?,
            gate: linear(Module::Gate)?,
            up: linear(Module::Up)?,
            down: linear(Module::Down)?,
            window: config.window(index),
        })
    }

    /// The linear module `module`.
    pub(crate) fn module_mut(&mut self, module: Module) -> &mut Linear {
        match module {
            Module::Q => &mut self.q,
            Module::K => &mut self.k,
            Module::V => &mut self.v,
            Module::O => &mut self.o,
            Module::Gate => &mut self.gate,
            Module::Up => &mut self.up,
            Module::Down => &mut self.down,
        }
    }
}
