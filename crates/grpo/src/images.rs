//! The images and videos of a run's prompts, and their embeddings.
//!
//! [`ImageTable`] knows every image of the data by a digest of its pixels, and its place in a prompt. [`ImageStore`] has
//! the embeddings: with a frozen vision tower an image is encoded once per run, and its embeddings are cached in memory
//! and on disk.

pub mod disk_cache;
pub mod files;
pub mod store;
pub mod table;
