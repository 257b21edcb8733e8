//! The tensors of an adapter, `adapter_model.safetensors`, held against its settings and the model.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::Tensor;

use super::config::AdapterConfig;
use super::{AdapterFault, Pair, WEIGHTS_FILE};
use crate::config::ModelConfig;
use crate::error::{During, Error, Result};
use crate::weights::{self, WeightFile, tensor_shapes};

/// What `peft` puts before the names of the model it wraps.
pub(super) const PREFIX: &str = "base_model.model.";

/// Where a tensor of an adapter belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    A,
    B,
    EmbeddingA,
    EmbeddingB,
    /// The adapted module's own weight, which `peft` stores for embeddings.
    Base,
    Whole,
}

impl Part {
    const ENDS: [(&str, Self); 6] = [
        (".lora_A.weight", Self::A),
        (".lora_B.weight", Self::B),
        (".lora_embedding_A", Self::EmbeddingA),
        (".lora_embedding_B", Self::EmbeddingB),
        (".base_layer.weight", Self::Base),
        (".weight", Self::Whole),
    ];

    /// The module of a tensor's name, and the tensor's part in it.
    fn of(name: &str) -> Option<(&str, Self)> {
        let name = name.strip_prefix(PREFIX)?;
        Self::ENDS.iter().find_map(|(end, part)| Some((name.strip_suffix(end)?, *part)))
    }

    fn end(self) -> &'static str {
        Self::ENDS.iter().find(|(_, part)| *part == self).map_or("", |(end, _)| end)
    }
}

/// The two halves of a module's change, as they are found.
#[derive(Default)]
struct Halves {
    /// What the adapted model calls the module.
    module: String,
    a: Option<Tensor>,
    b: Option<Tensor>,
}

type Tensors = (BTreeMap<String, Pair>, BTreeMap<String, Tensor>);

/// The adapter's pairs, and its whole tensors, by the canonical names of the weights that they change.
pub(super) fn tensors(
    dir: &Path,
    settings: &AdapterConfig,
    config: &ModelConfig,
) -> Result<Tensors> {
    let path = dir.join(WEIGHTS_FILE);
    let file = WeightFile::open(&path)?;
    let mut reading = Reading {
        settings,
        shapes: tensor_shapes(config),
        tied: config.tie_word_embeddings,
        halves: BTreeMap::new(),
        replaced: BTreeMap::new(),
        faults: Vec::new(),
    };
    for (name, _) in file.iter() {
        reading.take(&file, name)?;
    }
    reading.finish().map_err(|faults| Error::Adapter { path, faults })
}

struct Reading<'a> {
    settings: &'a AdapterConfig,
    shapes: indexmap::IndexMap<String, Vec<usize>>,
    tied: bool,
    halves: BTreeMap<String, Halves>,
    replaced: BTreeMap<String, Tensor>,
    faults: Vec<AdapterFault>,
}

impl Reading<'_> {
    fn extra(&mut self, name: &str, why: &'static str) {
        self.faults.push(AdapterFault::Extra { name: name.to_owned(), why });
    }

    /// Takes one tensor of the file, or says why not.
    fn take(&mut self, file: &WeightFile, name: &str) -> Result<()> {
        let Some((module, part)) = Part::of(name) else {
            self.extra(name, "its name is none of an adapter's");
            return Ok(());
        };
        let Some(canonical) = weights::canonical(&format!("{module}.weight")) else {
            self.extra(name, "it belongs to the vision tower, which is not trained here");
            return Ok(());
        };
        let Some(shape) = self.shapes.get(&canonical).filter(|shape| shape.len() == 2).cloned()
        else {
            self.extra(name, "the model has no such linear module");
            return Ok(());
        };
        // Of a tied model the adapter changes one of two uses, merged into the tensor it would change both.
        if self.tied && canonical == "model.embed_tokens.weight" {
            self.extra(name, "the model ties this module to its output layer");
            return Ok(());
        }
        let embedding = canonical == "model.embed_tokens.weight";
        let of_embedding = matches!(part, Part::EmbeddingA | Part::EmbeddingB);
        let meant = match part {
            Part::Whole => self.settings.saves(module),
            Part::Base => self.settings.targets(module),
            _ => self.settings.targets(module) && embedding == of_embedding,
        };
        if !meant {
            self.extra(name, "the settings do not name its module");
            return Ok(());
        }
        let rank = self.settings.rank_of(module);
        let want = match part {
            Part::A => vec![rank, shape[1]],
            Part::B => vec![shape[0], rank],
            // An embedding's weight is (entries, width), and its change is computed the other way round.
            Part::EmbeddingA => vec![rank, shape[0]],
            Part::EmbeddingB => vec![shape[1], rank],
            Part::Base | Part::Whole => shape,
        };
        let Some(tensor) = self.tensor(file, name, want)? else { return Ok(()) };
        self.place(name, module, &canonical, part, tensor)
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
            self.faults.push(AdapterFault::Misshapen { name, found, want });
            return Ok(None);
        }
        weights::tensor(file, stored).during(format!("take `{name}` from the adapter")).map(Some)
    }

    fn place(
        &mut self,
        name: &str,
        module: &str,
        canonical: &str,
        part: Part,
        tensor: Tensor,
    ) -> Result<()> {
        let turned = |tensor: &Tensor| {
            tensor.t().and_then(|tensor| tensor.contiguous()).during(format!("turn `{name}`"))
        };
        let before = match part {
            Part::Base | Part::Whole => self.replaced.insert(canonical.to_owned(), tensor),
            _ => {
                let halves = self.halves.entry(canonical.to_owned()).or_default();
                halves.module = module.to_owned();
                match part {
                    Part::A => halves.a.replace(tensor),
                    Part::B => halves.b.replace(tensor),
                    // (B·A)ᵀ = Aᵀ·Bᵀ.
                    Part::EmbeddingA => halves.b.replace(turned(&tensor)?),
                    Part::EmbeddingB => halves.a.replace(turned(&tensor)?),
                    Part::Base | Part::Whole => None,
                }
            }
        };
        if before.is_some() {
            self.faults.push(AdapterFault::Twice { name: name.to_owned() });
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Tensors, Vec<AdapterFault>> {
        self.look_for_missing_modules();
        let mut pairs = BTreeMap::new();
        for (canonical, Halves { module, a, b }) in std::mem::take(&mut self.halves) {
            let embedding = canonical == "model.embed_tokens.weight";
            let parts = match embedding {
                true => [Part::EmbeddingB, Part::EmbeddingA],
                false => [Part::A, Part::B],
            };
            let scale = self.settings.scale_of(&module);
            match (a, b) {
                (Some(a), Some(b)) => {
                    pairs.insert(canonical, Pair { a, b, scale });
                }
                (None, _) => self.missing(&module, parts[0]),
                (_, None) => self.missing(&module, parts[1]),
            }
        }
        if pairs.is_empty() && self.replaced.is_empty() && self.faults.is_empty() {
            let found = self.settings.targets.shown();
            self.faults.push(AdapterFault::NoTarget { found });
        }
        if self.faults.is_empty() { Ok((pairs, self.replaced)) } else { Err(self.faults) }
    }

    fn missing(&mut self, module: &str, part: Part) {
        let name = format!("{PREFIX}{module}{}", part.end());
        // A half that is misshapen has been told of already.
        let told = self.faults.iter().any(|fault| match fault {
            AdapterFault::Misshapen { name: told, .. } | AdapterFault::Dtype { name: told, .. } => {
                *told == name
            }
            _ => false,
        });
        if !told {
            self.faults.push(AdapterFault::Missing { name });
        }
    }

    /// Looks for modules that the settings mean and the file has nothing of.
    fn look_for_missing_modules(&mut self) {
        let layout = self.halves.iter().find_map(|(canonical, halves)| {
            let module = canonical.strip_suffix(".weight")?.strip_prefix("model.")?;
            halves.module.strip_suffix(module)
        });
        let Some(layout) = layout.map(str::to_owned) else { return };
        let linear: Vec<String> = self
            .shapes
            .keys()
            .filter(|name| name.ends_with("_proj.weight"))
            .filter_map(|name| name.strip_suffix(".weight")?.strip_prefix("model."))
            .map(|name| format!("{layout}{name}"))
            .collect();
        for module in linear {
            let canonical = weights::canonical(&format!("{module}.weight")).unwrap_or_default();
            if self.settings.targets(&module) && !self.halves.contains_key(&canonical) {
                self.missing(&module, Part::A);
            }
        }
    }
}
