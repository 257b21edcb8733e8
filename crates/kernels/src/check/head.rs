//! The LM head, and draws from logits.

use candle_core::{Device, Tensor};

use super::{Case, Maker, Output};
use crate::error::Result;
use crate::lm_head::{self, Head};
use crate::precision::Precision;
use crate::sample::{self, Change, Choice, Edits, Pick, Truncation};

pub(super) fn add(cases: &mut Vec<Case>) {
    // Tokens, width, vocabulary.
    for (tokens, width, vocabulary) in
        [(5, 16, 40), (1, 8, 1), (3, 20, 1000), (70, 9, 33), (0, 8, 16)]
    {
        for temperature in [1.0, 0.7] {
            let shape =
                format!("{tokens} x {width}, vocabulary {vocabulary}, temperature {temperature}");
            let run = move |maker: &Maker| head(maker, (tokens, width, vocabulary), temperature);
            cases.push(Case::new("lm_head", shape, run));
        }
    }
    for vocabulary in [1, 40, 257, 2003] {
        for ties in [false, true] {
            let equal = if ties { ", many of them equal" } else { "" };
            let shape = format!("vocabulary {vocabulary}{equal}");
            let run = move |maker: &Maker| draws(maker, vocabulary, ties);
            cases.push(Case::new("sample", shape, run));
        }
    }
}

fn head(
    maker: &Maker,
    (tokens, width, vocabulary): (usize, usize, usize),
    temperature: f64,
) -> Result<Vec<Output>> {
    let hidden = maker.noise(1, &[tokens, width])?;
    let (weight, d_weight) =
        (maker.noise(2, &[vocabulary, width])?, maker.f32(3, &[vocabulary, width])?);
    let head = Head { weight: &weight, temperature, precision: Precision::F32 };
    let targets: Vec<u32> = (0..tokens).map(|i| (i * 7 % vocabulary) as u32).collect();
    let scores = lm_head::forward(&hidden, &head, &targets)?;
    let d_logps: Vec<f32> = (0..tokens).map(|i| (i % 5) as f32 - 1.5).collect();
    let d_hidden = lm_head::backward(&hidden, &head, &targets, &scores, &d_logps, Some(&d_weight))?;
    let frozen = lm_head::backward(&hidden, &head, &targets, &scores, &d_logps, None)?;
    let of = |numbers: &[f32]| Tensor::from_slice(numbers, numbers.len(), &Device::Cpu);
    Ok(vec![
        Output::near("logps", of(&scores.logps)?),
        Output::near("entropies", of(&scores.entropies)?),
        maker.chained("d_hidden", d_hidden, 1),
        maker.chained("d_weight", d_weight, 1),
        maker.chained("d_hidden, weight frozen", frozen, 1),
    ])
}

/// Draws of every kind from some rows; they are the same to the bit.
fn draws(maker: &Maker, vocabulary: usize, ties: bool) -> Result<Vec<Output>> {
    const ROWS: usize = 3;
    let logits = maker.f32(7, &[ROWS, vocabulary])?.affine(3.0, 0.0)?;
    let logits = if ties { logits.affine(2.0, 0.0)?.round()? } else { logits };
    let mut rows: Vec<Vec<f32>> = logits.to_vec2()?;
    // What has no weight is never drawn.
    rows[1][0] = f32::NAN;
    rows[1][vocabulary / 2] = f32::NEG_INFINITY;
    let logits = Tensor::new(rows, logits.device())?;
    let uniforms: Vec<f64> = (0..10).map(|i| f64::from(i) / 10.0 + 0.0931).collect();
    let mut choices = Vec::new();
    for row in 0..ROWS {
        for truncation in truncations(vocabulary) {
            for (edits, scale) in edits(vocabulary).into_iter().zip([1.0, 1.0 / 0.7, 4.0, 1.0]) {
                let pick = Pick::At(uniforms.clone(), truncation);
                choices.push(Choice { row, scale, edits, pick });
            }
        }
        for edits in edits(vocabulary) {
            choices.push(Choice { row, scale: 1.0, edits, pick: Pick::Largest });
        }
    }
    let drawn = sample::draw(&logits, &choices)?;
    let index = |index: Option<usize>| index.map_or(-1.0, |index| index as f32);
    let of = |numbers: Vec<f32>| {
        Tensor::from_vec(numbers, drawn.iter().map(Vec::len).sum::<usize>(), &Device::Cpu)
    };
    let indices = drawn.iter().flatten().map(|draw| index(draw.index)).collect();
    // A number for "none".
    let logp = |logp: f64| if logp.is_nan() { 1.0 } else { logp as f32 };
    let logps = drawn.iter().flatten().map(|draw| logp(draw.log_probability)).collect();
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

fn edits(vocabulary: usize) -> Vec<Edits> {
    let id = |i: usize| (i % vocabulary) as u32;
    let changes = vec![
        (id(3), Change::Bar),
        (id(5), Change::Add(2.5)),
        (id(5), Change::Penalise(1.3)),
        (id(8), Change::Penalise(1.3)),
        (id(8), Change::Add(-0.7)),
    ];
    vec![
        Edits::default(),
        Edits { allowed: None, changes: changes.clone() },
        Edits { allowed: Some(vec![id(1), id(5), id(700), id(1)]), changes },
        Edits { allowed: Some(vec![id(4)]), changes: vec![(id(4), Change::Bar)] },
    ]
}
