//! The families of decoders: what their configurations, their weights and their GGUF files have of their own.

mod llama;
mod qwen2;
mod qwen3;

use std::sync::LazyLock;

use embodied_r_kernels::rope::MropeSections;

/// The supported decoder families, by `model_type` of `transformers`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ModelType {
    /// Qwen2 and Qwen2.5, and the text decoder of Qwen2.5-VL, which is a Qwen2 decoder with M-RoPE.
    Qwen2,
    /// Qwen3, without experts: norms over the heads of queries and keys, no biases.
    Qwen3,
    /// Llama and models of its architecture, without biases.
    Llama,
}

/// All families, in the order of messages.
const FAMILIES: [&Family; 3] = [&qwen2::FAMILY, &qwen3::FAMILY, &llama::FAMILY];

/// A family of decoders.
pub(crate) struct Family {
    pub(crate) model_type: ModelType,
    /// `model_type` in `config.json`.
    pub(crate) name: &'static str,
    /// The model class in `transformers`.
    pub(crate) class: &'static str,
    /// Whether the query, key and value projections have a bias; the output projection never has.
    pub(crate) has_qkv_bias: bool,
    /// Whether there are norms over each head of queries and keys, before the rotation.
    pub(crate) has_qk_norm: bool,
    /// Whether layers can have an attention window.
    pub(crate) has_windows: bool,
    /// Flags of `config.json` that are written as `false`.
    pub(crate) false_flags: &'static [&'static str],
    /// What `config.json` files name it.
    pub(crate) sources: &'static [Source],
    /// What GGUF files name it.
    pub(crate) gguf: &'static [GgufArchitecture],
    /// Its models on the hub, whose configurations are built in.
    pub(crate) published: &'static [Published],
}

impl Family {
    /// Nothing of its own but the names; families are written as differences from it.
    const PLAIN: Self = Self {
        model_type: ModelType::Llama,
        name: "",
        class: "",
        has_qkv_bias: false,
        has_qk_norm: false,
        has_windows: false,
        false_flags: &[],
        sources: &[],
        gguf: &[],
        published: &[],
    };
}

/// A class of configurations in `transformers`, with its defaults.
pub(crate) struct Source {
    /// Its `model_type`s: a whole model's, and the nested decoder's if they differ.
    pub(crate) names: &'static [&'static str],
    /// Whether only the text decoder is of the family.
    pub(crate) is_multimodal: bool,
    /// Default of `max_position_embeddings`.
    pub(crate) positions: usize,
    pub(crate) rms_norm_eps: f64,
    pub(crate) rope_theta: f64,
    /// Default of `head_dim`; `None` for the hidden size divided by the heads.
    pub(crate) head_dim: Option<usize>,
    /// Default of `max_window_layers`, the first layer with a window.
    pub(crate) first_window: usize,
    pub(crate) mrope_section: Option<MropeSections>,
}

impl Source {
    /// Defaults that most classes share.
    const PLAIN: Self = Self {
        names: &[],
        is_multimodal: false,
        positions: 32_768,
        rms_norm_eps: 1e-6,
        rope_theta: 10_000.0,
        head_dim: None,
        first_window: 28,
        mrope_section: None,
    };
}

/// `general.architecture` of a GGUF file.
pub(crate) struct GgufArchitecture {
    pub(crate) name: &'static str,
    /// Whether llama.cpp's converter interleaves the rows of the two halves of a query or key head.
    pub(crate) is_interleaved: bool,
    /// The order of the file's M-RoPE sections; `None` if it has none.
    pub(crate) sections: Option<fn([usize; 3]) -> MropeSections>,
}

impl GgufArchitecture {
    const PLAIN: Self = Self { name: "", is_interleaved: false, sections: None };
}

/// The models of a family on the hub.
pub(crate) struct Published {
    /// Their names without the organization, and their decoders' sizes.
    pub(crate) models: &'static [(&'static str, DecoderSizes)],
    pub(crate) rope_theta: f64,
    /// `max_position_embeddings`.
    pub(crate) positions: usize,
}

/// The sizes of a decoder.
#[derive(Debug, Clone, Copy)]
pub struct DecoderSizes {
    /// Hidden size of the residual stream.
    pub hidden_size: usize,
    /// Layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key/value heads.
    pub kv_heads: usize,
    /// Head dimension; `None` for the hidden size divided by the heads.
    pub head_dim: Option<usize>,
    /// Hidden size of the MLP.
    pub intermediate_size: usize,
    /// Vocabulary size.
    pub vocab: usize,
    /// Whether the LM head shares the embedding matrix.
    pub tied: bool,
}

impl ModelType {
    /// What the family has of its own.
    pub(crate) fn family(self) -> &'static Family {
        match self {
            Self::Qwen2 => &qwen2::FAMILY,
            Self::Qwen3 => &qwen3::FAMILY,
            Self::Llama => &llama::FAMILY,
        }
    }

    /// The name in `config.json`.
    pub fn name(self) -> &'static str {
        self.family().name
    }

    /// The model class in `transformers`.
    pub fn architecture(self) -> &'static str {
        self.family().class
    }
}

impl Family {
    /// The families in the order of messages.
    pub(crate) fn all() -> impl Iterator<Item = &'static Self> {
        FAMILIES.into_iter()
    }

    /// The family and the class of configurations of a `model_type`.
    pub(crate) fn of_source(name: &str) -> Option<(&'static Self, &'static Source)> {
        let of = |family: &'static Self| {
            let source = family.sources.iter().find(|source| source.names.contains(&name))?;
            Some((family, source))
        };
        Self::all().find_map(of)
    }

    /// The family and the architecture of a GGUF file's `general.architecture`.
    pub(crate) fn of_gguf(name: &str) -> Option<(&'static Self, &'static GgufArchitecture)> {
        let of = |family: &'static Self| {
            Some((family, family.gguf.iter().find(|architecture| architecture.name == name)?))
        };
        Self::all().find_map(of)
    }
}

/// What to do about a `model_type` that is not supported: the names that are.
pub(crate) fn supported_sources() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        let sources = || Family::all().flat_map(|family| family.sources);
        let quoted = |source: &Source| match (source.is_multimodal, source.names) {
            (true, [name, ..]) => format!("the text decoder of `{name}`"),
            (_, names) => format!("`{}`", names.join("`, `")),
        };
        let text = sources().filter(|source| !source.is_multimodal);
        let multimodal = sources().filter(|source| source.is_multimodal);
        let names: Vec<String> = text.chain(multimodal).map(quoted).collect();
        format!("use {}", one_of(&names))
    });
    &TEXT
}

/// As [`supported_sources`], for GGUF files.
pub(crate) fn supported_gguf() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        let architectures = Family::all().flat_map(|family| family.gguf);
        let names: Vec<String> = architectures.map(|it| format!("`{}`", it.name)).collect();
        format!("use {}", one_of(&names))
    });
    &TEXT
}

/// `a, b or c`.
fn one_of(names: &[String]) -> String {
    match names {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_family_is_listed_and_found_by_its_names() {
        for family in Family::all() {
            assert!(std::ptr::eq(family.model_type.family(), family), "{}", family.name);
            for name in family.sources.iter().flat_map(|source| source.names) {
                assert_eq!(Family::of_source(name).unwrap().0.name, family.name);
            }
            for architecture in family.gguf {
                let (found, of) = Family::of_gguf(architecture.name).unwrap();
                assert_eq!((found.name, of.name), (family.name, architecture.name));
            }
        }
    }

    #[test]
    fn what_is_supported_is_named_in_one_line() {
        let expected = "use `qwen2`, `qwen3`, `llama`, the text decoder of `qwen2_5_vl` or the text decoder of `qwen3_vl`";
        assert_eq!(supported_sources(), expected);
        assert_eq!(supported_gguf(), "use `qwen2`, `qwen2vl`, `qwen3`, `qwen3vl` or `llama`");
    }
}
