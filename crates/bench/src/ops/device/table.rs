//! The operations timed on a GPU, at the sizes of Qwen2.5-3B in bf16.

use candle_core::{DType, Device, Tensor};
use embodied_r_kernels::attention::{self, GroupSpan, Heads, Pattern};
use embodied_r_kernels::lm_head::{self, LmHead};
use embodied_r_kernels::quantized::{BlockFormat, ByteRange, QuantizedMatrix};
use embodied_r_kernels::rope::{CosSinCache, Frequencies, Rotation, rotate};
use embodied_r_kernels::sample::{self, LogitEdits, RowSampling, SamplingMode, Truncation};
use embodied_r_kernels::weight::{Weight, WeightFormat};
use embodied_r_kernels::{
    MuonStep, Precision, Result, WeightPlacement, adamw, embedding, linear, memory, muon, rms_norm,
    swiglu,
};

use crate::ops::op::{Op, Prepared, matrix, uniform};
use crate::ops::training::ADAMW_STEP;

const HEADS: Heads = Heads { query: 16, kv: 2, dim: 128 };
const HIDDEN_SIZE: usize = 2_048;
const INTERMEDIATE_SIZE: usize = 11_008;
const VOCABULARY: usize = 151_936;
const EPS: f64 = 1e-6;

/// Rows in decoding, and in prefill and training.
const ROWS: [usize; 5] = [1, 8, 32, 128, 4_096];

/// Input and output features of the query, gate and down projections.
const LAYERS: [(usize, usize); 3] = [
    (HIDDEN_SIZE, HIDDEN_SIZE),
    (HIDDEN_SIZE, INTERMEDIATE_SIZE),
    (INTERMEDIATE_SIZE, HIDDEN_SIZE),
];

/// All operations.
pub(in crate::ops) fn ops(device: &Device) -> Vec<Op> {
    let on = On { device: device.clone() };
    let mut ops = Vec::new();
    for layer in LAYERS {
        ops.extend(ROWS.map(|rows| on.linear(rows, layer)));
    }
    for format in [BlockFormat::Q8_0, BlockFormat::Q4K] {
        ops.extend(ROWS.map(|rows| on.quantized(format, rows)));
    }
    ops.push(on.backward_input(4_096));
    ops.push(on.backward_weight(4_096));
    ops.push(on.attention(4_096));
    ops.push(on.attention_backward(4_096));
    ops.extend([32, 4_096].map(|rows| on.norm(rows)));
    ops.extend([32, 4_096].map(|rows| on.rope(rows)));
    ops.extend([32, 4_096].map(|rows| on.swiglu(rows)));
    ops.push(on.embedding(4_096));
    ops.push(on.head(1_024));
    let (open, top_k) = (Truncation::default(), 50);
    ops.push(on.sampling("sampling", open));
    ops.push(on.sampling("sampling, top-k 50", Truncation { top_k, ..open }));
    ops.push(on.sampling("sampling, top-p 0.95", Truncation { top_p: 0.95, ..open }));
    ops.push(on.adamw(1 << 26));
    ops.push(on.muon(HIDDEN_SIZE, INTERMEDIATE_SIZE));
    ops
}

/// A product and a copy that are large enough to reach the device's peaks.
pub(in crate::ops) fn peak_ops(device: &Device) -> Vec<Op> {
    let on = On { device: device.clone() };
    vec![on.linear(8_192, (8_192, 8_192)), on.copy(1 << 28)]
}

/// Bytes of `count` bf16 elements.
fn bf16_bytes(count: usize) -> f64 {
    2.0 * count as f64
}

/// Makes operations on a device.
#[derive(Clone)]
struct On {
    device: Device,
}

impl On {
    fn op(
        &self,
        (name, dtype): (&'static str, &'static str),
        shape: String,
        work: (f64, f64),
        make: impl Fn(&Self) -> Result<Prepared> + 'static,
    ) -> Op {
        let on = self.clone();
        let mut op = Op::new(name, shape, work, move || make(&on));
        op.dtype = dtype;
        op
    }

    fn f32(&self, rows: usize, columns: usize, seed: u64) -> Result<Tensor> {
        memory::to_device(&matrix(rows, columns, seed)?, &self.device)
    }

    fn bf16(&self, rows: usize, columns: usize, seed: u64) -> Result<Tensor> {
        memory::to_device(&matrix(rows, columns, seed)?.to_dtype(DType::BF16)?, &self.device)
    }

    fn linear(&self, rows: usize, (inputs, outputs): (usize, usize)) -> Op {
        let moved = rows * inputs + inputs * outputs + rows * outputs;
        let work = (2.0 * (rows * inputs * outputs) as f64, bf16_bytes(moved));
        self.op(("linear", "bfloat16"), format!("{rows}x{inputs}x{outputs}"), work, move |on| {
            let x = on.bf16(rows, inputs, 1)?;
            let weight = Weight::f32(&on.bf16(outputs, inputs, 2)?)?;
            Ok(Prepared::timed(move || Ok(vec![weight.forward(&x, None)?])))
        })
    }

    fn copy(&self, count: usize) -> Op {
        let work = (0.0, 8.0 * count as f64);
        self.op(("copy", "float32"), format!("{count}"), work, move |on| {
            let from = memory::zeros(&[count], &on.device)?;
            let to = memory::zeros(&[count], &on.device)?;
            Ok(Prepared::timed(move || memory::overwrite(&to, &from).map(|()| Vec::new())))
        })
    }

    fn quantized(&self, format: BlockFormat, rows: usize) -> Op {
        let (inputs, outputs) = (HIDDEN_SIZE, INTERMEDIATE_SIZE);
        let stored = outputs * format.row_bytes(inputs).unwrap_or_default();
        let moved = bf16_bytes(rows * (inputs + outputs)) + stored as f64;
        let work = (2.0 * (rows * inputs * outputs) as f64, moved);
        let shape = format!("{rows}x{inputs}x{outputs}");
        self.op(("linear", format.name()), shape, work, move |on| {
            let x = on.bf16(rows, inputs, 1)?;
            let blocks: Vec<u8> = (0..stored).map(|i| [7, 36, 21, 40][i % 4]).collect();
            let blocks = QuantizedMatrix::new(format, outputs, inputs, ByteRange::from(blocks))?;
            let placement =
                WeightPlacement { format: WeightFormat::Bf16, device: on.device.clone() };
            let weight = placement.blocks(&blocks)?;
            Ok(Prepared::timed(move || Ok(vec![weight.forward(&x, None)?])))
        })
    }

    fn backward_input(&self, rows: usize) -> Op {
        let (inputs, outputs) = (HIDDEN_SIZE, INTERMEDIATE_SIZE);
        let moved = rows * inputs + inputs * outputs + rows * outputs;
        let work = (2.0 * (rows * inputs * outputs) as f64, bf16_bytes(moved));
        let shape = format!("{rows}x{inputs}x{outputs}");
        self.op(("linear backward, input", "bfloat16"), shape, work, move |on| {
            let (dy, w) = (on.bf16(rows, outputs, 1)?, on.bf16(outputs, inputs, 2)?);
            Ok(Prepared::timed(move || {
                Ok(vec![linear::backward_input(&dy, &w, None, Precision::Bf16)?])
            }))
        })
    }

    fn backward_weight(&self, rows: usize) -> Op {
        let (inputs, outputs) = (HIDDEN_SIZE, INTERMEDIATE_SIZE);
        // The f32 gradient is read and written.
        let moved = bf16_bytes(rows * (inputs + outputs)) + 8.0 * (inputs * outputs) as f64;
        let work = (2.0 * (rows * inputs * outputs) as f64, moved);
        let shape = format!("{rows}x{inputs}x{outputs}");
        self.op(("linear backward, weight", "bfloat16"), shape, work, move |on| {
            let (x, dy) = (on.bf16(rows, inputs, 1)?, on.bf16(rows, outputs, 2)?);
            let d_weight = memory::zeros(&[outputs, inputs], &on.device)?;
            Ok(Prepared::timed(move || {
                linear::backward_weight(&x, &dy, &d_weight, None, Precision::Bf16)?;
                Ok(Vec::new())
            }))
        })
    }

    /// Queries, keys and values of a causal sequence.
    fn qkv(&self, tokens: usize) -> Result<[Tensor; 3]> {
        let (q, k) =
            (self.bf16(tokens, HEADS.q_size(), 1)?, self.bf16(tokens, HEADS.kv_size(), 2)?);
        Ok([q, k, self.bf16(tokens, HEADS.kv_size(), 3)?])
    }

    fn attention(&self, tokens: usize) -> Op {
        let moved = 2 * tokens * (HEADS.q_size() + HEADS.kv_size());
        let work = (4.0 * pairs(tokens) * HEADS.dim as f64, bf16_bytes(moved));
        let shape = format!("{tokens} tokens, 16:2x128");
        self.op(("attention", "bfloat16"), shape, work, move |on| {
            let [q, k, v] = on.qkv(tokens)?;
            Ok(Prepared::timed(move || {
                Ok(vec![attention::forward(&q, &k, &v, &span(tokens), CAUSAL)?.out])
            }))
        })
    }

    fn attention_backward(&self, tokens: usize) -> Op {
        let moved = 4 * tokens * (HEADS.q_size() + HEADS.kv_size());
        let work = (10.0 * pairs(tokens) * HEADS.dim as f64, bf16_bytes(moved));
        let shape = format!("{tokens} tokens, 16:2x128");
        self.op(("attention backward", "bfloat16"), shape, work, move |on| {
            let ([q, k, v], d_out) = (on.qkv(tokens)?, on.bf16(tokens, HEADS.q_size(), 4)?);
            let attended = attention::forward(&q, &k, &v, &span(tokens), CAUSAL)?;
            Ok(Prepared::timed(move || {
                let inputs = (&q, &k, &v);
                let of = attention::backward(inputs, &attended, &d_out, &span(tokens), CAUSAL)?;
                Ok(vec![of.q])
            }))
        })
    }

    fn norm(&self, rows: usize) -> Op {
        let work = (4.0 * (rows * HIDDEN_SIZE) as f64, bf16_bytes(2 * rows * HIDDEN_SIZE));
        self.op(("rms_norm", "bfloat16"), format!("{rows}x{HIDDEN_SIZE}"), work, move |on| {
            let (x, w) = (on.bf16(rows, HIDDEN_SIZE, 1)?, on.f32(1, HIDDEN_SIZE, 2)?);
            let w = w.reshape(HIDDEN_SIZE)?;
            Ok(Prepared::timed(move || Ok(vec![rms_norm::forward(&x, &w, EPS)?.y])))
        })
    }

    fn rope(&self, rows: usize) -> Op {
        let work = (3.0 * (rows * HIDDEN_SIZE) as f64, bf16_bytes(2 * rows * HIDDEN_SIZE));
        self.op(("rope", "bfloat16"), format!("{rows}x{HIDDEN_SIZE}"), work, move |on| {
            let inverse = |i: usize| 1e6f64.powf(-2.0 * i as f64 / HEADS.dim as f64) as f32;
            let inv_freq = (0..HEADS.dim / 2).map(inverse).collect();
            let positions: Vec<usize> = (0..rows).collect();
            let frequencies = Frequencies { inv_freq, attention_factor: 1.0 };
            let cos_sin = CosSinCache::new(&positions, &frequencies);
            let x = on.bf16(rows, HIDDEN_SIZE, 1)?;
            Ok(Prepared::timed(move || {
                rotate(&x, &cos_sin, Rotation::Forward)?;
                Ok(Vec::new())
            }))
        })
    }

    fn swiglu(&self, rows: usize) -> Op {
        let work = (0.0, bf16_bytes(3 * rows * INTERMEDIATE_SIZE));
        self.op(("swiglu", "bfloat16"), format!("{rows}x{INTERMEDIATE_SIZE}"), work, move |on| {
            let gate = on.bf16(rows, INTERMEDIATE_SIZE, 1)?;
            let up = on.bf16(rows, INTERMEDIATE_SIZE, 2)?;
            Ok(Prepared::timed(move || Ok(vec![swiglu::forward(&gate, &up)?])))
        })
    }

    fn embedding(&self, rows: usize) -> Op {
        const ENTRIES: usize = 32_768;
        let work = (0.0, bf16_bytes(2 * rows * HIDDEN_SIZE));
        self.op(("embedding", "bfloat16"), format!("{rows}x{HIDDEN_SIZE}"), work, move |on| {
            let table = on.bf16(ENTRIES, HIDDEN_SIZE, 1)?;
            let at: Vec<usize> = (0..rows).map(|i| i * 7_919 % ENTRIES).collect();
            Ok(Prepared::timed(move || Ok(vec![embedding::gather(&table, &at)?])))
        })
    }

    fn head(&self, rows: usize) -> Op {
        let (hidden_size, vocabulary) = (HIDDEN_SIZE, VOCABULARY);
        let flops = 2.0 * (rows * hidden_size) as f64 * vocabulary as f64;
        let work = (flops, bf16_bytes(rows * hidden_size + hidden_size * vocabulary));
        let shape = format!("{rows}x{hidden_size}x{vocabulary}");
        self.op(("lm_head", "bfloat16"), shape, work, move |on| {
            let (x, w) = (on.bf16(rows, hidden_size, 1)?, on.bf16(vocabulary, hidden_size, 2)?);
            let ids: Vec<u32> = (0..rows).map(|i| (i * 7_919 % vocabulary) as u32).collect();
            Ok(Prepared::timed(move || {
                let head = LmHead { weight: &w, temperature: 1.0, precision: Precision::Bf16 };
                lm_head::forward(&x, &head, &ids)?;
                Ok(Vec::new())
            }))
        })
    }

    /// Samples a token for each of 32 sequences, with the copy of the tokens to the host.
    fn sampling(&self, name: &'static str, to: Truncation) -> Op {
        const SEQUENCES: usize = 32;
        let work = (0.0, 4.0 * (SEQUENCES * VOCABULARY) as f64);
        self.op((name, "float32"), format!("{SEQUENCES}x{VOCABULARY}"), work, move |on| {
            let logits = on.f32(SEQUENCES, VOCABULARY, 1)?;
            let requests: Vec<RowSampling> = (0..SEQUENCES)
                .zip(uniform(SEQUENCES, 2))
                .map(|(row, uniform)| RowSampling {
                    row,
                    scale: 4.0,
                    edits: LogitEdits::default(),
                    mode: SamplingMode::Random(vec![f64::from(uniform.abs())], to),
                })
                .collect();
            Ok(Prepared::timed(move || {
                sample::draw(&logits, &requests)?;
                Ok(Vec::new())
            }))
        })
    }

    fn adamw(&self, count: usize) -> Op {
        let work = (15.0 * count as f64, 4.0 * (7 * count) as f64);
        self.op(("adamw", "float32"), format!("{count}"), work, move |on| {
            let [p, g, m] = [1, 2, 3].map(|seed| on.f32(1, count, seed));
            let (p, g, m, v) = (p?, g?, m?, memory::zeros(&[1, count], &on.device)?);
            Ok(Prepared::timed(move || {
                adamw(&p, &g, &m, &v, &ADAMW_STEP)?;
                Ok(Vec::new())
            }))
        })
    }

    fn muon(&self, rows: usize, columns: usize) -> Op {
        const STEP: MuonStep = MuonStep {
            lr: 1e-6,
            momentum: 0.95,
            weight_decay: 0.1,
            grad_scale: 0.5,
            precision: Precision::Bf16,
        };
        let iteration = 4.0 * (rows * rows) as f64 * (columns as f64) + 2.0 * (rows as f64).powi(3);
        let work = (5.0 * iteration, 4.0 * (5 * rows * columns) as f64);
        self.op(("muon", "bfloat16"), format!("{rows}x{columns}"), work, move |on| {
            let [p, g, m] = [1, 2, 3].map(|seed| on.f32(rows, columns, seed));
            let (p, g, m) = (p?, g?, m?);
            Ok(Prepared::timed(move || {
                muon(&p, &g, &m, &STEP)?;
                Ok(Vec::new())
            }))
        })
    }
}

const CAUSAL: Pattern = Pattern { heads: HEADS, window: None, causal: true };

fn span(tokens: usize) -> [GroupSpan; 1] {
    [GroupSpan { prompt: 0..tokens, completions: Vec::new(), kv_only: 0 }]
}

/// Pairs of a query and a key that it attends to, over all heads.
fn pairs(tokens: usize) -> f64 {
    tokens as f64 * (tokens as f64 + 1.0) / 2.0 * HEADS.query as f64
}
