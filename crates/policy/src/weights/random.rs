//! Random weights, written a piece at a time: a model of any size needs little memory to make.

use std::io::Write;
use std::path::Path;

use half::{bf16, f16};
use rayon::prelude::*;

use super::write::{Item, Share, Source, save_items};
use super::{SaveOptions, tensor_shapes};
use crate::config::{ModelConfig, WeightDtype};
use crate::error::Result;
use crate::random::Stream;

/// Numbers that are drawn before they are written.
const PIECE: usize = 1 << 22;

/// Numbers that one task draws.
const TASK: usize = 1 << 16;

/// Writes a model with random weights into the folder `dir`: configuration and weight files, the
/// tokenizer is apart. The configuration comes last, so that what was stopped is no model.
///
/// The numbers have the mean 0 and the deviation `initializer_range`; those of norms lie as far from
/// 1, and biases are not 0, so that a reader that leaves one out gives other results. A number depends
/// on the seed, its tensor and its place alone. `on_bytes` hears how many bytes are written.
///
/// # Errors
/// [`crate::Error::Config`] if the shape is impossible, [`crate::Error::Io`].
pub fn write_random(
    dir: &Path,
    config: &ModelConfig,
    seed: u64,
    options: &SaveOptions,
    on_bytes: &(dyn Fn(u64) + Sync),
) -> Result<()> {
    let config = ModelConfig { dtype: options.dtype, ..config.clone() };
    config.check_for(dir)?;
    let shapes = tensor_shapes(&config);
    let random = shapes.iter().enumerate().map(|(index, (name, shape))| Random {
        shape,
        stream: Stream::new(seed, index as u64),
        mean: if name.ends_with("norm.weight") { 1.0 } else { 0.0 },
        deviation: config.initializer_range as f32,
        on_bytes,
    });
    let random: Vec<Random<'_>> = random.collect();
    let names = shapes.keys().map(String::as_str);
    save_items(
        dir,
        names.zip(random.iter().map(|random| Item::Made(random))),
        options,
        Share::ALL,
    )?;
    config.save(dir)
}

/// A tensor of random numbers.
struct Random<'a> {
    shape: &'a [usize],
    stream: Stream,
    mean: f32,
    deviation: f32,
    on_bytes: &'a (dyn Fn(u64) + Sync),
}

impl Random<'_> {
    fn fill(&self, first: usize, dtype: WeightDtype, bytes: &mut [u8]) {
        let size = dtype.size_bytes();
        for (i, bytes) in bytes.chunks_exact_mut(size).enumerate() {
            let x = self.mean + self.deviation * self.stream.bell((first + i) as u64);
            match dtype {
                WeightDtype::F32 => bytes.copy_from_slice(&x.to_le_bytes()),
                WeightDtype::Bf16 => bytes.copy_from_slice(&bf16::from_f32(x).to_le_bytes()),
                WeightDtype::F16 => bytes.copy_from_slice(&f16::from_f32(x).to_le_bytes()),
            }
        }
    }
}

impl Source for Random<'_> {
    fn dims(&self) -> &[usize] {
        self.shape
    }

    fn write(&self, dtype: WeightDtype, out: &mut dyn Write) -> std::io::Result<()> {
        let (count, size) = (self.shape.iter().product::<usize>(), dtype.size_bytes());
        let mut buffer = vec![0; count.min(PIECE) * size];
        for first in (0..count).step_by(PIECE) {
            let bytes = &mut buffer[..PIECE.min(count - first) * size];
            bytes.par_chunks_mut(TASK * size).enumerate().for_each(|(task, bytes)| {
                self.fill(first + task * TASK, dtype, bytes);
            });
            out.write_all(bytes)?;
            (self.on_bytes)(bytes.len() as u64);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ModelType, Rope};
    use crate::policy::Policy;

    fn config() -> ModelConfig {
        ModelConfig {
            model_type: ModelType::Qwen2,
            vocab_size: 300,
            hidden_size: 16,
            intermediate_size: 40,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            num_key_value_heads: 1,
            head_dim: 8,
            rms_norm_eps: 1e-6,
            rope: Rope::plain(10_000.0),
            sliding_window: None,
            tie_word_embeddings: false,
            attention_bias: true,
            max_position_embeddings: 64,
            initializer_range: 0.1,
            dtype: WeightDtype::F32,
            bos_token_id: None,
            eos_token_ids: vec![1],
        }
    }

    fn written(threads: usize, options: &SaveOptions) -> (tempfile::TempDir, u64) {
        let dir = tempfile::tempdir().unwrap();
        let told = std::sync::Mutex::new(0);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let on_bytes = |bytes| *told.lock().unwrap() += bytes;
        pool.install(|| write_random(dir.path(), &config(), 7, options, &on_bytes).unwrap());
        let told = *told.lock().unwrap();
        (dir, told)
    }

    #[test]
    fn the_bytes_are_the_same_on_any_number_of_threads_and_all_are_told() {
        let options = SaveOptions { dtype: WeightDtype::Bf16, ..SaveOptions::default() };
        let ((one, told), (three, _)) = (written(1, &options), written(3, &options));
        let read = |dir: &tempfile::TempDir| {
            std::fs::read(dir.path().join(crate::weights::SINGLE_FILE)).unwrap()
        };
        assert_eq!(read(&one), read(&three));
        assert_eq!(told, config().parameter_count() as u64 * 2);
    }

    #[test]
    fn shards_hold_the_numbers_of_the_single_file() {
        let whole = written(2, &SaveOptions::default()).0;
        let parts = written(2, &SaveOptions { max_shard_bytes: 8_000, ..SaveOptions::default() }).0;
        assert!(parts.path().join(crate::weights::INDEX_FILE).is_file());
        let (whole, parts) =
            (Policy::load(whole.path()).unwrap(), Policy::load(parts.path()).unwrap());
        for (name, tensor) in whole.parameters().iter() {
            let other = parts.parameters().get(name).unwrap();
            let numbers =
                |t: &candle_core::Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert_eq!(numbers(tensor), numbers(other), "{name}");
        }
    }

    #[test]
    fn norms_lie_around_1_and_biases_are_not_0() {
        let dir = written(2, &SaveOptions::default()).0;
        let policy = Policy::load(dir.path()).unwrap();
        let of = |name: &str| policy.parameters().get(name).unwrap().to_vec1::<f32>().unwrap();
        let norm = of("model.norm.weight");
        assert!(norm.iter().all(|x| *x != 1.0 && (x - 1.0).abs() < 0.4), "{norm:?}");
        let bias = of("model.layers.0.self_attn.q_proj.bias");
        assert!(bias.iter().all(|x| *x != 0.0 && x.abs() < 0.4), "{bias:?}");
    }
}
