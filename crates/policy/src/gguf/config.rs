//! A decoder's configuration from the metadata of a GGUF file.

use embodied_r_kernels::rope::MropeSections;

use super::fault::{GgufFault, Result};
use super::file::GgufFile;
use super::metadata::Metadata;
use super::tokenizer;
use crate::config::{Family, GgufArchitecture, ModelConfig, Rope, WeightDtype, supported_gguf};

const ARCHITECTURE: &str = "general.architecture";

/// The family and its name in the file.
fn architecture(metadata: &Metadata) -> Result<(&'static Family, &'static GgufArchitecture)> {
    let missing = || GgufFault::Missing { key: ARCHITECTURE.to_owned() };
    let found = metadata.text(ARCHITECTURE)?.ok_or_else(missing)?;
    let why = match found {
        "clip" => "this is a vision tower (mmproj), give the decoder's file beside it",
        _ => supported_gguf(),
    };
    let unsupported =
        || GgufFault::Unsupported { key: ARCHITECTURE.to_owned(), found: found.to_owned(), why };
    Family::of_gguf(found).ok_or_else(unsupported)
}

/// Reads the configuration; the caller checks that its sizes are consistent.
pub(super) fn read(file: &GgufFile) -> Result<(&'static GgufArchitecture, ModelConfig)> {
    let metadata = file.metadata();
    reject_splits(metadata)?;
    let (family, architecture) = architecture(metadata)?;
    let fields = Fields { metadata, architecture };
    fields.reject_unsupported(file)?;
    let layers = fields.size("block_count")?;
    let tensors = file.tensors().len();
    if layers > tensors {
        let want = format!("at most {tensors}, the number of tensors in the file");
        return Err(fields.wrong("block_count", layers, want));
    }
    let hidden_size = fields.size("embedding_length")?;
    let heads = fields.size("attention.head_count")?;
    let config = ModelConfig {
        model_type: family.model_type,
        vocab_size: fields.vocab_size(file)?,
        hidden_size,
        intermediate_size: fields.size("feed_forward_length")?,
        num_hidden_layers: layers,
        num_attention_heads: heads,
        num_key_value_heads: fields.size_or("attention.head_count_kv", heads)?,
        head_dim: fields.head_dim(hidden_size, heads)?,
        rms_norm_eps: fields.positive("attention.layer_norm_rms_epsilon", None)?,
        rope: Rope {
            mrope_section: fields.mrope_section()?,
            ..Rope::plain(fields.positive("rope.freq_base", Some(10_000.0))?)
        },
        sliding_window: None,
        tie_word_embeddings: file.shape("output.weight").is_none(),
        max_position_embeddings: fields.size("context_length")?,
        initializer_range: 0.02,
        dtype: WeightDtype::F32,
        bos_token_id: metadata.id(tokenizer::BOS)?,
        eos_token_ids: tokenizer::end_ids(metadata)?,
        placeholder_token_ids: match architecture.sections {
            Some(_) => tokenizer::placeholder_ids(metadata)?,
            None => Vec::new(),
        },
    };
    Ok((architecture, config))
}

fn reject_splits(metadata: &Metadata) -> Result<()> {
    let key = "split.count";
    match metadata.count(key)? {
        None | Some(0 | 1) => Ok(()),
        Some(found) => Err(GgufFault::Unsupported {
            key: key.to_owned(),
            found: found.to_string(),
            why: "merge the splits with `llama-gguf-split --merge`",
        }),
    }
}

/// The metadata of one architecture.
struct Fields<'a> {
    metadata: &'a Metadata,
    architecture: &'static GgufArchitecture,
}

impl Fields<'_> {
    fn key(&self, field: &str) -> String {
        format!("{}.{field}", self.architecture.name)
    }

    fn wrong(&self, field: &str, found: impl ToString, want: impl Into<String>) -> GgufFault {
        GgufFault::Value { key: self.key(field), found: found.to_string(), want: want.into() }
    }

    fn unsupported(&self, field: &str, found: impl ToString, why: &'static str) -> GgufFault {
        GgufFault::Unsupported { key: self.key(field), found: found.to_string(), why }
    }

    /// An optional size. The product of two sizes beyond 32 bits would overflow.
    fn given(&self, field: &str) -> Result<Option<usize>> {
        let Some(found) = self.metadata.count(&self.key(field))? else { return Ok(None) };
        match u32::try_from(found) {
            Ok(size) if size > 0 => Ok(Some(size as usize)),
            _ => Err(self.wrong(field, found, "a positive integer of at most 32 bits")),
        }
    }

    fn size(&self, field: &str) -> Result<usize> {
        self.given(field)?.ok_or_else(|| GgufFault::Missing { key: self.key(field) })
    }

    fn size_or(&self, field: &str, default: usize) -> Result<usize> {
        Ok(self.given(field)?.unwrap_or(default))
    }

    fn positive(&self, field: &str, default: Option<f64>) -> Result<f64> {
        let key = self.key(field);
        let found = self.metadata.number(&key)?.or(default);
        let found = found.ok_or(GgufFault::Missing { key })?;
        let possible = found > 0.0 && found.is_finite();
        possible.then_some(found).ok_or_else(|| self.wrong(field, found, "a positive number"))
    }

    /// Rows of the embedding; the tokenizer may have fewer tokens.
    fn vocab_size(&self, file: &GgufFile) -> Result<usize> {
        match file.shape("token_embd.weight").and_then(<[usize]>::first) {
            Some(rows) => Ok(*rows),
            None => self.size("vocab_size"),
        }
    }

    fn head_dim(&self, hidden_size: usize, heads: usize) -> Result<usize> {
        let head_dim = match self.given("attention.key_length")? {
            Some(length) => length,
            None if hidden_size.is_multiple_of(heads) => hidden_size / heads,
            None => {
                let want = format!("a divisor of `embedding_length` = {hidden_size}");
                return Err(self.wrong("attention.head_count", heads, want));
            }
        };
        for field in ["attention.value_length", "rope.dimension_count"] {
            let found = self.size_or(field, head_dim)?;
            if found != head_dim {
                return Err(self.unsupported(field, found, "use the key length"));
            }
        }
        Ok(head_dim)
    }

    /// M-RoPE sections for time, height and width; llama.cpp adds a fourth, which is empty. Architectures with sections
    /// require them, as in llama.cpp.
    fn mrope_section(&self) -> Result<Option<MropeSections>> {
        const FIELD: &str = "rope.dimension_sections";
        let Some(ordered) = self.architecture.sections else { return Ok(None) };
        let sections = self.metadata.integers(&self.key(FIELD))?;
        let sections = sections.ok_or_else(|| GgufFault::Missing { key: self.key(FIELD) })?;
        let size = |section: i32| usize::try_from(section).ok();
        let three = match sections[..] {
            [time, height, width] | [time, height, width, 0] => {
                size(time).zip(size(height)).zip(size(width))
            }
            _ => None,
        };
        let want = "three non-negative section sizes, optionally followed by 0";
        let wrong = || self.wrong(FIELD, format!("{sections:?}"), want);
        let ((time, height), width) = three.ok_or_else(wrong)?;
        Ok(Some(ordered([time, height, width])))
    }

    fn reject_unsupported(&self, file: &GgufFile) -> Result<()> {
        let experts = self.metadata.count(&self.key("expert_count"))?.unwrap_or_default();
        if experts > 0 {
            return Err(self.unsupported("expert_count", experts, "use a dense model"));
        }
        let window = "attention.sliding_window";
        let width = self.metadata.count(&self.key(window))?.unwrap_or_default();
        if width > 0 {
            return Err(self.unsupported(window, width, "use full attention in every layer"));
        }
        self.reject_rope_scaling(file)
    }

    /// RoPE scaling: given in the metadata, or stored as a tensor of frequency factors (Llama 3).
    fn reject_rope_scaling(&self, file: &GgufFile) -> Result<()> {
        const WHY: &str = "use RoPE without scaling";
        let kind = self.metadata.text(&self.key("rope.scaling.type"))?;
        if let Some(kind) = kind.filter(|kind| *kind != "none") {
            return Err(self.unsupported("rope.scaling.type", kind, WHY));
        }
        for field in ["rope.scaling.factor", "rope.scale_linear"] {
            let factor = self.metadata.number(&self.key(field))?;
            if let Some(factor) = factor.filter(|factor| kind.is_none() && *factor != 1.0) {
                return Err(self.unsupported(field, factor, WHY));
            }
        }
        let divisors = "rope_freqs.weight";
        if let Some(shape) = file.shape(divisors) {
            let (key, found) = (divisors.to_owned(), format!("{shape:?}"));
            return Err(GgufFault::Unsupported { key, found, why: WHY });
        }
        Ok(())
    }
}
