use std::path::{Path, PathBuf};
use std::sync::Arc;

use embodied_r_kernels::quantized::BlockFormat;
use embodied_r_kernels::weight::WeightFormat;

use super::*;
use crate::config::ModelConfig;
use crate::engine::GenerationRequest;
use crate::engine::{Engine, EngineOptions, EngineOutput, InferenceModel};
use crate::error::Error;
use crate::gguf::{GgufModel, GgufTensor};
use crate::policy::Policy;
use crate::sampling::SamplingParams;
use crate::weights::{SaveOptions, find, open, tensor_shapes};

/// [`TensorParallel::on_threads`].
fn on_ranks<R: Send>(ranks: usize, work: impl Fn(&TensorParallel) -> R + Sync) -> Vec<R> {
    TensorParallel::on_threads(ranks, work).unwrap()
}

fn config(tied: bool) -> ModelConfig {
    config_of("qwen2", tied)
}

fn config_of(family: &str, tied: bool) -> ModelConfig {
    let json = serde_json::json!({
        "model_type": family, "vocab_size": 97, "hidden_size": 64, "intermediate_size": 160,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
        "max_position_embeddings": 600, "rms_norm_eps": 1e-6, "tie_word_embeddings": tied,
        "initializer_range": 0.3, "eos_token_id": 3,
    });
    ModelConfig::from_json(&json).unwrap()
}

fn folder(config: &ModelConfig) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    Policy::random(config, 7).unwrap().save(dir.path(), &SaveOptions::default()).unwrap();
    dir
}

/// Ids and log-probabilities of completions, sampled at temperature 1 and greedily.
fn drawn(path: &Path, format: WeightFormat, ranks: &TensorParallel) -> Vec<(u32, f32)> {
    let model = Arc::new(InferenceModel::load_shard(path, format, ranks).unwrap());
    let mut engine = Engine::new(model, EngineOptions::default()).unwrap();
    for (seed, temperature) in [(1, 0.0), (2, 0.0), (3, 1.0)] {
        let prompt: Vec<u32> = (0..70 * seed).map(|i| (i * i * 31 + seed * 17 + i) % 60).collect();
        let request = GenerationRequest {
            prompt: prompt.into(),
            samples: 2,
            stream: u64::from(seed),
            first_sample: 0,
        };
        let sampling =
            SamplingParams { temperature, max_new_tokens: 12, ..SamplingParams::default() };
        engine.add(&request, &Arc::new(sampling)).unwrap();
    }
    let mut drawn = Vec::new();
    while engine.has_work() {
        for output in engine.step().unwrap() {
            if let EngineOutput::Token { token, .. } = output {
                drawn.push((token.id, token.logp));
            }
        }
    }
    assert_eq!(drawn.len(), 3 * 2 * 12);
    drawn
}

fn assert_same_on(ranks: usize, path: &Path, format: WeightFormat) {
    let alone = drawn(path, format, &TensorParallel::single_rank());
    let all = on_ranks(ranks, |ranks| drawn(path, format, ranks));
    for (rank, found) in all.iter().enumerate() {
        // Bit-identical, or the ranks would diverge.
        assert_eq!(*found, all[0], "rank {rank}");
        for ((id, logp), (found_id, found_logp)) in alone.iter().zip(found) {
            assert_eq!(id, found_id, "{ranks} ranks");
            assert!(
                (logp - found_logp).abs() < 1e-4,
                "{ranks} ranks: {found_logp}, expected {logp}"
            );
        }
    }
}

#[test]
fn tensor_parallel_ranks_sample_the_tokens_of_one_rank() {
    for (family, tied) in [("qwen2", true), ("qwen2", false), ("qwen3", true), ("llama", false)] {
        let dir = folder(&config_of(family, tied));
        for ranks in [2, 4] {
            assert_same_on(ranks, dir.path(), WeightFormat::F32);
        }
    }
}

#[test]
fn quantized_shards_match_the_whole_model() {
    // 160 hidden units are five blocks: one rank has three of them.
    let dir = folder(&config(true));
    for format in [BlockFormat::Q8_0, BlockFormat::Q4K] {
        assert_same_on(2, dir.path(), WeightFormat::Blocks(format));
    }
}

#[test]
fn a_slice_has_the_format_of_the_whole_matrix() {
    // 17 blocks of 32: one rank has 256 inputs, which alone would be a block of Q4_K.
    let mut config = config(true);
    config.intermediate_size = 544;
    assert_same_on(2, folder(&config).path(), WeightFormat::Blocks(BlockFormat::Q4K));
}

#[test]
fn an_all_reduce_keeps_the_dtype_and_rounds_once() {
    // Summed in bf16, each small value would be lost.
    let values = [1.0, 1.0 / 256.0, 1.0 / 256.0];
    let results = on_ranks(3, |ranks| {
        let part = memory::tensor(vec![values[ranks.rank()]; 2], (1, 2)).unwrap();
        let sum = ranks.all_reduce(part.to_dtype(DType::BF16).unwrap()).unwrap();
        assert_eq!(sum.dtype(), DType::BF16);
        sum.to_dtype(DType::F32).unwrap().to_vec2::<f32>().unwrap()
    });
    assert_eq!(results, vec![[[1.0 + 1.0 / 128.0; 2]]; 3]);
}

#[test]
fn an_all_gather_concatenates_columns_in_rank_order() {
    let columns = [0..3, 3..5];
    for rows in [0, 1, 2] {
        let results = on_ranks(2, |ranks| {
            let own = columns[ranks.rank()].clone();
            let row = |row: usize| own.clone().map(move |column| (10 * row + column) as f32);
            let part = memory::tensor((0..rows).flat_map(row).collect(), (rows, own.len()));
            let joined = ranks.all_gather_columns(part.unwrap(), &columns).unwrap();
            assert_eq!(joined.dims(), [rows, 5]);
            joined.to_vec2::<f32>().unwrap()
        });
        let all = [[0.0, 1.0, 2.0, 3.0, 4.0], [10.0, 11.0, 12.0, 13.0, 14.0]];
        assert_eq!(results, vec![all[..rows].to_vec(); 2]);
    }
}

fn fixture(name: &str) -> PathBuf {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/gguf");
    fixtures.join(name).with_extension("gguf")
}

#[test]
fn gguf_files_are_sharded_like_folders() {
    // Its blocks have 32 weights.
    for ranks in [2, 4] {
        assert_same_on(ranks, &fixture("qwen2vl"), WeightFormat::F32);
    }
}

#[test]
fn a_slice_of_a_gguf_tensor_equals_the_slice_of_the_whole() {
    let model = GgufModel::open(&fixture("llama")).unwrap();
    let of = |name: &str, slice: &TensorSlice| {
        let tensor = model.tensor_slice(name, slice).unwrap();
        let bytes = match &tensor {
            GgufTensor::Matrix(matrix) => matrix.byte_len(),
            GgufTensor::Vector(_) => 0,
        };
        (tensor.dequantize().unwrap(), bytes)
    };
    let dim = model.config().head_dim;
    let name = "model.layers.0.self_attn.q_proj.weight";
    let (whole, bytes) = of(name, &TensorSlice::Whole);
    let rows = whole.dims()[0];
    // The second head, whose rows are reordered.
    let (part, part_bytes) = of(name, &TensorSlice::Rows(dim..2 * dim));
    let values = |tensor: &Tensor| tensor.to_vec2::<f32>().unwrap();
    assert_eq!(values(&part), values(&whole)[dim..2 * dim]);
    assert_eq!(part_bytes * rows, bytes * dim);
}

#[test]
fn column_slices_of_a_gguf_tensor_align_with_its_blocks() {
    let model = GgufModel::open(&fixture("qwen2vl")).unwrap();
    let name = "model.layers.0.self_attn.o_proj.weight";
    let of = |columns: Range<usize>| {
        let tensor = model.tensor_slice(name, &TensorSlice::Columns(columns))?;
        Ok::<_, Error>(tensor.dequantize()?.to_vec2::<f32>().unwrap())
    };
    let whole = of(0..256).unwrap();
    let want: Vec<Vec<f32>> = whole.iter().map(|row| row[64..224].to_vec()).collect();
    assert_eq!(of(64..224).unwrap(), want);
    for (columns, cut) in [(16..64, 16), (32..72, 72)] {
        let error = of(columns).unwrap_err();
        assert!(matches!(error, Error::ShardBlock { column, block: 32, .. } if column == cut));
    }
    // Half a row of this file is half a block.
    let error = on_ranks(2, |ranks| {
        InferenceModel::load_shard(&fixture("qwen2"), WeightFormat::F32, ranks).err().unwrap()
    });
    assert!(error[0].to_string().contains("`intermediate_size` of 256 over 2"), "{}", error[0]);
}

#[test]
fn a_rank_only_reads_its_shard_of_the_files() {
    let config = config(false);
    let dir = folder(&config);
    let (hidden, norms) = (config.hidden_size, 5 * config.hidden_size);
    let all: usize = tensor_shapes(&config).values().map(|s| s.iter().product::<usize>()).sum();
    let mut together = 0;
    for rank in 0..2 {
        let shard = Shard::new(&config, (rank, 2), 1).unwrap();
        let files = open(dir.path()).unwrap();
        for (name, stored) in find(dir.path(), &files, &config).unwrap() {
            stored.read_slice(&name, &shard.of(&name)).unwrap();
        }
        let taken: usize =
            files.iter().map(|file| file.taken.load(std::sync::atomic::Ordering::Relaxed)).sum();
        // 97 tokens split into 48 and 49, twice; the rest splits in half, and norms are replicated.
        assert_eq!(taken / 4 - norms, (all - norms) / 2 - hidden + rank * 2 * hidden);
        together += taken / 4;
    }
    assert_eq!(together, all + norms);
}

#[test]
fn a_shard_does_not_depend_on_other_shards_weights() {
    let config = config(true);
    let shard = Shard::new(&config, (1, 2), 1).unwrap();
    let policy = Policy::random(&config, 7).unwrap();
    let poisoned = tempfile::tempdir().unwrap();
    let (config, mut tensors) = policy.into_weights();
    let read = |dir: &Path| {
        let found = find(dir, &open(dir).unwrap(), &config).unwrap();
        let part = |(name, stored): (&String, &crate::weights::LazyTensor)| {
            let tensor = stored.read_slice(name, &shard.of(name)).unwrap();
            tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        found.iter().map(part).collect::<Vec<_>>()
    };
    let own = folder(&config);
    for (name, tensor) in &mut tensors {
        let width = tensor.dims().last().copied().unwrap();
        let keeps = |index: usize| match shard.of(name) {
            TensorSlice::Whole => true,
            TensorSlice::Rows(rows) if tensor.rank() == 2 => rows.contains(&(index / width)),
            TensorSlice::Rows(rows) => rows.contains(&index),
            TensorSlice::Columns(columns) => columns.contains(&(index % width)),
        };
        let values = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let values = values.into_iter().enumerate();
        let poison = values.map(|(index, x)| if keeps(index) { x } else { f32::NAN }).collect();
        *tensor = memory::tensor(poison, tensor.shape()).unwrap();
    }
    let path = poisoned.path().join(crate::weights::SINGLE_FILE);
    crate::weights::save_file(&path, tensors.iter().map(|(n, t)| (n.as_str(), t)), config.dtype)
        .unwrap();
    assert_eq!(read(poisoned.path()), read(own.path()));
}

#[test]
fn sizes_that_do_not_divide_are_reported() {
    let rejected = |change: &dyn Fn(&mut ModelConfig), ranks, block| {
        let mut config = config(true);
        change(&mut config);
        Shard::new(&config, (0, ranks), block).unwrap_err().to_string()
    };
    let message = rejected(&|_| (), 3, 1);
    assert!(message.contains("`num_attention_heads` of 4 over 3 ranks"), "{message}");
    let message =
        rejected(&|config| (config.num_attention_heads, config.num_key_value_heads) = (6, 2), 3, 1);
    assert!(message.contains("`num_key_value_heads` of 2 over 3 ranks"), "{message}");
    let message = rejected(&|_| (), 4, 64);
    assert!(
        message
            .contains("`intermediate_size` of 160 over 4 ranks: it must be at least 64 per rank"),
        "{message}"
    );
    // A head is half a block.
    let dir = folder(&config(true));
    let errors = on_ranks(4, |ranks| {
        let format = WeightFormat::Blocks(BlockFormat::Q8_0);
        InferenceModel::load_shard(dir.path(), format, ranks).err().unwrap().to_string()
    });
    assert!(
        errors[1].contains("o_proj.weight` at column 16: Q8_0 has blocks of 32"),
        "{}",
        errors[1]
    );
}

#[test]
fn the_estimated_memory_matches_a_loaded_shard() {
    let config = config(true);
    let whole = ShardBytes::new(&config, WeightFormat::F32, 1).unwrap();
    assert_eq!(whole.weights, 4 * config.parameter_count());
    let dir = folder(&config);
    for ranks in [2, 4] {
        let part = ShardBytes::new(&config, WeightFormat::F32, ranks).unwrap();
        let models = on_ranks(ranks, |ranks| {
            let model = InferenceModel::load_shard(dir.path(), WeightFormat::F32, ranks).unwrap();
            model.kv_bytes_per_token()
        });
        // Keys and values are f32 here; four ranks replicate two heads.
        assert_eq!(models[0], part.kv_elements_per_token * 4);
        assert_eq!(part.kv_elements_per_token, whole.kv_elements_per_token / 2);
    }
    let of = |ranks| ShardBytes::new(&config, WeightFormat::F32, ranks).unwrap().weights;
    // Norms are replicated, and the first rank has one token less than the last.
    let norms = 4 * 5 * config.hidden_size;
    assert_eq!(2 * (of(2) - norms), whole.weights - norms + 4 * config.hidden_size);
    let q8_0 = ShardBytes::new(&config, WeightFormat::Blocks(BlockFormat::Q8_0), 1).unwrap();
    // Norms and biases are f32 with f32 matrices, and bf16 with quantized ones.
    let vectors = 5 * config.hidden_size + 2 * (64 + 32 + 32);
    assert_eq!((q8_0.weights - 2 * vectors) * 128, (whole.weights - 4 * vectors) * 34);
}
