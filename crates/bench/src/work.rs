//! The synthetic prompts of the model benchmarks.

use embodied_r_policy::{GenerationRequest, SamplingParams};
use embodied_r_random::stream;

/// What a run generates: completions of a fixed length of random prompts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Work {
    /// Prompt length in tokens.
    pub prompt: usize,
    /// Completion length in tokens; stop tokens are ignored.
    pub new: usize,
    /// Completions per prompt.
    pub group_size: usize,
    /// Prompts.
    pub groups: usize,
    /// Measured runs, after one warmup run.
    pub runs: usize,
}

impl Work {
    /// The random prompts of a run, for a vocabulary of `vocabulary` tokens.
    pub(crate) fn requests(&self, vocabulary: usize, run: usize) -> Vec<GenerationRequest> {
        let request = |group: usize| {
            let seed = |i: usize| stream(&[run as u64, group as u64, i as u64]);
            let prompt: Vec<u32> =
                (0..self.prompt).map(|i| (seed(i) % vocabulary as u64) as u32).collect();
            GenerationRequest {
                prompt: prompt.into(),
                samples: self.group_size,
                stream: seed(self.prompt),
                first_sample: 0,
            }
        };
        (0..self.groups).map(request).collect()
    }
}

/// Samples `new` tokens without stop tokens.
pub(crate) fn sampling(new: usize) -> SamplingParams {
    SamplingParams { max_new_tokens: new, ..SamplingParams::default() }
}
