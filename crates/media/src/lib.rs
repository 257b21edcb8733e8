//! Images and videos on their way to a model.
//!
//! | module | contents |
//! |---|---|
//! | [`source`] | where pixels come from |
//! | [`files`] | files of images and of frames as sources |
//! | [`sampled_video`] | the frames of a video that a model sees |
//! | [`table`] | every image and video of a run's data, by a digest of its pixels, and its place in a prompt |
//! | [`digests`] | the digests of the images of prompts |
//! | [`prefetch`] | the patches of coming images, cut while a model computes |
//! | [`store`] | the embeddings of a table's images under a frozen vision tower, each encoded once |
//! | [`embedding_cache`] | the embeddings of images that no table knows beforehand, each encoded once |
//! | [`disk_cache`] | embeddings on disk |

pub mod digests;
pub mod disk_cache;
pub mod embedding_cache;
pub mod error;
pub mod files;
mod kept_frames;
mod lock;
mod lru;
pub mod prefetch;
pub mod sampled_video;
pub mod source;
pub mod store;
pub mod table;

pub use error::{Error, Result};
