//! Weight files: reads and writes safetensors in Hugging Face's layout, single or sharded.
//!
//! Canonical tensor names are those of the class in `transformers`, such as `Qwen2ForCausalLM`; names of other layouts with the same
//! decoder (Qwen2.5-VL) are mapped on load.

mod encoder;
mod fault;
mod file;
mod head;
mod map;
mod multimodal;
mod names;
mod random;
mod read;
mod tensor_file;
#[cfg(test)]
mod tests;
mod write;

pub use crate::tensors::tensor_shapes;
pub use encoder::EncoderTensors;
pub use fault::{SafetensorsFault, WeightFault};
pub(crate) use file::WeightFile;
pub(crate) use head::has_own_head;
pub(crate) use map::map;
pub(crate) use multimodal::Multimodal;
pub use names::ENCODER;
pub(crate) use names::{canonical, of_encoder};
pub(crate) use random::random_on;
pub use random::{write_random, write_random_with};
#[cfg(test)]
pub(crate) use read::LazyTensor;
pub use read::{StoredDecoder, check_headers, load};
pub(crate) use read::{decoder, decoder_on, files, find, is_float, open, tensor};
pub use tensor_file::TensorFile;
pub(crate) use write::save_file_with_metadata;
pub use write::{SaveOptions, WriterRank, save, save_file, save_sharded};

/// The weight file of an unsharded model.
pub const SINGLE_FILE: &str = "model.safetensors";

/// The index of a sharded model: the shard of each tensor.
pub const INDEX_FILE: &str = "model.safetensors.index.json";
