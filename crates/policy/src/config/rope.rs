//! Rotary position embeddings (RoPE): parameters and inverse frequencies.
//!
//! The formulas are those of `modeling_rope_utils.py` in `transformers` 5.23; each kind names its function.
//! They are evaluated step by step in `f32`: models are trained with frequencies rounded in this way,
//! and exact ones change log-probabilities by 1e-4 at position 4,000.

use std::f64::consts::PI;

use embodied_r_kernels::rope::{CosSinCache, Frequencies, MropeSections};
use serde_json::{Value, json};

use super::ConfigFault;

/// A rotary position embedding.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// Base of the frequencies (`rope_theta`).
    pub theta: f64,
    /// Scaling of the frequencies for contexts longer than in pre-training.
    pub kind: RopeKind,
    /// M-RoPE: which rotary pairs of a head use the temporal, height and width position. For text all
    /// three are equal, so M-RoPE equals RoPE.
    pub mrope_section: Option<MropeSections>,
}

/// RoPE scaling methods, by `rope_type` of `transformers`.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum RopeKind {
    /// `default`: no scaling.
    Default,
    /// `linear`: positions are divided by a factor (`_compute_linear_scaling_rope_parameters`).
    Linear {
        /// The factor, at least 1.
        factor: f64,
    },
    /// `llama3`: low frequencies are divided, high ones kept (`_compute_llama3_parameters`).
    Llama3(Llama3),
    /// `yarn`: the same with a linear ramp in between, and scaled attention (`_compute_yarn_parameters`;
    /// Peng et al., 2023).
    Yarn(Yarn),
}

/// Parameters of `llama3`.
#[derive(Debug, Clone, PartialEq)]
pub struct Llama3 {
    /// Divides low frequencies, at least 1.
    pub factor: f64,
    /// Pairs with fewer rotations than this within the original context are low-frequency.
    pub low_freq_factor: f64,
    /// Pairs with more rotations than this within the original context are high-frequency.
    pub high_freq_factor: f64,
    /// Context length of pre-training, in tokens.
    pub original_max_position_embeddings: usize,
}

/// Parameters of `yarn`.
#[derive(Debug, Clone, PartialEq)]
pub struct Yarn {
    /// Divides low frequencies, at least 1.
    pub factor: f64,
    /// Scales cosines and sines; `None` uses the paper's recommendation for `factor`.
    pub attention_factor: Option<f64>,
    /// Pairs with more rotations than this within the original context keep their frequency.
    pub beta_fast: f64,
    /// Pairs with fewer rotations than this are divided by the factor.
    pub beta_slow: f64,
    /// Weight of the recommended attention factor, if `mscale_all_dim` is set too.
    pub mscale: Option<f64>,
    /// Divides the recommended attention factor by the one of this weight, if `mscale` is set too.
    pub mscale_all_dim: Option<f64>,
    /// Context length of pre-training, in tokens.
    pub original_max_position_embeddings: usize,
    /// Whether the ramp's bounds are rounded to whole pairs.
    pub truncate: bool,
}

impl Rope {
    /// Cosines and sines of tokens at these positions (time, height, width), which are equal for text.
    ///
    /// # Errors
    /// The sections do not sum to the number of pairs.
    pub(crate) fn cos_sin(
        &self,
        positions: &[[usize; 3]],
        frequencies: &Frequencies,
    ) -> embodied_r_kernels::Result<CosSinCache> {
        match self.mrope_section {
            Some(sections) => CosSinCache::multimodal(positions, sections, frequencies),
            None => {
                let positions: Vec<usize> = positions.iter().map(|position| position[0]).collect();
                Ok(CosSinCache::new(&positions, frequencies))
            }
        }
    }
}

impl Yarn {
    /// Default of `beta_fast`.
    pub const BETA_FAST: f64 = 32.0;
    /// Default of `beta_slow`.
    pub const BETA_SLOW: f64 = 1.0;

    fn attention_factor(&self) -> f64 {
        let recommended = |weight: f64| match self.factor > 1.0 {
            true => 0.1 * weight * self.factor.ln() + 1.0,
            false => 1.0,
        };
        self.attention_factor.unwrap_or_else(|| match (self.mscale, self.mscale_all_dim) {
            (Some(scale), Some(all)) => recommended(scale) / recommended(all),
            _ => recommended(1.0),
        })
    }

    /// The pairs between which the ramp goes from unchanged to divided frequencies.
    fn ramp(&self, theta: f64, head_dim: usize) -> (f64, f64) {
        let (dim, length) = (head_dim as f64, self.original_max_position_embeddings as f64);
        let pair_of =
            |rotations: f64| dim * (length / (rotations * 2.0 * PI)).ln() / (2.0 * theta.ln());
        let (mut low, mut high) = (pair_of(self.beta_fast), pair_of(self.beta_slow));
        if self.truncate {
            (low, high) = (low.floor(), high.ceil());
        }
        (low.max(0.0), high.min(dim - 1.0))
    }

    fn scaled(&self, wavelengths: &[f32], theta: f64, head_dim: usize) -> Vec<f32> {
        let (low, high) = self.ramp(theta, head_dim);
        // An empty ramp would divide by zero.
        let width = if low == high { 0.001 } else { high - low };
        let scaled = |(pair, wavelength): (usize, &f32)| {
            let (kept, divided) = (wavelength.recip(), (self.factor as f32 * wavelength).recip());
            let ramp = ((pair as f32 - low as f32) / width as f32).clamp(0.0, 1.0);
            let keep = 1.0 - ramp;
            divided * (1.0 - keep) + kept * keep
        };
        wavelengths.iter().enumerate().map(scaled).collect()
    }
}

impl Llama3 {
    fn scaled(&self, inverse: f32) -> f32 {
        let length = self.original_max_position_embeddings as f64;
        let (low, high) = (self.low_freq_factor, self.high_freq_factor);
        let factor = self.factor as f32;
        let wavelength = inverse.recip() * (2.0 * PI) as f32;
        if wavelength > (length / low) as f32 {
            return inverse / factor;
        }
        if wavelength < (length / high) as f32 {
            return inverse;
        }
        let smooth = (wavelength.recip() * length as f32 - low as f32) / (high - low) as f32;
        (1.0 - smooth) * inverse / factor + smooth * inverse
    }
}

impl Rope {
    /// RoPE without scaling, with base `theta`.
    pub fn plain(theta: f64) -> Self {
        Self { theta, kind: RopeKind::Default, mrope_section: None }
    }

    /// The inverse frequencies for `head_dim`, and the scale of cosines and sines.
    pub fn frequencies(&self, head_dim: usize) -> Frequencies {
        let theta = f64::from(self.theta as f32);
        let wavelengths: Vec<f32> = (0..head_dim / 2)
            .map(|pair| theta.powf(f64::from((2 * pair) as f32 / head_dim as f32)) as f32)
            .collect();
        let each =
            |of: &dyn Fn(f32) -> f32| wavelengths.iter().map(|length| of(length.recip())).collect();
        let inv_freq = match &self.kind {
            RopeKind::Default => each(&|inverse| inverse),
            RopeKind::Linear { factor } => each(&|inverse| inverse / *factor as f32),
            RopeKind::Llama3(llama3) => each(&|inverse| llama3.scaled(inverse)),
            RopeKind::Yarn(yarn) => yarn.scaled(&wavelengths, self.theta, head_dim),
        };
        let attention_factor = match &self.kind {
            RopeKind::Yarn(yarn) => yarn.attention_factor() as f32,
            _ => 1.0,
        };
        Frequencies { inv_freq, attention_factor }
    }

    /// All invalid parameters, for a head of size `head_dim`; `dictionary` is the name of their object in
    /// `config.json`.
    pub(super) fn faults(&self, head_dim: usize, dictionary: &str) -> Vec<ConfigFault> {
        let mut faults = Vec::new();
        let mut check = |holds: bool, field: &str, found: &dyn ToString, want| {
            if !holds {
                faults.push(ConfigFault::wrong(field, found.to_string(), want));
            }
        };
        let name = |field: &str| format!("{dictionary}.{field}");
        // In f32, in which it is evaluated: the smallest numbers have no finite reciprocal.
        let positive = |number: f64| {
            let number = number as f32;
            number.is_finite() && number > 0.0 && number.recip().is_finite()
        };
        match self.kind {
            // The ramp's bounds are logarithms to this base.
            RopeKind::Yarn(_) => {
                let holds = positive(self.theta) && self.theta > 1.0;
                check(holds, "rope_theta", &self.theta, "a number greater than 1");
            }
            _ => check(positive(self.theta), "rope_theta", &self.theta, "a positive number"),
        }
        let factor = match &self.kind {
            RopeKind::Default => None,
            RopeKind::Linear { factor } => Some(*factor),
            RopeKind::Llama3(llama3) => {
                let (low, high) = (llama3.low_freq_factor, llama3.high_freq_factor);
                check(positive(low), &name("low_freq_factor"), &low, "a positive number");
                check(
                    positive(high - low),
                    &name("high_freq_factor"),
                    &high,
                    "a number greater than `low_freq_factor`",
                );
                Some(llama3.factor)
            }
            RopeKind::Yarn(yarn) => {
                let (slow, fast) = (yarn.beta_slow, yarn.beta_fast);
                check(positive(slow), &name("beta_slow"), &slow, "a positive number");
                check(
                    positive(fast) && fast >= slow,
                    &name("beta_fast"),
                    &fast,
                    "a number not less than `beta_slow`",
                );
                for (field, number) in [
                    ("attention_factor", yarn.attention_factor()),
                    ("mscale", yarn.mscale.unwrap_or(1.0)),
                    ("mscale_all_dim", yarn.mscale_all_dim.unwrap_or(1.0)),
                ] {
                    check(positive(number), &name(field), &number, "a positive number");
                }
                Some(yarn.factor)
            }
        };
        let factor = factor.unwrap_or(1.0);
        let large = positive(factor) && factor >= 1.0;
        check(large, &name("factor"), &factor, "a number of at least 1");
        let length = self.original_max_position_embeddings().unwrap_or(1);
        let field = name("original_max_position_embeddings");
        check(length > 0, &field, &length, "a positive integer");
        // An invalid `head_dim` is reported separately.
        if let Some(MropeSections { sizes, .. }) = self.mrope_section.filter(|_| head_dim > 0) {
            check(
                sizes.iter().sum::<usize>() == head_dim / 2,
                &name("mrope_section"),
                &json!(sizes),
                "three sizes that sum to half of `head_dim`",
            );
        }
        faults
    }

    fn original_max_position_embeddings(&self) -> Option<usize> {
        match &self.kind {
            RopeKind::Llama3(llama3) => Some(llama3.original_max_position_embeddings),
            RopeKind::Yarn(yarn) => Some(yarn.original_max_position_embeddings),
            RopeKind::Default | RopeKind::Linear { .. } => None,
        }
    }

    /// The value of `rope_scaling`, readable by `transformers` 4 and 5; `rope_theta` is written separately.
    pub(super) fn scaling_json(&self) -> Value {
        let mut value = match &self.kind {
            RopeKind::Default if self.mrope_section.is_none() => return Value::Null,
            // `mrope` is not a type of text decoders; the sections are kept for a vision-language model.
            RopeKind::Default => json!({ "rope_type": "default" }),
            RopeKind::Linear { factor } => json!({ "rope_type": "linear", "factor": factor }),
            RopeKind::Llama3(llama3) => json!({
                "rope_type": "llama3",
                "factor": llama3.factor,
                "low_freq_factor": llama3.low_freq_factor,
                "high_freq_factor": llama3.high_freq_factor,
                "original_max_position_embeddings": llama3.original_max_position_embeddings,
            }),
            RopeKind::Yarn(yarn) => {
                let mut value = json!({
                    "rope_type": "yarn",
                    "factor": yarn.factor,
                    "beta_fast": yarn.beta_fast,
                    "beta_slow": yarn.beta_slow,
                    "original_max_position_embeddings": yarn.original_max_position_embeddings,
                    "truncate": yarn.truncate,
                });
                for (field, number) in [
                    ("attention_factor", yarn.attention_factor),
                    ("mscale", yarn.mscale),
                    ("mscale_all_dim", yarn.mscale_all_dim),
                ] {
                    if let Some(number) = number {
                        value[field] = json!(number);
                    }
                }
                value
            }
        };
        if let Some(MropeSections { sizes, interleaved }) = self.mrope_section {
            value["mrope_section"] = json!(sizes);
            if interleaved {
                value["mrope_interleaved"] = json!(true);
            }
        }
        value
    }
}
