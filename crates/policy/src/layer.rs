//! A layer's tensors by module.

use candle_core::Tensor;

use crate::config::ModelConfig;
use crate::error::Result;
use crate::lora::Module;

/// Modules with the same input, whose matmuls are fused.
pub(crate) const FUSED_MODULES: [&[Module]; 2] =
    [&[Module::Q, Module::K, Module::V], &[Module::Gate, Module::Up]];

/// The norms and linear modules of one layer, and its attention window.
#[derive(Clone)]
pub(crate) struct Layer<Linear> {
    pub(crate) input_norm: Tensor,
    pub(crate) q: Linear,
    pub(crate) k: Linear,
    pub(crate) v: Linear,
    pub(crate) o: Linear,
    pub(crate) post_norm: Tensor,
    pub(crate) gate: Linear,
    pub(crate) up: Linear,
    pub(crate) down: Linear,
    /// Attention window in tokens; `None` is full attention.
    pub(crate) window: Option<usize>,
}

impl<Linear> Layer<Linear> {
    /// The layer `index` of a decoder: `vector` returns norms and biases by canonical name, `linear` a module by its
    /// name and optional bias.
    ///
    /// # Errors
    /// Those of `vector` and `linear`.
    pub(crate) fn new(
        config: &ModelConfig,
        index: usize,
        vector: impl Fn(&str) -> Result<Tensor>,
        linear: impl Fn(&str, Option<Tensor>) -> Result<Linear>,
    ) -> Result<Self> {
        let norm = |name: &str| vector(&format!("model.layers.{index}.{name}.weight"));
        let linear = |module: Module| -> Result<Linear> {
            let name = module.name(index);
            let bias = match config.model_type.family().has_qkv_bias && module.has_bias() {
                true => Some(vector(&format!("{name}.bias"))?),
                false => None,
            };
            linear(&name, bias)
        };
        Ok(Self {
            input_norm: norm("input_layernorm")?,
            q: linear(Module::Q)?,
            k: linear(Module::K)?,
            v: linear(Module::V)?,
            o: linear(Module::O)?,
            post_norm: norm("post_attention_layernorm")?,
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
