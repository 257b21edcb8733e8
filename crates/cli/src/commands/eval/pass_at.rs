//! `embodied-r eval --pass-at`.

use embodied_r_eval::Error;

use crate::args::eval::PassAtArgs;
use crate::exit::{self, Usage};

/// Sampling temperature by default.
const TEMPERATURE: f64 = 1.0;

/// How completions are sampled.
#[derive(Debug, PartialEq)]
pub(super) struct SamplingPlan {
    /// Number of samples per question.
    pub(super) samples: usize,
    pub(super) temperature: f64,
}

impl SamplingPlan {
    pub(super) fn new(args: &PassAtArgs, temperature: Option<f64>) -> Result<Self, Usage> {
        let largest = args.ks.iter().copied().max().unwrap_or(1);
        let samples = args.num_samples.unwrap_or(largest);
        if samples < largest {
            return Err(Usage(format!(
                "`--num-samples {samples}` is too few for `--pass-at {largest}`; give {largest} or more"
            )));
        }
        let temperature = temperature.unwrap_or(TEMPERATURE);
        if samples > 1 && temperature == 0.0 {
            return Err(Usage(format!(
                "pass@k of several samples (k > 1) needs `--temperature` above 0: at 0 (greedy) all {samples} samples \
                 of a question are equal"
            )));
        }
        Ok(Self { samples, temperature })
    }
}

/// Adds hints about files of samples.
pub(super) fn explain_samples(error: Error) -> anyhow::Error {
    match &error {
        Error::Records(embodied_r_rewards::Error::Field { .. }) => {
            let advice = "`--pass-at` scores the `samples.jsonl` that `eval --pass-at K --output DIR` writes";
            exit::hint(error.to_string(), advice)
        }
        _ => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(
        ks: &[usize],
        num_samples: Option<usize>,
        temperature: Option<f64>,
    ) -> Result<(usize, f64), String> {
        let args = PassAtArgs { ks: ks.to_vec(), num_samples };
        let plan = SamplingPlan::new(&args, temperature).map_err(|error| error.to_string())?;
        Ok((plan.samples, plan.temperature))
    }

    #[test]
    fn the_largest_k_and_temperature_1_are_the_defaults() {
        assert_eq!(plan(&[8, 1], None, None).unwrap(), (8, 1.0));
        assert_eq!(plan(&[1, 4], Some(16), Some(0.7)).unwrap(), (16, 0.7));
        assert_eq!(plan(&[1], None, Some(0.0)).unwrap(), (1, 0.0));
    }

    #[test]
    fn too_few_or_equal_samples_are_usage_errors() {
        let few = "`--num-samples 4` is too few for `--pass-at 8`; give 8 or more";
        assert_eq!(plan(&[1, 8], Some(4), None).unwrap_err(), few);
        assert!(plan(&[8], None, Some(0.0)).unwrap_err().contains("greedy"));
        assert!(plan(&[1], Some(2), Some(0.0)).unwrap_err().contains("greedy"));
    }
}
