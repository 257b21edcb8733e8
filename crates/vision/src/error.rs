//! The crate's error.

use std::path::{Path, PathBuf};

/// What can go wrong between pictures and a model's words about them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read.
    #[error("cannot {action} `{}`: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// A file is no JSON, or a field in it has the wrong form.
    #[error("`{}`: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The parser's reason.
        source: serde_json::Error,
    },
    /// A model has no image processor.
    #[error(
        "`{}` has no `preprocessor_config.json`, which says how pictures become patches: is it a \
         vision-language model?", dir.display()
    )]
    NoProcessor {
        /// The model's folder.
        dir: PathBuf,
    },
    /// An image processor that cannot be, or is not supported.
    #[error("`{}`: {fault}", path.display())]
    Processor {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        fault: String,
    },
    /// A model has no vision tower.
    #[error(
        "`{}` is a text model: its `config.json` has no `vision_config`; pictures need a \
         vision-language model such as Qwen2.5-VL", dir.display()
    )]
    NoVision {
        /// The model's folder.
        dir: PathBuf,
    },
    /// A decoder's GGUF file without that of its tower.
    #[error(
        "`{}` is a decoder alone: pictures need the vision tower's GGUF file, whose name has `mmproj` in it, \
         in the same folder", model.display()
    )]
    NoMmproj {
        /// The decoder's file.
        model: PathBuf,
    },
    /// A picture that is far longer than wide.
    #[error(
        "a picture of {width} × {height} pixels cannot be taken: the longer side may be at most 200 \
         times the shorter"
    )]
    Proportions {
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
    },
    /// A picture could not be read.
    #[error("the picture {name} cannot be read: {source}")]
    Picture {
        /// Its file, or how it came.
        name: String,
        /// The decoder's reason.
        source: Box<image::ImageError>,
    },
    /// A picture is refused by its header.
    #[error(
        "the picture {name} has {width} × {height} pixels, at most {} are read",
        crate::picture::MOST_PIXELS
    )]
    TooLarge {
        /// Its file, or how it came.
        name: String,
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
    },
    /// The chat template gives another number of places for pictures than there are pictures.
    #[error("the chat template has {places} places for {pictures} pictures and videos")]
    Places {
        /// Places in the rendered text.
        places: usize,
        /// Pictures and videos that were given.
        pictures: usize,
    },
    /// The tower makes tokens of another width than the decoder's.
    #[error(
        "`{}`: the vision tower's tokens are {found} wide, the decoder's {want}: its configuration is \
         put together from two models", dir.display()
    )]
    Widths {
        /// The model's folder.
        dir: PathBuf,
        /// The tower's.
        found: usize,
        /// The decoder's.
        want: usize,
    },
    /// Patches that the tower cannot take.
    #[error("{0}")]
    Patches(String),
    /// The decoder or its files.
    #[error(transparent)]
    Policy(Box<embodied_r_policy::Error>),
    /// An operation on tensors.
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
