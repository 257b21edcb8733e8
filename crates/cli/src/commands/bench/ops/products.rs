//! Linear layers.

use embodied_r_kernels::linear;
use embodied_r_kernels::memory::zeros;

use super::op::{Op, Prepared, dot, f32_bytes, matrix, values};

/// Rows as in decoding, and as in prefill and training.
const ROWS: [usize; 5] = [1, 4, 16, 64, 2048];

/// Inputs and outputs of a layer.
const LAYERS: [(usize, usize); 3] = [(512, 1_408), (896, 4_864), (2_048, 2_048)];

pub(super) fn ops() -> Vec<Op> {
    let layers = LAYERS.into_iter().flat_map(|layer| ROWS.map(|rows| (rows, layer)));
    let mut ops: Vec<Op> = layers.map(|(rows, layer)| forward(rows, layer)).collect();
    // The output layer over a small vocabulary.
    ops.push(forward(1, (512, 8_192)));
    for layer in LAYERS {
        ops.push(backward_input(2_048, layer));
        ops.push(backward_weight(2_048, layer));
    }
    ops
}

fn shape(rows: usize, (inputs, outputs): (usize, usize)) -> String {
    format!("{rows}x{inputs}x{outputs}")
}

fn work(rows: usize, (inputs, outputs): (usize, usize)) -> (f64, f64) {
    let numbers = rows * inputs + inputs * outputs + rows * outputs;
    (2.0 * (rows * inputs * outputs) as f64, f32_bytes(numbers))
}

fn forward(rows: usize, layer: (usize, usize)) -> Op {
    let (inputs, outputs) = layer;
    Op::new("linear", shape(rows, layer), work(rows, layer), move || {
        let (x, w) = (matrix(rows, inputs, 1)?, matrix(outputs, inputs, 2)?);
        let (plain_x, plain_w) = (values(&x)?, values(&w)?);
        let plain = move |places: &[usize]| {
            let at = |place: &usize| {
                let (x, w) = (place / outputs * inputs, place % outputs * inputs);
                let (x, w) = (&plain_x[x..x + inputs], &plain_w[w..w + inputs]);
                dot(x.iter().copied(), w.iter().copied())
            };
            places.iter().map(at).collect()
        };
        Ok(Prepared::new(move || Ok(vec![linear::forward(&x, &w, None)?]), plain))
    })
}

fn backward_input(rows: usize, layer: (usize, usize)) -> Op {
    let (inputs, outputs) = layer;
    Op::new("linear backward, input", shape(rows, layer), work(rows, layer), move || {
        let (dy, w) = (matrix(rows, outputs, 1)?, matrix(outputs, inputs, 2)?);
        let (plain_dy, plain_w) = (values(&dy)?, values(&w)?);
        let plain = move |places: &[usize]| {
            let at = |place: &usize| {
                let dy = &plain_dy[place / inputs * outputs..][..outputs];
                dot(dy.iter().copied(), plain_w[place % inputs..].iter().step_by(inputs).copied())
            };
            places.iter().map(at).collect()
        };
        Ok(Prepared::new(move || Ok(vec![linear::backward_input(&dy, &w, None)?]), plain))
    })
}

fn backward_weight(rows: usize, layer: (usize, usize)) -> Op {
    let (inputs, outputs) = layer;
    Op::new("linear backward, weight", shape(rows, layer), work(rows, layer), move || {
        let (x, dy) = (matrix(rows, inputs, 1)?, matrix(rows, outputs, 2)?);
        let (plain_x, plain_dy) = (values(&x)?, values(&dy)?);
        let plain = move |places: &[usize]| {
            let at = |place: &usize| {
                let dy = plain_dy[place / inputs..].iter().step_by(outputs);
                dot(dy.copied(), plain_x[place % inputs..].iter().step_by(inputs).copied())
            };
            places.iter().map(at).collect()
        };
        let d_weight = zeros(&[outputs, inputs])?;
        let run = move || {
            linear::backward_weight(&x, &dy, &d_weight, None)?;
            Ok(vec![d_weight.clone()])
        };
        Ok(Prepared::new(run, plain))
    })
}
