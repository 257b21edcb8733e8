//! The crate's error.

use std::path::PathBuf;

use crate::config::ConfigFault;
use crate::gguf::GgufFault;
use crate::lora::AdapterFault;
use crate::weights::{FileFault, INDEX_FILE, SINGLE_FILE, WeightFault, faults_in_words};

/// What can go wrong while a model is read, run or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be read or written.
    #[error("cannot {action} `{}`: {source}", path.display())]
    Io {
        /// What was tried, as a verb: `read`, `write`, `create` …
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// A JSON file does not have the expected form.
    #[error("`{}` is not the JSON expected: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The parser's reason, with line and column.
        source: serde_json::Error,
    },
    /// A default of sampling in a model's `generation_config.json` cannot be.
    #[error("`{field}` in `{}` is `{found}`, want {want}", path.display())]
    SamplingDefault {
        /// The file.
        path: PathBuf,
        /// The field.
        field: &'static str,
        /// What stands there.
        found: String,
        /// What should.
        want: &'static str,
    },
    /// A model's `config.json` is faulty, or asks for something this decoder does not do.
    #[error("cannot use the model configuration `{}`: {}", path.display(), listed(faults))]
    Config {
        /// The file.
        path: PathBuf,
        /// Every fault found.
        faults: Vec<ConfigFault>,
    },
    /// A GGUF file is broken, or holds what this decoder does not do.
    #[error("cannot use the GGUF file `{}`: {fault}", path.display())]
    Gguf {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        fault: Box<GgufFault>,
    },
    /// A folder has several GGUF files and nothing that says which one is meant.
    #[error(
        "`{}` holds the GGUF files {}: give the path of one; of vision towers (mmproj) leave one beside it",
        dir.display(), found.join(", ")
    )]
    GgufChoice {
        /// The folder.
        dir: PathBuf,
        /// Their names.
        found: Vec<String>,
    },
    /// An adapter asks for what is not done here, or does not fit the model.
    #[error("cannot use the adapter's `{}`: {}", path.display(), listed(faults))]
    Adapter {
        /// The file.
        path: PathBuf,
        /// Every fault found.
        faults: Vec<AdapterFault>,
    },
    /// The model that an adapter was trained on cannot be had.
    #[error(
        "the adapter `{}` stands on the model `{base}`, which cannot be had: {fault}; put it there, or change \
         `base_model_name_or_path` in the adapter's `adapter_config.json`",
        dir.display()
    )]
    AdapterBase {
        /// The adapter's folder.
        dir: PathBuf,
        /// The model, as the adapter names it.
        base: String,
        /// Why not.
        fault: String,
    },
    /// An adapter was to be trained beside a model that is an adapter itself.
    #[error("`{}` is an adapter, merge it with its model before another is trained on it", dir.display())]
    AdapterOnAdapter {
        /// Its folder.
        dir: PathBuf,
    },
    /// What is to be frozen is no pattern.
    #[error("`freeze_parameters_regex` has `{pattern}`, which is no regular expression: {reason}")]
    FreezePattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A pattern of what is to be frozen is found in no name.
    #[error(
        "`freeze_parameters_regex` has `{pattern}`, which is found in no name of the model's tensors, such as \
         `model.embed_tokens.weight` or `model.layers.0.self_attn.q_proj.weight`"
    )]
    NothingFrozen {
        /// The pattern.
        pattern: String,
    },
    /// Nothing is left to train.
    #[error("`freeze_parameters_regex` freezes every tensor of the model, leave some to train")]
    AllFrozen,
    /// A folder has no weights in it.
    #[error(
        "no weights in `{}`, want `{SINGLE_FILE}`, `{INDEX_FILE}` with its shards, or one GGUF file",
        dir.display()
    )]
    NoWeights {
        /// The folder.
        dir: PathBuf,
    },
    /// A weight file is cut or broken.
    #[error("the weight file `{}` is truncated or corrupt, fetch it anew: {fault}", path.display())]
    CorruptWeights {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        fault: Box<FileFault>,
    },
    /// A weight file is the stand-in that Git leaves without its large-file extension.
    #[error("`{}` is a pointer of Git LFS and not the weights, run `git lfs pull` there", path.display())]
    LfsPointer {
        /// The file.
        path: PathBuf,
    },
    /// An index names a shard that is not a file beside it.
    #[error("`{}` names the shard `{shard}`, want the name of a file beside it", index.display())]
    ShardName {
        /// The index.
        index: PathBuf,
        /// The shard's name.
        shard: String,
    },
    /// The weights do not fit the configuration.
    #[error("the weights in `{}` do not fit its configuration: {}", dir.display(), faults_in_words(faults))]
    Weights {
        /// The model's folder.
        dir: PathBuf,
        /// Every tensor at fault.
        faults: Vec<WeightFault>,
    },
    /// A sampling parameter is out of its range.
    #[error("`{field}` is {found}, want {want}")]
    Sampling {
        /// Its name.
        field: &'static str,
        /// Its value.
        found: f64,
        /// What it should be.
        want: &'static str,
    },
    /// A sampling parameter names a token that the model does not have.
    #[error("`{field}` has the id {id}, want ids below {vocabulary}, the model's vocabulary")]
    SamplingId {
        /// The parameter's name.
        field: &'static str,
        /// The id.
        id: u32,
        /// Tokens of the model.
        vocabulary: usize,
    },
    /// The tokens to draw among are none.
    #[error("`allowed_token_ids` is empty, want at least one id, or leave it out to allow all")]
    NoAllowedTokens,
    /// A tensor that the configuration asks for is not among those given.
    #[error("the tensor `{name}` is missing")]
    MissingTensor {
        /// Its canonical name.
        name: String,
    },
    /// An engine's option does not allow any work.
    #[error("`{option}` is {found}, want {want}")]
    Engine {
        /// Its name.
        option: &'static str,
        /// Its value.
        found: usize,
        /// What it should be.
        want: String,
    },
    /// A sequence given to the model is not one it can take.
    #[error("sequence {index}: {fault}")]
    Sequence {
        /// Its index among those given.
        index: usize,
        /// What is wrong with it.
        fault: String,
    },
    /// A model cannot be split over so many ranks.
    #[error(
        "cannot split `{field}` of {found} over {ranks} ranks, want {want}; use another `--tp`"
    )]
    Split {
        /// The size of the configuration.
        field: &'static str,
        /// Its value.
        found: usize,
        /// The ranks.
        ranks: usize,
        /// What it should be.
        want: String,
    },
    /// A rank's columns of a matrix are no whole blocks of it.
    #[error(
        "cannot split `{name}` at column {column}: {format} holds {block} numbers of a row together; use a smaller \
         `--tp`, or weights in another format"
    )]
    SplitBlock {
        /// The matrix.
        name: String,
        /// Where it would be cut.
        column: usize,
        /// How it is held.
        format: &'static str,
        /// Numbers of a block.
        block: usize,
    },
    /// An adapter stands beside a model that is split over ranks.
    #[error("`{}` is an adapter, merge it with its model (`embodied-r merge`) to run it on several ranks", dir.display())]
    SplitAdapter {
        /// Its folder.
        dir: PathBuf,
    },
    /// The ranks that hold the model's parts cannot go on together.
    #[error(transparent)]
    Ranks(#[from] embodied_r_dist::Error),
    /// An operation of the decoder failed.
    #[error("the decoder cannot go on: {0}")]
    Kernel(#[from] embodied_r_kernels::Error),
    /// A folder has no tokenizer in it.
    #[error("no `tokenizer.json` in `{}`, want a model's folder with its tokenizer", dir.display())]
    NoTokenizer {
        /// The folder.
        dir: PathBuf,
    },
    /// A tokenizer is broken, or cannot do what was asked.
    #[error("the tokenizer `{}` failed: {source}", path.display())]
    Tokenizer {
        /// Its file or folder.
        path: PathBuf,
        /// Its reason.
        source: tokenizers::Error,
    },
    /// A configuration names a token that the vocabulary does not have.
    #[error("`{field}` in `{}` is `{token}`, which `tokenizer.json` does not have", path.display())]
    UnknownToken {
        /// The configuration.
        path: PathBuf,
        /// The field.
        field: &'static str,
        /// The token.
        token: String,
    },
    /// The tokenizer's two files disagree about a token.
    #[error(
        "`added_tokens_decoder` in `{}` gives `{token}` the id {id}, `tokenizer.json` gives {}",
        path.display(),
        found.map_or("none".to_owned(), |id| id.to_string())
    )]
    AddedToken {
        /// The configuration.
        path: PathBuf,
        /// The token.
        token: String,
        /// Its id there.
        id: u32,
        /// Its id in the vocabulary.
        found: Option<u32>,
    },
    /// The stop tokens are no token ids.
    #[error("`eos_token_id` in `{}` is `{found}`, want a token id or a list of them", path.display())]
    StopIds {
        /// The file.
        path: PathBuf,
        /// What stands there.
        found: String,
    },
    /// A vocabulary is asked for that cannot express every text.
    #[error(
        "`vocab_size` is {vocab_size}, want at least {smallest}: the bytes and the special tokens"
    )]
    VocabSize {
        /// The size asked for.
        vocab_size: usize,
        /// The smallest possible one.
        smallest: usize,
    },
    /// A model has no chat template.
    #[error(
        "the model in `{}` has no chat template, add a `chat_template.jinja` or take an instruction-tuned model",
        dir.display()
    )]
    NoChatTemplate {
        /// The model's folder.
        dir: PathBuf,
    },
    /// A model has several chat templates, or none that is text.
    #[error("`chat_template` in `{}` has no template named `default`, found `{found}`", path.display())]
    TemplateChoice {
        /// The file.
        path: PathBuf,
        /// What stands there.
        found: String,
    },
    /// A chat template is wrong, or refused a conversation.
    #[error("the chat template of `{}` failed: {source:#}", path.display())]
    ChatTemplate {
        /// The template's file.
        path: PathBuf,
        /// The reason, with the line.
        source: minijinja::Error,
    },
    /// A model's name is neither a folder nor one of the hub's.
    #[error(
        "there is no folder `{model}`, want a model's folder, a GGUF file or a name `org/name` on the hub"
    )]
    NoSuchModel {
        /// What was given.
        model: String,
    },
    /// A model would have to be fetched, and `HF_HUB_OFFLINE` forbids it.
    #[error(
        "`{model}` ({revision}) is not in the hub's cache and `HF_HUB_OFFLINE` is set, unset it or give a folder"
    )]
    HubOffline {
        /// The model.
        model: String,
        /// The revision.
        revision: String,
    },
    /// A model cannot be fetched from the hub.
    #[error(
        "cannot fetch `{model}` ({revision}) from the hub, check its name, `HF_TOKEN` and the network, or give a \
         folder: {source}"
    )]
    Hub {
        /// The model.
        model: String,
        /// The revision.
        revision: String,
        /// The reason.
        source: Box<hf_hub::api::tokio::ApiError>,
    },
    /// A tensor operation failed.
    #[error("cannot {doing}: {source}")]
    Tensor {
        /// What was being computed, as a verb phrase.
        doing: String,
        /// candle's reason.
        source: candle_core::Error,
    },
}

/// Joins faults for one message.
pub(crate) fn listed<T: std::fmt::Display>(faults: &[T]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl Error {
    /// The same error about the sequence at `index`, if it is about one.
    pub(crate) fn at_sequence(self, index: usize) -> Self {
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
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }

    /// An [`Error::Tokenizer`] about `path`, for `map_err`.
    pub(crate) fn tokenizer(path: impl Into<PathBuf>) -> impl FnOnce(tokenizers::Error) -> Self {
        let path = path.into();
        move |source| Self::Tokenizer { path, source }
    }

    /// An [`Error::CorruptWeights`] about `path`, for `map_err`.
    pub(crate) fn corrupt(path: impl Into<PathBuf>) -> impl FnOnce(FileFault) -> Self {
        let path = path.into();
        move |fault| Self::CorruptWeights { path, fault: Box::new(fault) }
    }

    /// An [`Error::Json`] about `path`, for `map_err`.
    pub(crate) fn json(path: impl Into<PathBuf>) -> impl FnOnce(serde_json::Error) -> Self {
        let path = path.into();
        move |source| Self::Json { path, source }
    }
}

/// Gives candle's errors the context they lack.
pub(crate) trait During<T> {
    /// Wraps an error as [`Error::Tensor`]; `doing` is a verb phrase such as `compute layer 3`.
    fn during(self, doing: impl Into<String>) -> Result<T>;
}

impl<T> During<T> for candle_core::Result<T> {
    fn during(self, doing: impl Into<String>) -> Result<T> {
        self.map_err(|source| Error::Tensor { doing: doing.into(), source })
    }
}

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;
