//! The crate's error type.

use std::path::PathBuf;

use crate::chat_template::TemplateFault;
use crate::config::ConfigFault;
use crate::faults::{join_faults, join_first_faults};
use crate::gguf::GgufFault;
use crate::hub::HubFault;
use crate::lora::AdapterFault;
use crate::weights::{INDEX_FILE, SINGLE_FILE, SafetensorsFault, WeightFault};

/// The most faults of a file that a message lists.
const MAX_FAULTS: usize = 8;

/// The most faults of a model's weights that a message lists.
const MAX_WEIGHT_FAULTS: usize = 24;

/// An error while a model is read, run or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be read or written.
    #[error(transparent)]
    Io(#[from] embodied_r_files::Error),
    /// A JSON file is invalid or lacks expected fields.
    #[error("cannot parse `{}`: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The parser's error, with line and column.
        source: serde_json::Error,
    },
    /// A sampling default in a model's `generation_config.json` is invalid.
    #[error("`{field}` in `{}` must be {want}, not `{found}`", path.display())]
    SamplingDefault {
        /// The file.
        path: PathBuf,
        /// The field.
        field: &'static str,
        /// Its value.
        found: String,
        /// The expected value.
        want: &'static str,
    },
    /// A model's `config.json` is invalid or describes an unsupported model.
    #[error("cannot use the model configuration `{}`: {}", path.display(), join_faults(faults))]
    Config {
        /// The file.
        path: PathBuf,
        /// Every fault found.
        faults: Vec<ConfigFault>,
    },
    /// A GGUF file is corrupt or holds an unsupported model.
    #[error("cannot use the GGUF file `{}`: {fault}", path.display())]
    Gguf {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        fault: Box<GgufFault>,
    },
    /// A folder has several GGUF files, so the choice is ambiguous.
    #[error(
        "`{}` holds several GGUF files ({}): give the path of one, and keep a single vision tower (mmproj) beside it",
        dir.display(), found.join(", ")
    )]
    GgufChoice {
        /// The folder.
        dir: PathBuf,
        /// The files' names.
        found: Vec<String>,
    },
    /// An adapter is unsupported or does not match the model.
    #[error("cannot use the adapter's `{}`: {}", path.display(), join_first_faults(faults, MAX_FAULTS))]
    Adapter {
        /// The file.
        path: PathBuf,
        /// Every fault found.
        faults: Vec<AdapterFault>,
    },
    /// An adapter's base model is missing or unusable.
    #[error(
        "cannot load the base model `{base}` of the adapter `{}`: {fault}; provide it, or change \
         `base_model_name_or_path` in the adapter's `adapter_config.json`",
        dir.display()
    )]
    AdapterBase {
        /// The adapter's folder.
        dir: PathBuf,
        /// The base model, as the adapter names it.
        base: String,
        /// The reason.
        fault: String,
    },
    /// The rank of an adapter is 0 or larger than every dimension of the model.
    #[error(
        "`lora_r` must be from 1 to {most}, the largest dimension of the model's layers, not {found}"
    )]
    LoraRank {
        /// The rank.
        found: usize,
        /// The largest rank.
        most: usize,
    },
    /// A new adapter cannot be trained on top of an unmerged adapter.
    #[error("`{}` is an adapter, merge it into its base model before training another on it", dir.display())]
    AdapterOnAdapter {
        /// Its folder.
        dir: PathBuf,
    },
    /// An adapter of a vision tower is to be merged into a model whose tower is in another file.
    #[error(
        "`{}` adapts the vision tower, which a GGUF model has in a file of its own: use the base model in \
         safetensors", dir.display()
    )]
    EncoderAdapter {
        /// The adapter's folder.
        dir: PathBuf,
    },
    /// An entry of `freeze_parameters_regex` is not a valid regular expression.
    #[error("`freeze_parameters_regex` has the invalid regular expression `{pattern}`: {reason}")]
    FreezePattern {
        /// The pattern.
        pattern: String,
        /// The regular expression parser's error.
        reason: String,
    },
    /// An entry of `freeze_parameters_regex` matches no parameter.
    #[error(
        "`freeze_parameters_regex` has `{pattern}`, which matches no parameter name, such as \
         `model.embed_tokens.weight` or `model.layers.0.self_attn.q_proj.weight`"
    )]
    FreezeNoMatch {
        /// The pattern.
        pattern: String,
    },
    /// `freeze_parameters_regex` freezes every parameter.
    #[error("`freeze_parameters_regex` freezes every parameter of the model, leave some trainable")]
    AllFrozen,
    /// A folder has no weights.
    #[error(
        "no weights in `{}`: add `{SINGLE_FILE}`, `{INDEX_FILE}` with its shards, or one GGUF file",
        dir.display()
    )]
    NoWeights {
        /// The folder.
        dir: PathBuf,
    },
    /// A weight file is truncated or corrupt.
    #[error("the weight file `{}` is truncated or corrupt, download it again: {fault}", path.display())]
    CorruptWeights {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        fault: Box<SafetensorsFault>,
    },
    /// A weight file is a Git LFS pointer.
    #[error("`{}` is a Git LFS pointer, run `git lfs pull` to download the weights", path.display())]
    LfsPointer {
        /// The file.
        path: PathBuf,
    },
    /// An index names a shard outside of its folder.
    #[error("`{}` names the shard `{shard}`, which must be a file name in the same directory", index.display())]
    ShardName {
        /// The index.
        index: PathBuf,
        /// The shard's name.
        shard: String,
    },
    /// The weights do not match the configuration.
    #[error("the weights in `{}` do not match its configuration: {}", dir.display(), join_first_faults(faults, MAX_WEIGHT_FAULTS))]
    Weights {
        /// The model's folder.
        dir: PathBuf,
        /// Every mismatching tensor.
        faults: Vec<WeightFault>,
    },
    /// A sampling parameter is out of range.
    #[error("`{field}` must be {want}, not {found}")]
    Sampling {
        /// Its name.
        field: &'static str,
        /// Its value.
        found: f64,
        /// What it should be.
        want: &'static str,
    },
    /// A sampling parameter has a token id outside the vocabulary.
    #[error("`{field}` has the token id {id}, which is outside the vocabulary of {vocabulary}")]
    SamplingId {
        /// The parameter's name.
        field: &'static str,
        /// The id.
        id: u32,
        /// The vocabulary size.
        vocabulary: usize,
    },
    /// The model's logits are not finite.
    #[error(
        "the model's logits are not finite: its weights contain NaN or infinity, or its computation overflows; \
         use another checkpoint"
    )]
    NonFiniteLogits,
    /// `allowed_token_ids` is empty.
    #[error("`allowed_token_ids` must not be empty; omit it to allow all tokens")]
    NoAllowedTokens,
    /// A tensor that the configuration requires is missing.
    #[error("the tensor `{name}` is missing")]
    MissingTensor {
        /// Its canonical name.
        name: String,
    },
    /// Attention ran before any keys and values were stored.
    #[error("the KV cache of layer {layer} is empty")]
    EmptyCache {
        /// The layer, from 0.
        layer: usize,
    },
    /// An engine option is out of range.
    #[error("`{option}` must be {want}, not {found}")]
    Engine {
        /// Its name.
        option: &'static str,
        /// Its value.
        found: usize,
        /// What it should be.
        want: String,
    },
    /// A sequence is invalid for the model.
    #[error("sequence {index}: {fault}")]
    Sequence {
        /// Its index in the batch.
        index: usize,
        /// What is wrong with it.
        fault: String,
    },
    /// An image of a prompt cannot be encoded.
    #[error(transparent)]
    Image {
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A model dimension does not divide over the tensor-parallel ranks.
    #[error(
        "cannot shard `{field}` of {found} over {ranks} ranks: it must be {want}; use another `--tp`"
    )]
    ShardSize {
        /// The configuration field.
        field: &'static str,
        /// Its value.
        found: usize,
        /// Tensor-parallel ranks.
        ranks: usize,
        /// What it should be.
        want: String,
    },
    /// A shard's columns do not align with the matrix's quantization blocks.
    #[error(
        "cannot shard `{name}` at column {column}: {format} has blocks of {block} weights; use a smaller `--tp`, or \
         weights in another format"
    )]
    ShardBlock {
        /// The matrix.
        name: String,
        /// The shard's boundary.
        column: usize,
        /// The quantization format.
        format: &'static str,
        /// Weights per block.
        block: usize,
    },
    /// Tensor parallelism does not support unmerged adapters.
    #[error("`{}` is an adapter, merge it into its base model (`embodied-r merge`) to run it on several ranks", dir.display())]
    ShardAdapter {
        /// Its folder.
        dir: PathBuf,
    },
    /// Communication between the ranks failed.
    #[error(transparent)]
    Distributed(#[from] embodied_r_dist::Error),
    /// A kernel failed.
    #[error("a decoder kernel failed: {0}")]
    Kernel(#[from] embodied_r_kernels::Error),
    /// A folder has no tokenizer.
    #[error("no `tokenizer.json` in `{}`: give a model directory with its tokenizer", dir.display())]
    NoTokenizer {
        /// The folder.
        dir: PathBuf,
    },
    /// A tokenizer is invalid or failed.
    #[error("the tokenizer `{}` failed: {source}", path.display())]
    Tokenizer {
        /// Its file or folder.
        path: PathBuf,
        /// The tokenizer library's error.
        source: tokenizers::Error,
    },
    /// A configuration names a token that is not in the vocabulary.
    #[error("`{field}` in `{}` is `{token}`, which `tokenizer.json` does not have", path.display())]
    UnknownToken {
        /// The configuration.
        path: PathBuf,
        /// The field.
        field: &'static str,
        /// The token.
        token: String,
    },
    /// The tokenizer's two files disagree about a token's id.
    #[error(
        "`{}` maps `{token}` to the id {id}, `tokenizer.json` to {}",
        path.display(),
        found.map_or("none".to_owned(), |id| id.to_string())
    )]
    AddedToken {
        /// The configuration.
        path: PathBuf,
        /// The token.
        token: String,
        /// Its id in the configuration.
        id: u32,
        /// Its id in the vocabulary.
        found: Option<u32>,
    },
    /// `eos_token_id` holds something other than token ids.
    #[error("`eos_token_id` in `{}` must be a token id or a list of token ids, not `{found}`", path.display())]
    StopIds {
        /// The file.
        path: PathBuf,
        /// Its value.
        found: String,
    },
    /// The requested vocabulary is too small for byte-level coverage.
    #[error(
        "`vocab_size` must be at least {smallest}, for all bytes and the special tokens, not {vocab_size}"
    )]
    VocabSize {
        /// The requested size.
        vocab_size: usize,
        /// The smallest possible one.
        smallest: usize,
    },
    /// A model has no chat template.
    #[error(
        "the model in `{}` has no chat template, add a `chat_template.jinja` or use an instruction-tuned model",
        dir.display()
    )]
    NoChatTemplate {
        /// The model's folder.
        dir: PathBuf,
    },
    /// A model has several chat templates without a default, or an invalid one.
    #[error("`chat_template` in `{}` has no template named `default`, found `{found}`", path.display())]
    TemplateChoice {
        /// The file.
        path: PathBuf,
        /// The templates found.
        found: String,
    },
    /// A chat template is invalid or rejected a conversation.
    #[error("the chat template of `{}` failed: {source}", path.display())]
    ChatTemplate {
        /// The template's file.
        path: PathBuf,
        /// Why, with the line.
        source: TemplateFault,
    },
    /// A model is neither a local path nor a Hub ID.
    #[error(
        "no such model: `{model}`; give a model directory, a GGUF file, or a Hub ID `org/name`, `org/name/file.gguf` \
         or `org/name:Q4_K_M`"
    )]
    NoSuchModel {
        /// The model as given.
        model: String,
    },
    /// A data set is neither a local directory nor a Hub ID.
    #[error("no such data set: `{dataset}`; give its directory, or a Hub ID `org/name`")]
    NoSuchDataset {
        /// The data set as given.
        dataset: String,
    },
    /// A model is a file in another format than GGUF.
    #[error("`{}` is a file, but not in GGUF format; give the directory of the model, or a GGUF file", path.display())]
    NotAModelFile {
        /// The file.
        path: PathBuf,
    },
    /// A model or a data set is not cached, and `HF_HUB_OFFLINE` forbids the download.
    #[error(
        "`{model}` ({revision}) is not in the Hugging Face cache and `HF_HUB_OFFLINE` is set, unset it or give a local directory"
    )]
    HubOffline {
        /// The model or the data set.
        model: String,
        /// The revision.
        revision: String,
    },
    /// A model or a data set cannot be downloaded from the Hugging Face Hub.
    #[error("cannot download `{model}` ({revision}) from the Hugging Face Hub: {fault}")]
    Hub {
        /// The model or the data set.
        model: String,
        /// The revision.
        revision: String,
        /// What is wrong, and what to do.
        fault: Box<HubFault>,
    },
    /// A tensor operation failed.
    #[error("cannot {action}: {source}")]
    Tensor {
        /// What failed, as a verb phrase.
        action: String,
        /// candle's error.
        source: candle_core::Error,
    },
}

impl Error {
    /// Sets the index of an [`Error::Sequence`].
    #[must_use]
    pub fn at_sequence(self, index: usize) -> Self {
        match self {
            Self::Sequence { fault, .. } => Self::Sequence { index, fault },
            other => other,
        }
    }

    /// An [`Error::Io`] about `path`, for `map_err`.
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let failed = embodied_r_files::Error::io(action, path);
        move |source| Self::Io(failed(source))
    }

    /// An [`Error::Tokenizer`] about `path`, for `map_err`.
    pub(crate) fn tokenizer(path: impl Into<PathBuf>) -> impl FnOnce(tokenizers::Error) -> Self {
        let path = path.into();
        move |source| Self::Tokenizer { path, source }
    }

    /// An [`Error::CorruptWeights`] about `path`, for `map_err`.
    pub(crate) fn corrupt(path: impl Into<PathBuf>) -> impl FnOnce(SafetensorsFault) -> Self {
        let path = path.into();
        move |fault| Self::CorruptWeights { path, fault: Box::new(fault) }
    }

    /// An [`Error::Json`] about `path`, for `map_err`.
    pub(crate) fn json(path: impl Into<PathBuf>) -> impl FnOnce(serde_json::Error) -> Self {
        let path = path.into();
        move |source| Self::Json { path, source }
    }
}

/// Adds context to candle's errors.
pub(crate) trait TensorContext<T> {
    /// Wraps an error as [`Error::Tensor`]; `action` is a verb phrase such as `compute layer 3`.
    fn context(self, action: impl Into<String>) -> Result<T>;
}

impl<T> TensorContext<T> for candle_core::Result<T> {
    fn context(self, action: impl Into<String>) -> Result<T> {
        self.map_err(|source| Error::Tensor { action: action.into(), source })
    }
}

/// The crate's result type.
pub type Result<T, E = Error> = std::result::Result<T, E>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_adapter_with_hundreds_of_faults_lists_the_first_ones() {
        let fault = |layer: usize| AdapterFault::Missing { name: format!("layers.{layer}.lora_A") };
        let faults = (0..300).map(fault).collect();
        let message =
            Error::Adapter { path: "adapter_model.safetensors".into(), faults }.to_string();
        assert!(message.ends_with("`layers.7.lora_A` is missing; and 292 more"), "{message}");
    }
}
