//! Reads an adapter's `adapter_model.safetensors` and validates it against its settings and the model.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::Tensor;

use super::config::AdapterConfig;
use super::encoder_module::is_linear;
use super::{AdapterFault, WEIGHTS_FILE};
use crate::config::ModelConfig;
use crate::error::{Error, Result, TensorContext};
use crate::tensors::{EMBEDDING, Place, tensor_shapes};
use crate::weights::{self, WeightFile};

/// The prefix that `peft` adds to the base model's names.
pub(super) const PREFIX: &str = "base_model.model.";

/// The role of an adapter's tensor in its module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TensorRole {
    A,
    B,
    EmbeddingA,
    EmbeddingB,
    /// The base weight, which `peft` stores for embeddings.
    Base,
    Whole,
}

impl TensorRole {
    const SUFFIXES: [(&str, Self); 6] = [
        (".lora_A.weight", Self::A),
        (".lora_B.weight", Self::B),
        (".lora_embedding_A", Self::EmbeddingA),
        (".lora_embedding_B", Self::EmbeddingB),
        (".base_layer.weight", Self::Base),
        (".weight", Self::Whole),
    ];

    /// Splits a tensor's name into its module and its role.
    fn of(name: &str) -> Option<(&str, Self)> {
        let name = name.strip_prefix(PREFIX)?;
        Self::SUFFIXES.iter().find_map(|(suffix, role)| Some((name.strip_suffix(suffix)?, *role)))
    }

    fn suffix(self) -> &'static str {
        Self::SUFFIXES.iter().find(|(_, role)| *role == self).map_or("", |(suffix, _)| suffix)
    }
}

/// A module's low-rank update while its tensors are read.
#[derive(Default)]
struct PartialUpdate {
    /// The module's name in the base model.
    module: String,
    a: Option<Tensor>,
    b: Option<Tensor>,
}

/// The low-rank update `s·B·A` of one weight.
#[derive(Debug, Clone)]
pub(crate) struct LowRankUpdate {
    /// (rank, inputs).
    pub(crate) a: Tensor,
    /// (outputs, rank).
    pub(crate) b: Tensor,
    pub(crate) scale: f64,
}

/// An adapter's tensors.
pub(super) struct Tensors {
    /// The decoder's low-rank updates by canonical name of the weight.
    pub(super) updates: BTreeMap<String, LowRankUpdate>,
    /// Its whole tensors by canonical name.
    pub(super) replaced: BTreeMap<String, Tensor>,
    /// An encoder's low-rank updates by canonical name of the layer. Their outer dimensions are not checked.
    pub(super) encoder: BTreeMap<String, LowRankUpdate>,
}

/// The adapter's tensors, for a decoder of `config`.
pub(super) fn tensors(
    dir: &Path,
    settings: &AdapterConfig,
    config: &ModelConfig,
) -> Result<Tensors> {
    let path = dir.join(WEIGHTS_FILE);
    let file = WeightFile::open(&path)?;
    let mut reader = AdapterReader {
        settings,
        shapes: tensor_shapes(config),
        tied: config.tie_word_embeddings,
        has_encoder: config.rope.mrope_section.is_some(),
        updates: BTreeMap::new(),
        replaced: BTreeMap::new(),
        encoder: BTreeMap::new(),
        faults: Vec::new(),
    };
    for (name, _) in file.iter() {
        reader.take(&file, name)?;
    }
    reader.finish().map_err(|faults| Error::Adapter { path, faults })
}

struct AdapterReader<'a> {
    settings: &'a AdapterConfig,
    shapes: indexmap::IndexMap<String, Vec<usize>>,
    tied: bool,
    /// Whether the model may have an encoder.
    has_encoder: bool,
    updates: BTreeMap<String, PartialUpdate>,
    replaced: BTreeMap<String, Tensor>,
    encoder: BTreeMap<String, PartialUpdate>,
    faults: Vec<AdapterFault>,
}

impl AdapterReader<'_> {
    fn unexpected(&mut self, name: &str, why: &'static str) {
        self.faults.push(AdapterFault::Unexpected { name: name.to_owned(), why });
    }

    /// Reads one tensor of the file, or records why it is rejected.
    fn take(&mut self, file: &WeightFile, name: &str) -> Result<()> {
        let Some((module, role)) = TensorRole::of(name) else {
            self.unexpected(name, "its name is not that of an adapter tensor");
            return Ok(());
        };
        let Some(canonical) = weights::canonical(&format!("{module}.weight")) else {
            return self.take_encoder(file, name, module, role);
        };
        let Some(shape) = self.shapes.get(&canonical).filter(|shape| shape.len() == 2).cloned()
        else {
            self.unexpected(name, "the model has no such linear module");
            return Ok(());
        };
        // With tied embeddings the adapter updates only one of the two uses; merging would change both.
        if self.tied && canonical == EMBEDDING {
            self.unexpected(name, "the model ties this module to its LM head");
            return Ok(());
        }
        let embedding = canonical == EMBEDDING;
        let of_embedding = matches!(role, TensorRole::EmbeddingA | TensorRole::EmbeddingB);
        let targeted = match role {
            TensorRole::Whole => self.settings.saves(module),
            TensorRole::Base => self.settings.targets(module),
            _ => self.settings.targets(module) && embedding == of_embedding,
        };
        if !targeted {
            self.unexpected(name, "its module is not in the adapter's settings");
            return Ok(());
        }
        let rank = self.settings.rank_of(module);
        let want = match role {
            TensorRole::A => vec![rank, shape[1]],
            TensorRole::B => vec![shape[0], rank],
            // An embedding's weight is (entries, hidden), and its update is transposed.
            TensorRole::EmbeddingA => vec![rank, shape[0]],
            TensorRole::EmbeddingB => vec![shape[1], rank],
            TensorRole::Base | TensorRole::Whole => shape,
        };
        let Some(tensor) = self.tensor(file, name, want)? else { return Ok(()) };
        self.insert(name, module, &canonical, role, tensor)
    }

    /// Reads one tensor of an encoder, or records why it is rejected.
    fn take_encoder(
        &mut self,
        file: &WeightFile,
        name: &str,
        module: &str,
        role: TensorRole,
    ) -> Result<()> {
        let layer = weights::of_encoder(module).unwrap_or(module);
        let why = match role {
            _ if !self.has_encoder => Some("the model has no vision tower"),
            TensorRole::A | TensorRole::B if is_linear(layer) => {
                let targeted = self.settings.targets(module);
                (!targeted).then_some("its module is not in the adapter's settings")
            }
            _ => Some("only LoRA of the linear layers of a vision tower is supported"),
        };
        if let Some(why) = why {
            self.unexpected(name, why);
            return Ok(());
        }
        let (rank, shape) = (self.settings.rank_of(module), file.get(name).map(|it| &it.shape));
        let want = match (role, shape.map(Vec::as_slice)) {
            (TensorRole::A, Some([_, inputs])) => vec![rank, *inputs],
            (_, Some([outputs, _])) => vec![*outputs, rank],
            _ => vec![rank, rank],
        };
        let Some(tensor) = self.tensor(file, name, want)? else { return Ok(()) };
        let update = self.encoder.entry(layer.to_owned()).or_default();
        update.module = module.to_owned();
        let part = if role == TensorRole::A { &mut update.a } else { &mut update.b };
        if part.replace(tensor).is_some() {
            self.faults.push(AdapterFault::Duplicate { name: name.to_owned() });
        }
        Ok(())
    }

    fn tensor(
        &mut self,
        file: &WeightFile,
        name: &str,
        want: Vec<usize>,
    ) -> Result<Option<Tensor>> {
        let Some(stored) = file.get(name) else { return Ok(None) };
        if !weights::is_float(stored.dtype) {
            let found = stored.dtype.to_string();
            self.faults.push(AdapterFault::Dtype { name: name.to_owned(), found });
            return Ok(None);
        }
        if stored.shape != want {
            let (name, found) = (name.to_owned(), stored.shape.clone());
            self.faults.push(AdapterFault::ShapeMismatch { name, found, want });
            return Ok(None);
        }
        weights::tensor(file, stored).context(format!("read `{name}` of the adapter")).map(Some)
    }

    fn insert(
        &mut self,
        name: &str,
        module: &str,
        canonical: &str,
        role: TensorRole,
        tensor: Tensor,
    ) -> Result<()> {
        let transposed = |tensor: &Tensor| {
            tensor.t().and_then(|tensor| tensor.contiguous()).context(format!("transpose `{name}`"))
        };
        let previous = match role {
            TensorRole::Base | TensorRole::Whole => {
                self.replaced.insert(canonical.to_owned(), tensor)
            }
            _ => {
                let update = self.updates.entry(canonical.to_owned()).or_default();
                update.module = module.to_owned();
                match role {
                    TensorRole::A => update.a.replace(tensor),
                    TensorRole::B => update.b.replace(tensor),
                    // (B·A)ᵀ = Aᵀ·Bᵀ.
                    TensorRole::EmbeddingA => update.b.replace(transposed(&tensor)?),
                    TensorRole::EmbeddingB => update.a.replace(transposed(&tensor)?),
                    TensorRole::Base | TensorRole::Whole => None,
                }
            }
        };
        if previous.is_some() {
            self.faults.push(AdapterFault::Duplicate { name: name.to_owned() });
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Tensors, Vec<AdapterFault>> {
        self.report_missing_modules();
        let mut updates = BTreeMap::new();
        for (canonical, PartialUpdate { module, a, b }) in std::mem::take(&mut self.updates) {
            let embedding = canonical == EMBEDDING;
            let parts = match embedding {
                true => [TensorRole::EmbeddingB, TensorRole::EmbeddingA],
                false => [TensorRole::A, TensorRole::B],
            };
            let scale = self.settings.scale_of(&module);
            match (a, b) {
                (Some(a), Some(b)) => {
                    updates.insert(canonical, LowRankUpdate { a, b, scale });
                }
                (None, _) => self.missing(&module, parts[0]),
                (_, None) => self.missing(&module, parts[1]),
            }
        }
        let mut encoder = BTreeMap::new();
        for (layer, PartialUpdate { module, a, b }) in std::mem::take(&mut self.encoder) {
            let scale = self.settings.scale_of(&module);
            match (a, b) {
                (Some(a), Some(b)) => {
                    encoder.insert(layer, LowRankUpdate { a, b, scale });
                }
                (None, _) => self.missing(&module, TensorRole::A),
                (_, None) => self.missing(&module, TensorRole::B),
            }
        }
        let is_empty = updates.is_empty() && self.replaced.is_empty() && encoder.is_empty();
        if is_empty && self.faults.is_empty() {
            let found = self.settings.targets.display();
            self.faults.push(AdapterFault::NoTarget { found });
        }
        match self.faults.is_empty() {
            true => Ok(Tensors { updates, replaced: self.replaced, encoder }),
            false => Err(self.faults),
        }
    }

    fn missing(&mut self, module: &str, role: TensorRole) {
        let name = format!("{PREFIX}{module}{}", role.suffix());
        // A misshapen tensor has already been reported.
        let reported = self.faults.iter().any(|fault| match fault {
            AdapterFault::ShapeMismatch { name: reported, .. }
            | AdapterFault::Dtype { name: reported, .. } => *reported == name,
            _ => false,
        });
        if !reported {
            self.faults.push(AdapterFault::Missing { name });
        }
    }

    /// Reports targeted modules without tensors in the file.
    fn report_missing_modules(&mut self) {
        let layout = self.updates.iter().find_map(|(canonical, update)| {
            let module = canonical.strip_suffix(".weight")?.strip_prefix("model.")?;
            update.module.strip_suffix(module)
        });
        let Some(layout) = layout.map(str::to_owned) else { return };
        let linear: Vec<String> = self
            .shapes
            .keys()
            .filter(|name| Place::of(name).is_some_and(Place::is_module_weight))
            .filter_map(|name| name.strip_suffix(".weight")?.strip_prefix("model."))
            .map(|name| format!("{layout}{name}"))
            .collect();
        for module in linear {
            let canonical = weights::canonical(&format!("{module}.weight")).unwrap_or_default();
            if self.settings.targets(&module) && !self.updates.contains_key(&canonical) {
                self.missing(&module, TensorRole::A);
            }
        }
    }
}
