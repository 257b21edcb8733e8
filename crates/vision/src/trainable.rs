//! The vision tower for training: its tensors, forward passes that save activations, and a hand-written backward.

mod backward;
mod flops;
mod gradients;
mod memory;
mod modules;
mod pass;
mod shared_weights;
mod tensors;

use std::path::Path;
use std::sync::OnceLock;

use candle_core::{Device, Tensor};
use embodied_r_policy::{LayerHook, Precision};
use indexmap::IndexMap;

use crate::config::VisionConfig;
use crate::encoder::VisionEncoder;
use crate::error::{Error, Result};
use crate::source::{Source, tower_tensors};
use crate::tower::Tower;
use crate::vision_processor::VisionProcessor;
pub use gradients::TowerGradients;
pub use memory::TowerBytes;
use modules::TowerModules;
pub use pass::SavedTower;
use shared_weights::SharedWeights;
use tensors::TowerTensors;

/// The parts of a vision encoder that are not trained, named as in ms-swift.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FrozenParts {
    /// The patch embedding with its positions, and the blocks (`freeze_vit`).
    pub vision_tower: bool,
    /// The mergers (`freeze_aligner`).
    pub aligner: bool,
}

/// Options of a trainable vision tower.
#[derive(Debug, Clone)]
pub struct TowerOptions {
    /// What is not trained.
    pub frozen: FrozenParts,
    /// Matmul precision. On the CPU weights are f32, and rounded when they are used; on a GPU, matrices are stored in it.
    pub precision: Precision,
    /// Where the tensors are.
    pub device: Device,
}

/// A vision tower whose tensors an optimizer may write to, in place: the next pass and every [`Self::encoder`] of f32
/// weights see it.
pub struct TrainableTower {
    processor: VisionProcessor,
    tensors: TowerTensors,
    /// Views of the tensors by module.
    modules: TowerModules<Tensor>,
    precision: Precision,
    layer_hook: OnceLock<LayerHook>,
}

impl TrainableTower {
    /// Loads the tower of the vision-language model in the folder `dir`, in Hugging Face's layout.
    ///
    /// # Errors
    /// [`Error::NoVision`] and [`Error::NoProcessor`] for a text model, [`Error::GgufTower`] for a GGUF file, and those
    /// of reading the files.
    pub fn load(dir: &Path, processor: VisionProcessor, options: &TowerOptions) -> Result<Self> {
        let source = Source::of_model(dir)?;
        if matches!(source, Source::Mmproj(_)) {
            return Err(Error::GgufTower { model: dir.to_owned() });
        }
        let files = tower_tensors(dir, processor.config())?;
        let mut tensors = IndexMap::new();
        for (name, shape) in processor.config().tensor_shapes() {
            let tensor = files.tensor(&name, &shape)?;
            tensors.insert(files.stored_name(&name).unwrap_or(&name).to_owned(), tensor);
        }
        Self::from_tensors(processor, tensors, options)
    }

    /// A tower of these f32 tensors, which it shares if they are on its device, with the processor and the placeholder
    /// tokens of its model.
    ///
    /// # Errors
    /// [`Error::TowerTensors`] unless `tensors` has exactly the tower's, by their names in a checkpoint: `visual.…` or
    /// `model.visual.…`.
    pub fn from_tensors(
        processor: VisionProcessor,
        tensors: IndexMap<String, Tensor>,
        options: &TowerOptions,
    ) -> Result<Self> {
        let TowerOptions { frozen, precision, device } = options;
        let config = processor.config();
        let tensors = TowerTensors::new(config, tensors)?.on_device(device, *precision)?;
        let tensors = tensors.with_frozen(*frozen);
        let modules = TowerModules::new(config, |_| None, |name| tensors.get(name))?;
        let (precision, layer_hook) = (*precision, OnceLock::new());
        Ok(Self { processor, tensors, modules, precision, layer_hook })
    }

    /// Freezes the tensors whose name in the checkpoint `is_frozen`, besides those that are frozen already.
    #[must_use]
    pub fn with_frozen(mut self, is_frozen: impl Fn(&str) -> bool) -> Self {
        self.tensors.freeze(is_frozen);
        self
    }

    /// Trains LoRA adapters in place of the tower, which is frozen: a layer's output is `x · Wᵀ + b + scale · x · Aᵀ · Bᵀ`.
    /// Their gradients and parameters are named `LAYER.lora_A.weight` and `LAYER.lora_B.weight`.
    ///
    /// # Shapes
    /// `adapters`: f32 `A` (rank, inputs) and `B` (outputs, rank) by the name of their linear layer in the checkpoint, such
    /// as `visual.blocks.0.attn.qkv`. They are shared if they are on the tower's device.
    ///
    /// # Errors
    /// [`Error::TowerTensors`] if there is no such layer, or if a shape does not match.
    pub fn with_adapters(
        self,
        adapters: IndexMap<String, [Tensor; 2]>,
        scale: f64,
    ) -> Result<Self> {
        let (device, precision) = (self.device().clone(), self.precision);
        let place = |tensor: &Tensor| tensors::moved(tensor, &device, precision);
        let tensors = self.tensors.with_adapters(adapters, scale as f32, place)?;
        let site = |layer: &str| tensors.dropout_site(layer);
        let modules = TowerModules::new(self.processor.config(), site, |name| tensors.get(name))?;
        Ok(Self { tensors, modules, ..self })
    }

    /// Drops inputs of the adapters with this probability, below 1, in passes that are given seeds.
    #[must_use]
    pub fn with_lora_dropout(self, probability: f64) -> Self {
        Self { tensors: self.tensors.with_lora_dropout(probability), ..self }
    }

    /// Whether inputs of adapters are dropped in passes that are given seeds.
    #[must_use]
    pub fn has_dropout(&self) -> bool {
        self.tensors.has_dropout()
    }

    /// A frozen copy: `of` gives each trained tensor by its name in the checkpoint, and frozen ones are shared.
    ///
    /// # Errors
    /// Those of `of`.
    pub fn frozen_with<E: From<Error>>(
        &self,
        of: impl Fn(&str, &Tensor) -> std::result::Result<Tensor, E>,
    ) -> std::result::Result<Self, E> {
        let place = |tensor: &Tensor| tensors::moved(tensor, self.device(), self.precision);
        let tensors =
            self.tensors.frozen_with(|name, tensor| Ok::<_, E>(place(&of(name, tensor)?)?))?;
        let (processor, precision) = (self.processor.clone(), self.precision);
        let site = |layer: &str| tensors.dropout_site(layer);
        let modules = TowerModules::new(processor.config(), site, |name| tensors.get(name))?;
        let layer_hook = self.layer_hook.clone();
        Ok(Self { processor, tensors, modules, precision, layer_hook })
    }

    /// A frozen copy of the weights of now.
    ///
    /// # Errors
    /// Out of memory.
    pub fn frozen_copy(&self) -> Result<Self> {
        self.frozen_with(|_, tensor| Ok(embodied_r_kernels::memory::copy(tensor)?))
    }

    /// A frozen copy with the trained tensors of the whole model in the folder `dir`.
    ///
    /// # Errors
    /// A file cannot be read, or has other tensors.
    pub fn load_frozen(&self, dir: &Path) -> Result<Self> {
        let files = tower_tensors(dir, self.processor.config())?;
        self.frozen_with(|name, tensor| {
            Ok(files.tensor(tensors::within(name).unwrap_or(name), tensor.dims())?)
        })
    }

    /// The adapters' tensors, trained or frozen, with their names in the checkpoint.
    pub fn adapters(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.tensors.adapters()
    }

    /// Whether adapters are trained in place of the tower.
    #[must_use]
    pub fn has_adapters(&self) -> bool {
        self.tensors.has_adapters()
    }

    /// Sets the hook that is called after every block of a training pass, once.
    pub fn set_layer_hook(&self, layer_hook: LayerHook) {
        self.layer_hook.get_or_init(|| layer_hook);
    }

    /// The tower's configuration.
    #[must_use]
    pub fn config(&self) -> &VisionConfig {
        self.processor.config()
    }

    /// The image processor.
    #[must_use]
    pub fn processor(&self) -> &VisionProcessor {
        &self.processor
    }

    /// The device of its tensors.
    #[must_use]
    pub fn device(&self) -> &Device {
        self.modules.patches.device()
    }

    /// The trained tensors with their names in the checkpoint, in the order of the forward pass: patch embedding, blocks,
    /// mergers.
    pub fn parameters(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.tensors.trained()
    }

    /// All tensors, trained or frozen, with their names and shapes in the checkpoint: what a save replaces.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.tensors.iter()
    }

    /// Zero gradients for each trained tensor, in one flat buffer.
    ///
    /// # Errors
    /// Out of memory.
    pub fn zero_gradients(&self) -> Result<TowerGradients> {
        TowerGradients::zeros(self.config(), &self.tensors, self.device())
    }

    /// An encoder with the weights of now, for rollouts. In f32 and on a GPU it shares them and sees later writes; on the
    /// CPU in bf16 it has packed copies.
    ///
    /// # Errors
    /// Out of memory.
    pub fn encoder(&self) -> Result<VisionEncoder> {
        Ok(VisionEncoder::of_tower(self.tower()?, self.processor.clone()))
    }

    /// The tower of the weights of now.
    fn tower(&self) -> Result<Tower> {
        let weights = SharedWeights { tensors: &self.tensors, precision: self.precision };
        Tower::new(self.config().clone(), &weights)
    }
}
