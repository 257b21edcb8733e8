//! Weight files: safetensors in Hugging Face's layout, single or sharded, to named tensors and back.
//!
//! Inside this crate tensors bear the names of a `Qwen2ForCausalLM` or `LlamaForCausalLM`; the other layouts that
//! hold the same decoder (Qwen2.5-VL's) are renamed while they are read.

mod fault;
mod file;
mod map;
mod multimodal;
mod names;
mod random;
mod read;
mod tensor_file;
#[cfg(test)]
mod tests;
mod write;

pub use fault::WeightFault;
pub(crate) use fault::faults_in_words;
pub use file::FileFault;
pub(crate) use file::WeightFile;
pub(crate) use map::map;
pub(crate) use multimodal::Multimodal;
pub(crate) use names::canonical;
pub use names::tensor_shapes;
pub use random::write_random;
#[cfg(test)]
pub(crate) use read::StoredTensor;
pub use read::{VisionTensors, load};
pub(crate) use read::{decoder, files, find, is_float, open, tensor};
pub use tensor_file::TensorFile;
pub use write::{SaveOptions, save, save_file};

/// The file that holds all weights of a small model.
pub const SINGLE_FILE: &str = "model.safetensors";

/// The file that says which shard holds which tensor of a large model.
pub const INDEX_FILE: &str = "model.safetensors.index.json";
