//! The LM head, and sampling from logits.

use candle_core::{Device, Tensor};

use super::case::{Case, CaseInputs, Output};
use crate::error::Result;
use crate::lm_head::{self, LmHead};
use crate::precision::Precision;
use crate::sample::{self, LogitChange, LogitEdits, RowSampling, SamplingMode, Truncation};

pub(super) fn add(cases: &mut Vec<Case>) {
    // Tokens, hidden size, vocabulary size.
    for (tokens, width, vocabulary) in
        [(5, 16, 40), (1, 8, 1), (3, 20, 1000), (70, 9, 33), (0, 8, 16)]
    {
        for temperature in [1.0, 0.7] {
            let shape =
                format!("{tokens} x {width}, vocabulary {vocabulary}, temperature {temperature}");
            let run = move |case: &CaseInputs| head(case, (tokens, width, vocabulary), temperature);
            cases.push(Case::new("lm_head", shape, run));
        }
    }
    for vocabulary in [1, 40, 257, 4703] {
        for ties in [false, true] {
            let equal = if ties { ", many of them equal" } else { "" };
            let shape = format!("vocabulary {vocabulary}{equal}");
            let run = move |case: &CaseInputs| sampling(case, vocabulary, ties);
            cases.push(Case::new("sample", shape, run));
        }
    }
}

fn head(
    case: &CaseInputs,
    (tokens, width, vocabulary): (usize, usize, usize),
    temperature: f64,
) -> Result<Vec<Output>> {
    let hidden = case.noise(1, &[tokens, width])?;
    let (weight, d_weight) =
        (case.noise(2, &[vocabulary, width])?, case.f32(3, &[vocabulary, width])?);
    let head = LmHead { weight: &weight, temperature, precision: Precision::F32 };
    let targets: Vec<u32> = (0..tokens).map(|i| (i * 7 % vocabulary) as u32).collect();
    let scores = lm_head::forward(&hidden, &head, &targets)?;
    let d_logps: Vec<f32> = (0..tokens).map(|i| (i % 5) as f32 - 1.5).collect();
    let d_hidden = lm_head::backward(&hidden, &head, &targets, &scores, &d_logps, Some(&d_weight))?;
    let frozen = lm_head::backward(&hidden, &head, &targets, &scores, &d_logps, None)?;
    let of = |values: &[f32]| Tensor::from_slice(values, values.len(), &Device::Cpu);
    Ok(vec![
        Output::near("logps", of(&scores.logps)?),
        Output::near("entropies", of(&scores.entropies)?),
        case.chained("d_hidden", d_hidden, 1),
        case.chained("d_weight", d_weight, 1),
        case.chained("d_hidden, weight frozen", frozen, 1),
    ])
}

/// All kinds of sampling; the results are bit-identical.
fn sampling(case: &CaseInputs, vocabulary: usize, ties: bool) -> Result<Vec<Output>> {
    const ROWS: usize = 3;
    let logits = case.f32(7, &[ROWS, vocabulary])?.affine(3.0, 0.0)?;
    let logits = if ties { logits.affine(2.0, 0.0)?.round()? } else { logits };
    let mut rows: Vec<Vec<f32>> = logits.to_vec2()?;
    // Entries without weight, which are never drawn.
    rows[1][0] = f32::NAN;
    rows[1][vocabulary / 2] = f32::NEG_INFINITY;
    let logits = Tensor::new(rows, logits.device())?;
    let uniforms: Vec<f64> = (0..10).map(|i| f64::from(i) / 10.0 + 0.0931).collect();
    let mut requests = Vec::new();
    for row in 0..ROWS {
        for truncation in truncations(vocabulary) {
            for (edits, scale) in edits(vocabulary).into_iter().zip([1.0, 1.0 / 0.7, 4.0, 1.0]) {
                let mode = SamplingMode::Random(uniforms.clone(), truncation);
                requests.push(RowSampling { row, scale, edits, mode });
            }
        }
        for edits in edits(vocabulary) {
            requests.push(RowSampling { row, scale: 1.0, edits, mode: SamplingMode::Greedy });
        }
    }
    let sampled = sample::draw(&logits, &requests)?;
    let index = |index: Option<usize>| index.map_or(-1.0, |index| index as f32);
    let of = |values: Vec<f32>| {
        Tensor::from_vec(values, sampled.iter().map(Vec::len).sum::<usize>(), &Device::Cpu)
    };
    let indices = sampled.iter().flatten().map(|draw| index(draw.index)).collect();
    // Stands for `None`, as NaN would fail the comparison.
    let logp = |logp: f64| if logp.is_nan() { 1.0 } else { logp as f32 };
    let logps = sampled.iter().flatten().map(|draw| logp(draw.log_probability)).collect();
    Ok(vec![Output::exact("indices", of(indices)?), Output::exact("log-probabilities", of(logps)?)])
}

fn truncations(vocabulary: usize) -> Vec<Truncation> {
    let open = Truncation::default();
    vec![
        open,
        Truncation { top_k: 1, ..open },
        Truncation { top_k: 7, ..open },
        Truncation { top_k: vocabulary + 1, ..open },
        Truncation { top_p: 0.5, ..open },
        Truncation { top_p: 0.93, ..open },
        Truncation { min_p: 0.05, ..open },
        Truncation { top_k: 20, top_p: 0.8, min_p: 0.01 },
    ]
}

fn edits(vocabulary: usize) -> Vec<LogitEdits> {
    let id = |i: usize| (i % vocabulary) as u32;
    let changes = vec![
        (id(3), LogitChange::Ban),
        (id(5), LogitChange::Bias(2.5)),
        (id(5), LogitChange::RepetitionPenalty(1.3)),
        (id(8), LogitChange::RepetitionPenalty(1.3)),
        (id(8), LogitChange::Bias(-0.7)),
    ];
    vec![
        LogitEdits::default(),
        LogitEdits { allowed: None, changes: changes.clone() },
        LogitEdits { allowed: Some(vec![id(1), id(5), id(700), id(1)]), changes },
        LogitEdits { allowed: Some(vec![id(4)]), changes: vec![(id(4), LogitChange::Ban)] },
    ]
}
