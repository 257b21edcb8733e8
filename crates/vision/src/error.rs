//! The crate's error.

use std::path::{Path, PathBuf};

/// Errors of loading a vision-language model and encoding images.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read.
    #[error("cannot {action} `{}`: {source}", path.display())]
    Io {
        /// The failed action, as a verb.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// A file is not valid JSON, or a field has the wrong type.
    #[error("cannot parse `{}`: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The parser's error.
        source: serde_json::Error,
    },
    /// A model has no image processor.
    #[error(
        "`{}` has no `preprocessor_config.json`, which configures the image processor: is it a \
         vision-language model?", dir.display()
    )]
    NoProcessor {
        /// The model's folder.
        dir: PathBuf,
    },
    /// A model has no video processor, though its family's has settings of its own.
    #[error(
        "`{}` has no `video_preprocessor_config.json`, which limits the pixels of videos: copy the file from the \
         published model", dir.display()
    )]
    NoVideoProcessor {
        /// The model's folder.
        dir: PathBuf,
    },
    /// An image processor's configuration is invalid or not supported.
    #[error("`{}`: {fault}", path.display())]
    Processor {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        fault: String,
    },
    /// A model has no vision tower.
    #[error(
        "`{}` is a text model: its `config.json` has no `vision_config`; images need a \
         vision-language model such as Qwen2.5-VL or Qwen3-VL", dir.display()
    )]
    NoVision {
        /// The model's folder.
        dir: PathBuf,
    },
    /// A decoder's GGUF file has no `mmproj` file next to it.
    #[error(
        "`{}` is a decoder without a vision tower: images need the tower's GGUF file, with `mmproj` in its \
         name, in the same directory", model.display()
    )]
    NoMmproj {
        /// The decoder's file.
        model: PathBuf,
    },
    /// An image's aspect ratio is too extreme.
    #[error(
        "an image of {width} × {height} pixels is not supported: the longer side may be at most 200 \
         times the shorter"
    )]
    AspectRatio {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// A prompt does not have the placeholder tokens of an image or a video in one piece.
    #[error(
        "the image or video {index} of placeholder {placeholder} has {tokens} tokens, but the prompt has \
         {placeholders} placeholders for it"
    )]
    PlaceholderTokens {
        /// Index among those of its kind.
        index: usize,
        /// The placeholder's token id.
        placeholder: u32,
        /// Its tokens.
        tokens: usize,
        /// The placeholders found for it.
        placeholders: usize,
    },
    /// An image could not be decoded.
    #[error("cannot read the image {name}: {source}")]
    Image {
        /// Its file, or its origin.
        name: String,
        /// The decoder's error.
        source: Box<image::ImageError>,
    },
    /// An image's header announces too many pixels.
    #[error(
        "the image {name} has {width} × {height} pixels, above the limit of {most}: scale it down"
    )]
    TooLarge {
        /// Its file, or its origin.
        name: String,
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// The most pixels of an image.
        most: u64,
    },
    /// A tokenizer does not have a placeholder.
    #[error(
        "`tokenizer.json` has no token `{token}` with the ID {id}, the `{field}` of `config.json`: take both files from \
         one model"
    )]
    NoVisionToken {
        /// The placeholder.
        token: &'static str,
        /// Its ID in the configuration.
        id: u32,
        /// The configuration's field.
        field: &'static str,
    },
    /// The number of image placeholders differs from the number of images.
    #[error("the prompt has {placeholders} image placeholders for {images} images")]
    ImageCount {
        /// Image placeholders in the rendered prompt.
        placeholders: usize,
        /// Images given.
        images: usize,
    },
    /// The number of video placeholders differs from the number of videos.
    #[error("the prompt has {placeholders} video placeholders for {videos} videos")]
    VideoCount {
        /// Video placeholders in the rendered prompt.
        placeholders: usize,
        /// Videos given.
        videos: usize,
    },
    /// The frames of a video, or their times, are invalid.
    #[error("{0}")]
    Video(String),
    /// The tower's output size differs from the decoder's hidden size.
    #[error(
        "`{}`: the vision tower's output size is {found}, but the decoder's hidden size is {want}: its \
         configuration is mixed from two models", dir.display()
    )]
    HiddenSizes {
        /// The model's folder.
        dir: PathBuf,
        /// The tower's output size.
        found: usize,
        /// The decoder's hidden size.
        want: usize,
    },
    /// Patches that do not match the tower's configuration.
    #[error("{0}")]
    Patches(String),
    /// The vision tower of a GGUF file cannot be trained.
    #[error(
        "`{}` is a GGUF file, whose vision tower cannot be trained: give the model's directory in Hugging Face's \
         layout, or freeze the tower", model.display()
    )]
    GgufTower {
        /// The model.
        model: PathBuf,
    },
    /// Tensors that do not match the tower's configuration.
    #[error("the vision tower's tensors do not match its configuration: {0}")]
    TowerTensors(String),
    /// Gradients that do not match the tower or its embeddings.
    #[error("{0}")]
    Gradients(String),
    /// An error of the decoder or its files.
    #[error(transparent)]
    Policy(Box<embodied_r_policy::Error>),
    /// An error of a tensor operation.
    #[error(transparent)]
    Kernels(#[from] embodied_r_kernels::Error),
}

impl From<embodied_r_policy::Error> for Error {
    fn from(error: embodied_r_policy::Error) -> Self {
        Self::Policy(Box::new(error))
    }
}

impl Error {
    /// An [`Error::Io`] about `path`, for `map_err`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;
