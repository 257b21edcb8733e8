//! Images and videos on their way to a model.
//!
//! | module | contents |
//! |---|---|
//! | [`source`] | where the pixels of an image or a video come from |
//! | [`files`] | images, and frames of videos, as sources |
//! | [`sampled_video`] | the frames of a video that a model sees |
//! | [`reader`] | from the images and videos of questions to sources |
//! | [`table`] | every image and video of a run's data, by a digest of its pixels, and its layout in a prompt |
//! | [`laid_out`] | questions with the layouts of their images and videos |
//! | [`digests`] | the digests of the images of prompts |
//! | [`prefetch`] | the patches of coming images, cut while a model computes |
//! | [`store`] | the embeddings of a table's images under a frozen vision tower, each encoded once |
//! | [`embedding_cache`] | the embeddings of images that no table has, the last used ones |
//! | [`disk_cache`] | embeddings on disk |
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use embodied_r_data::multimodal::MediaFile;
//! use embodied_r_media::files::ImageFile;
//! use embodied_r_media::source::{ImageSource, ReadError};
//! use embodied_r_media::store::{ImageStore, StoreOptions};
//! use embodied_r_media::table::ImageTable;
//! use embodied_r_vision::VisionProcessor;
//!
//! # fn prepare(ids: &[u32], options: StoreOptions) -> Result<(), ReadError> {
//! let mut table = ImageTable::new(VisionProcessor::of_model(&options.model)?);
//! let image: Arc<dyn ImageSource> = Arc::new(ImageFile(MediaFile::Path("room.png".into())));
//! let layouts: Vec<_> = table.add_all(&[image], &|| ()).into_iter().collect::<Result<_, _>>()?;
//! // `ids` has one placeholder, which becomes one for each token of the image.
//! let prompt = table.processor().prompt(ids, &layouts)?;
//! let store = ImageStore::new(Arc::new(table), options);
//! store.prepare([&prompt])?;
//! let embedded = prompt.embedded(Some(&store))?;
//! # drop(embedded);
//! # Ok(())
//! # }
//! ```

pub mod digests;
pub mod disk_cache;
mod distinct;
pub mod embedding_cache;
pub mod error;
pub mod files;
mod kept_frames;
pub mod laid_out;
mod lock;
mod lru;
pub mod prefetch;
pub mod reader;
pub mod sampled_video;
mod separate_frames;
mod skipped;
pub mod source;
pub mod store;
pub mod table;
mod video_file;

pub use error::{Error, Result};
