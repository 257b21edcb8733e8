use candle_core::Device;

use super::*;

/// Relative error of a softmax probability, by its worst-case bound: the roundings of a logit below 20 in a sum over
/// [`HIDDEN_SIZE`] products (3e-5), of the sum of up to 5003 exponentials in 16 lanes (4e-5), and of two exponentials.
const TOLERANCE: f64 = 1e-4;

const TOKENS: usize = 23;
const HIDDEN_SIZE: usize = 8;

/// Its inverse is exact in f32.
const TEMPERATURE: f64 = 0.8;

/// The vocabulary of Qwen3.
const QWEN3_VOCABULARY: usize = 151_936;

/// Largest relative error of a result that bf16 GEMMs accumulate in f32, compared with f64 and the same rounded operands:
/// an eighth of bf16's unit roundoff.
///
/// f32 roundings add about 1e-5. A gradient of a logit that is within the f32 error of a tie of bf16, one in a thousand,
/// may be rounded the other way, by 2^-8: a root mean square of 1e-4. One rounding of a partial sum to bf16 is an error of
/// up to 2^-9, 1e-3 as a root mean square.
const F32_ACCUMULATION: f64 = 1.0 / 4096.0;

/// An LM head with inputs and gradients that differ from token to token.
pub(crate) struct Case {
    pub(crate) hidden: Tensor,
    pub(crate) weight: Tensor,
    pub(crate) targets: Vec<u32>,
    pub(crate) d_logps: Vec<f32>,
    /// The weight gradient before the backward.
    d_weight: Vec<f32>,
    precision: Precision,
}

/// What the head computes.
pub(crate) struct Outputs {
    pub(crate) scores: LmHeadOutput,
    pub(crate) d_hidden: Tensor,
    pub(crate) d_weight: Tensor,
}

/// Unchunked results in f64; those of the gradients with the sums of their terms' magnitudes.
struct Reference {
    logps: Vec<f64>,
    entropies: Vec<f64>,
    log_sum_exp: Vec<f64>,
    d_hidden: Vec<(f64, f64)>,
    d_weight: Vec<(f64, f64)>,
}

fn noise(n: usize, seed: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 7919 + seed * 104_729) % 1013) as f32 / 506.5 - 1.0).collect()
}

impl Case {
    pub(crate) fn new(vocabulary: usize, precision: Precision) -> Self {
        let matrix = |rows: usize, seed| {
            let values = noise(rows * HIDDEN_SIZE, seed);
            Tensor::from_vec(values, (rows, HIDDEN_SIZE), &Device::Cpu).unwrap()
        };
        Self {
            hidden: matrix(TOKENS, 1),
            weight: matrix(vocabulary, 2),
            targets: (0..TOKENS).map(|i| (i * 31 % vocabulary) as u32).collect(),
            d_logps: noise(TOKENS, 3),
            d_weight: noise(vocabulary * HIDDEN_SIZE, 4),
            precision,
        }
    }

    /// A head in bf16 of the largest vocabulary, and a limit of logits for chunks of nine tokens: more than a tile's rows,
    /// whose products are summed block by block, and a last chunk of fewer.
    pub(crate) fn qwen3() -> (Self, usize) {
        let case = Self::new(QWEN3_VOCABULARY, Precision::Bf16);
        // From zero, as large gradients from before would hide small terms in f32 too.
        let d_weight = vec![0.0; case.d_weight.len()];
        (Self { d_weight, ..case }, 9 * QWEN3_VOCABULARY)
    }

    pub(crate) fn head(&self) -> LmHead<'_> {
        LmHead { weight: &self.weight, temperature: TEMPERATURE, precision: self.precision }
    }

    /// The weight gradient that the backward adds to.
    pub(crate) fn d_weight(&self) -> Tensor {
        Tensor::from_slice(&self.d_weight, self.weight.dims(), &Device::Cpu).unwrap()
    }

    /// A GEMM operand's element, rounded as the precision says.
    fn rounded(&self, x: f64) -> f64 {
        match self.precision {
            Precision::F32 => x,
            Precision::Bf16 => half::bf16::from_f64(x).to_f64(),
        }
    }

    /// A GEMM operand, rounded as the precision says.
    fn operand(&self, x: &Tensor) -> Vec<f64> {
        let values: Vec<f32> = x.flatten_all().unwrap().to_vec1().unwrap();
        values.into_iter().map(|x| self.rounded(f64::from(x))).collect()
    }

    fn reference(&self) -> Reference {
        let (hidden, weight) = (self.operand(&self.hidden), self.operand(&self.weight));
        let d_weight = self.d_weight.iter().map(|x| (f64::from(*x), f64::from(x.abs())));
        let mut out = Reference {
            logps: Vec::new(),
            entropies: Vec::new(),
            log_sum_exp: Vec::new(),
            d_hidden: vec![(0.0, 0.0); hidden.len()],
            d_weight: d_weight.collect(),
        };
        for (token, hidden) in hidden.chunks(HIDDEN_SIZE).enumerate() {
            let logits: Vec<f64> = weight
                .chunks(HIDDEN_SIZE)
                .map(|w| w.iter().zip(hidden).map(|(w, h)| w * h).sum::<f64>() / TEMPERATURE)
                .collect();
            let (target, d_logp) = (self.targets[token] as usize, self.d_logps[token]);
            let log_sum_exp = logits.iter().map(|x| x.exp()).sum::<f64>().ln();
            let logps: Vec<f64> = logits.iter().map(|x| x - log_sum_exp).collect();
            out.logps.push(logps[target]);
            out.entropies.push(-logps.iter().map(|x| x.exp() * x).sum::<f64>());
            out.log_sum_exp.push(log_sum_exp);
            for (id, logp) in logps.iter().enumerate() {
                let (one_hot, d) = (f64::from(u8::from(id == target)), f64::from(d_logp));
                let d_logit = self.rounded(d * (one_hot - logp.exp()) / TEMPERATURE);
                let size = d.abs() * (one_hot + logp.exp()) / TEMPERATURE;
                for i in 0..HIDDEN_SIZE {
                    let (w, h) = (weight[id * HIDDEN_SIZE + i], hidden[i]);
                    let d_hidden = &mut out.d_hidden[token * HIDDEN_SIZE + i];
                    *d_hidden = (d_hidden.0 + d_logit * w, d_hidden.1 + size * w.abs());
                    let d_weight = &mut out.d_weight[id * HIDDEN_SIZE + i];
                    *d_weight = (d_weight.0 + d_logit * h, d_weight.1 + size * h.abs());
                }
            }
        }
        out
    }

    /// Compares with the unchunked reference.
    #[track_caller]
    pub(crate) fn assert_close(&self, found: &Outputs) {
        let expected = self.reference();
        let of_scores = [
            ("logps", &found.scores.logps, &expected.logps),
            ("entropies", &found.scores.entropies, &expected.entropies),
            ("log_sum_exp", &found.scores.log_sum_exp, &expected.log_sum_exp),
        ];
        for (name, found, expected) in of_scores {
            assert_eq!(found.len(), TOKENS);
            for (token, (found, expected)) in found.iter().zip(expected).enumerate() {
                // An absolute error in the exponent is a relative one of the probability; the entropy weights such
                // errors by |log p|, which is below 20 where p matters.
                let bound = TOLERANCE * if name == "entropies" { 20.0 } else { 1.0 };
                let error = (f64::from(*found) - expected).abs();
                assert!(error <= bound, "{name}, token {token}: {found} is not {expected}");
            }
        }
        // In bf16 the gradients of the logits are rounded to 8 significant bits, near a tie in either direction.
        let relative = TOLERANCE
            + match self.precision {
                Precision::F32 => 0.0,
                Precision::Bf16 => 2f64.powi(-8),
            };
        let gradients = [
            ("d_hidden", &found.d_hidden, &expected.d_hidden),
            ("d_weight", &found.d_weight, &expected.d_weight),
        ];
        for (name, found, expected) in gradients {
            let found: Vec<f32> = found.flatten_all().unwrap().to_vec1().unwrap();
            assert_eq!(found.len(), expected.len());
            for (i, (found, (expected, size))) in found.iter().zip(expected).enumerate() {
                let error = (f64::from(*found) - expected).abs();
                assert!(error <= relative * size, "{name}, {i}: {found} is not {expected}");
            }
        }
    }
}

impl Case {
    /// Compares with f64 results of the same rounded operands: each log-sum-exp, the gradient of each token's hidden state,
    /// and as a root mean square that of each token's row of the weight.
    #[track_caller]
    pub(crate) fn assert_accumulated_in_f32(&self, found: &Outputs) {
        let expected = self.reference();
        let sums = found.scores.log_sum_exp.iter().zip(&expected.log_sum_exp);
        // An absolute error of the logarithm is a relative one of the sum.
        let sums = sums.map(|(found, expected)| (f64::from(*found) - expected).abs());
        let largest = |errors: &mut dyn Iterator<Item = f64>| errors.fold(0.0, f64::max);
        let of_hidden = row_errors(&found.d_hidden, &expected.d_hidden);
        let of_weight = row_errors(&found.d_weight, &expected.d_weight);
        let mean =
            of_weight.iter().map(|error| error * error).sum::<f64>() / of_weight.len() as f64;
        for (name, error) in [
            ("log_sum_exp", largest(&mut { sums })),
            ("d_hidden", largest(&mut of_hidden.into_iter())),
            ("d_weight", mean.sqrt()),
        ] {
            assert!(error < F32_ACCUMULATION, "{name}: {error:e}");
        }
    }
}

/// The relative error in norm of each row.
fn row_errors(found: &Tensor, expected: &[(f64, f64)]) -> Vec<f64> {
    let found: Vec<f32> = found.flatten_all().unwrap().to_vec1().unwrap();
    assert_eq!(found.len(), expected.len());
    let rows = found.chunks(HIDDEN_SIZE).zip(expected.chunks(HIDDEN_SIZE));
    rows.map(|(found, expected)| {
        let pairs = found.iter().zip(expected);
        let (error, size) = pairs.fold((0.0, 0.0), |(error, size), (found, (expected, _))| {
            (error + (f64::from(*found) - expected).powi(2), size + expected.powi(2))
        });
        (error / size).sqrt()
    })
    .collect()
}

/// Forward and backward on the CPU, with and without a weight gradient.
fn results(case: &Case, chunk: usize) -> Outputs {
    let head = case.head();
    let scores = forward_within(&case.hidden, &head, &case.targets, chunk).unwrap();
    let backward = |d_weight: Option<&Tensor>| {
        let task = (&case.hidden, &head, case.targets.as_slice());
        backward_within(task, &scores, &case.d_logps, d_weight, chunk).unwrap()
    };
    let d_weight = case.d_weight();
    let kept = || scores.logits.lock().unwrap().len();
    let (vocabulary, rows) = (case.weight.dims()[0], (chunk / case.weight.dims()[0]).max(1));
    assert_eq!(kept(), ((TOKENS - 1) % rows + 1) * vocabulary, "the last chunk's logits");
    let d_hidden = backward(Some(&d_weight));
    assert_eq!(kept(), 0, "the backward takes them, and the next one recomputes them");
    let values = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert_eq!(values(&d_hidden), values(&backward(None)), "a frozen weight");
    Outputs { scores, d_hidden, d_weight }
}

#[test]
fn chunks_of_any_size_give_the_unchunked_results() {
    // With the larger vocabulary a chunk of seven tokens is split over several parallel tasks.
    for vocabulary in [77, 5003] {
        assert!(vocabulary == 77 || parallel::task_rows(vocabulary) < 7);
        for precision in [Precision::F32, Precision::Bf16] {
            let case = Case::new(vocabulary, precision);
            let head = case.head();
            // One token at a time, and seven with a shorter last chunk.
            for (chunk, rows) in [(1, 1), (8 * vocabulary - 1, 7), (CHUNK_LEN, TOKENS)] {
                let task = Task::new(&case.hidden, &head, TOKENS, chunk).unwrap();
                let chunks: Vec<_> = task.chunks().collect();
                assert_eq!(chunks.len(), TOKENS.div_ceil(rows));
                assert_eq!(
                    chunks.last(),
                    Some(&((TOKENS - 1) / rows * rows, (TOKENS - 1) % rows + 1))
                );
                case.assert_close(&results(&case, chunk));
            }
        }
    }
}

#[test]
fn partial_results_of_chunks_in_bf16_are_accumulated_in_f32() {
    let (case, chunk) = Case::qwen3();
    case.assert_accumulated_in_f32(&results(&case, chunk));
}
