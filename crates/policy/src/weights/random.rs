//! Writes random weights in chunks, so that models of any size need little memory.

use std::io::Write;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use embodied_r_random::Stream;
use half::{bf16, f16};
use indexmap::IndexMap;
use rayon::prelude::*;

use super::write::{GeneratedTensor, TensorSource, WriterRank, save_items};
use super::{SaveOptions, tensor_shapes};
use crate::config::{ModelConfig, WeightDtype};
use crate::error::{Result, TensorContext};

/// Elements generated per write.
const CHUNK: usize = 1 << 22;

/// Elements generated per task.
const TASK: usize = 1 << 16;

/// Writes a model with random weights into `dir`: configuration and weight files, without the tokenizer.
/// The configuration is written last, so that an interrupted save is not a model.
///
/// Weights have mean 0 and standard deviation `initializer_range`; norms have mean 1, and biases are not 0,
/// so that an implementation that ignores one gives different results. Each weight depends only on the seed,
/// its tensor and its index. `on_bytes` is called with the number of bytes written.
///
/// # Errors
/// [`crate::Error::Config`] if the configuration is inconsistent, [`crate::Error::Io`].
pub fn write_random(
    dir: &Path,
    config: &ModelConfig,
    seed: u64,
    options: &SaveOptions,
    on_bytes: &(dyn Fn(u64) + Sync),
) -> Result<()> {
    write_random_with(dir, (config, "model."), IndexMap::new(), seed, options, on_bytes)
}

/// As [`write_random`], with `prefix` in place of `model.` in the names of the decoder's tensors, and with further tensors,
/// such as a vision tower's, by their names and shapes.
///
/// # Errors
/// As [`write_random`].
pub fn write_random_with(
    dir: &Path,
    (config, prefix): (&ModelConfig, &str),
    further: IndexMap<String, Vec<usize>>,
    seed: u64,
    options: &SaveOptions,
    on_bytes: &(dyn Fn(u64) + Sync),
) -> Result<()> {
    let config = ModelConfig { dtype: options.dtype, ..config.clone() };
    config.check_for(dir)?;
    let stored = |(name, shape): (String, Vec<usize>)| match name.strip_prefix("model.") {
        Some(rest) => (format!("{prefix}{rest}"), shape),
        None => (name, shape),
    };
    let shapes = tensor_shapes(&config).into_iter().map(stored).chain(further);
    let shapes: IndexMap<String, Vec<usize>> = shapes.collect();
    let random = shapes.iter().enumerate().map(|(index, (name, shape))| {
        let values = RandomValues::new(&config, seed, index, name);
        Random { shape, values, on_bytes }
    });
    let random: Vec<Random<'_>> = random.collect();
    let names = shapes.keys().map(String::as_str);
    save_items(
        dir,
        names.zip(random.iter().map(|random| TensorSource::Generated(random))),
        options,
        WriterRank::SINGLE,
    )?;
    config.save(dir)
}

/// Whether a tensor scales a normalized input, also of a vision tower.
fn is_norm(name: &str) -> bool {
    [".norm.weight", "norm.weight", "norm1.weight", "norm2.weight", "ln_q.weight"]
        .iter()
        .any(|end| name.ends_with(end))
}

/// The weights that [`write_random`] writes, on `device`, matrices in the dtype `matrices` and others in f32. The host holds
/// one tensor at a time.
///
/// # Errors
/// The configuration is inconsistent, or the device is out of memory.
pub(crate) fn random_on(
    device: &Device,
    config: &ModelConfig,
    seed: u64,
    matrices: DType,
) -> Result<IndexMap<String, Tensor>> {
    let shapes = tensor_shapes(config).into_iter().enumerate();
    let tensor = |(index, (name, shape)): (usize, (String, Vec<usize>))| {
        let values = RandomValues::new(config, seed, index, &name);
        let count = shape.iter().product::<usize>();
        let tensor = match (shape.len(), matrices) {
            (2, DType::BF16) => Tensor::from_vec(values.all(count, bf16::from_f32), shape, device),
            _ => Tensor::from_vec(values.all(count, |x| x), shape, device),
        };
        let tensor = tensor.context(format!("create `{name}` on the device"))?;
        Ok((name, tensor))
    };
    shapes.map(tensor).collect()
}

/// The random numbers of a tensor.
struct RandomValues {
    stream: Stream,
    mean: f32,
    deviation: f32,
}

impl RandomValues {
    /// Those of the tensor `name` with this index in the model.
    fn new(config: &ModelConfig, seed: u64, index: usize, name: &str) -> Self {
        Self {
            stream: Stream::new(seed, index as u64),
            mean: if is_norm(name) { 1.0 } else { 0.0 },
            deviation: config.initializer_range as f32,
        }
    }

    fn at(&self, index: usize) -> f32 {
        self.mean + self.deviation * self.stream.bell(index as u64)
    }

    /// The first `count`, converted.
    fn all<T: Send>(&self, count: usize, convert: impl Fn(f32) -> T + Sync) -> Vec<T> {
        (0..count).into_par_iter().with_min_len(TASK).map(|i| convert(self.at(i))).collect()
    }
}

/// A tensor of random numbers to write.
struct Random<'a> {
    shape: &'a [usize],
    values: RandomValues,
    on_bytes: &'a (dyn Fn(u64) + Sync),
}

impl Random<'_> {
    fn fill(&self, first: usize, dtype: WeightDtype, bytes: &mut [u8]) {
        let size = dtype.size_bytes();
        for (i, bytes) in bytes.chunks_exact_mut(size).enumerate() {
            let x = self.values.at(first + i);
            match dtype {
                WeightDtype::F32 => bytes.copy_from_slice(&x.to_le_bytes()),
                WeightDtype::Bf16 => bytes.copy_from_slice(&bf16::from_f32(x).to_le_bytes()),
                WeightDtype::F16 => bytes.copy_from_slice(&f16::from_f32(x).to_le_bytes()),
            }
        }
    }
}

impl GeneratedTensor for Random<'_> {
    fn dims(&self) -> &[usize] {
        self.shape
    }

    fn write(&self, dtype: WeightDtype, out: &mut dyn Write) -> std::io::Result<()> {
        let (count, size) = (self.shape.iter().product::<usize>(), dtype.size_bytes());
        let mut buffer = vec![0; count.min(CHUNK) * size];
        for first in (0..count).step_by(CHUNK) {
            let bytes = &mut buffer[..CHUNK.min(count - first) * size];
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
            max_position_embeddings: 64,
            initializer_range: 0.1,
            dtype: WeightDtype::F32,
            bos_token_id: None,
            eos_token_ids: vec![1],
            placeholder_token_ids: Vec::new(),
        }
    }

    fn written(threads: usize, options: &SaveOptions) -> (tempfile::TempDir, u64) {
        let dir = tempfile::tempdir().unwrap();
        let reported = std::sync::Mutex::new(0);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let on_bytes = |bytes| *reported.lock().unwrap() += bytes;
        pool.install(|| write_random(dir.path(), &config(), 7, options, &on_bytes).unwrap());
        let reported = *reported.lock().unwrap();
        (dir, reported)
    }

    #[test]
    fn the_bytes_do_not_depend_on_the_number_of_threads_and_are_all_reported() {
        let options = SaveOptions { dtype: WeightDtype::Bf16, ..SaveOptions::default() };
        let ((one, reported), (three, _)) = (written(1, &options), written(3, &options));
        let read = |dir: &tempfile::TempDir| {
            std::fs::read(dir.path().join(crate::weights::SINGLE_FILE)).unwrap()
        };
        assert_eq!(read(&one), read(&three));
        assert_eq!(reported, config().parameter_count() as u64 * 2);
    }

    #[test]
    fn shards_have_the_weights_of_the_single_file() {
        let whole = written(2, &SaveOptions::default()).0;
        let parts = written(2, &SaveOptions { max_shard_bytes: 8_000, ..SaveOptions::default() }).0;
        assert!(parts.path().join(crate::weights::INDEX_FILE).is_file());
        let (whole, parts) =
            (Policy::load(whole.path()).unwrap(), Policy::load(parts.path()).unwrap());
        for (name, tensor) in whole.parameters().iter() {
            let other = parts.parameters().get(name).unwrap();
            let values =
                |t: &candle_core::Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert_eq!(values(tensor), values(other), "{name}");
        }
    }

    #[test]
    fn a_model_on_a_device_has_the_weights_of_the_files() {
        let dir = written(2, &SaveOptions { dtype: WeightDtype::Bf16, ..SaveOptions::default() }).0;
        let read = Policy::load(dir.path()).unwrap();
        let created = random_on(&Device::Cpu, &config(), 7, DType::BF16).unwrap();
        assert_eq!(created.len(), read.parameters().len());
        for (name, tensor) in read.parameters().iter() {
            let values = |tensor: &Tensor| {
                tensor
                    .to_dtype(DType::F32)
                    .unwrap()
                    .flatten_all()
                    .unwrap()
                    .to_vec1::<f32>()
                    .unwrap()
            };
            // Vectors are f32 on a device.
            let created = match created[name].rank() {
                1 => created[name].to_dtype(DType::BF16).unwrap(),
                _ => created[name].clone(),
            };
            assert_eq!(values(&created), values(tensor), "{name}");
        }
    }

    #[test]
    fn norms_are_around_1_and_biases_are_not_0() {
        let dir = written(2, &SaveOptions::default()).0;
        let policy = Policy::load(dir.path()).unwrap();
        let of = |name: &str| policy.parameters().get(name).unwrap().to_vec1::<f32>().unwrap();
        let norm = of("model.norm.weight");
        assert!(norm.iter().all(|x| *x != 1.0 && (x - 1.0).abs() < 0.4), "{norm:?}");
        let bias = of("model.layers.0.self_attn.q_proj.bias");
        assert!(bias.iter().all(|x| *x != 0.0 && x.abs() < 0.4), "{bias:?}");
    }
}
