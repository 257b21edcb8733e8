//! Outputs for any number of threads.

use std::io::Write as _;

use candle_core::Device;
use embodied_r_kernels::device::has_kernels;
use rayon::ThreadPoolBuilder;

use super::*;

/// A model large enough that prefill, decoding and sampling are split over several parallel tasks.
fn config() -> ModelConfig {
    let json = serde_json::json!({
        "model_type": "qwen2", "vocab_size": 9000, "hidden_size": 96, "intermediate_size": 320,
        "num_hidden_layers": 2, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 16,
        "max_position_embeddings": 600, "rms_norm_eps": 1e-6, "tie_word_embeddings": true,
        "initializer_range": 0.1,
    });
    ModelConfig::from_json(&json).unwrap()
}

/// Token ids and the bits of the log-probabilities for each sample.
fn bits(drawn: &Drawn) -> Vec<(&[u32], Vec<u32>)> {
    let samples = drawn.iter().flatten();
    let bits = |logps: &[f32]| logps.iter().map(|logp| logp.to_bits()).collect();
    samples.map(|(ids, logps, _)| (ids.as_slice(), bits(logps))).collect()
}

#[test]
fn outputs_are_bit_identical_for_any_number_of_threads() {
    // Completions of more than two pages, most of them at the same time.
    const NEW_TOKENS: usize = 150;
    // Emulated CUDA kernels do not run the parallel loops that this is about.
    if has_kernels(&Device::Cpu) {
        let test = "outputs_are_bit_identical_for_any_number_of_threads";
        // Unlike `eprintln!`, this is not captured by the test harness.
        writeln!(std::io::stderr(), "skipped: `{test}` needs the CPU's own kernels").unwrap();
        return;
    }
    let requests = requests();
    let sampling = Arc::new(SamplingParams {
        max_new_tokens: NEW_TOKENS,
        temperature: 0.9,
        top_p: 0.95,
        ..SamplingParams::default()
    });
    for precision in [Precision::F32, Precision::Bf16] {
        // The model is loaded, packed and run in the pool.
        let on = |threads: usize| {
            let pool = ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                assert_eq!(rayon::current_num_threads(), threads);
                let policy = Policy::random(&config(), 7).unwrap();
                let model = Arc::new(policy.inference_model(precision).unwrap());
                run_with(&model, &requests, options(64, 2048, None), &sampling).0
            })
        };
        let alone = on(1);
        let whole =
            |(ids, logps): (&[u32], Vec<u32>)| ids.len() == NEW_TOKENS && logps.len() == NEW_TOKENS;
        assert!(bits(&alone).into_iter().all(whole));
        // Samples of a request have their own random numbers.
        assert!(alone.iter().all(|samples| samples[0].0 != samples[1].0));
        for threads in [2, 3, 5] {
            let found = on(threads);
            assert!(bits(&found) == bits(&alone), "{precision:?}, {threads} threads");
        }
    }
}
