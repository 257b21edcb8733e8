//! Copies, reductions and row buffers.

use candle_core::Tensor;

use super::case::{Case, CaseInputs, Output};
use crate::error::Result;
use crate::row_buffer::{self, RowBuffer};
use crate::{embedding, memory};

pub(super) fn add(cases: &mut Vec<Case>) {
    cases.push(Case::new("memory", "no elements".into(), empty));
    for (rows, width) in [(6, 64), (4, 1), (5, 33), (90, 130)] {
        let shape = format!("{rows} x {width}");
        let run = move |case: &CaseInputs| moved(case, rows, width);
        cases.push(Case::new("memory", shape.clone(), run));
        let run = move |case: &CaseInputs| lookup(case, rows, width);
        cases.push(Case::new("row_buffer", shape, run));
    }
}

/// CUDA cannot allocate 0 bytes.
fn empty(case: &CaseInputs) -> Result<Vec<Output>> {
    let zeros = memory::zeros(&[0], case.device())?;
    memory::write_slice(&zeros, &[])?;
    Ok(vec![
        Output::exact("zeros", zeros),
        Output::exact("copy", memory::copy(&case.noise(1, &[0, 4])?)?),
        Output::exact("rows", embedding::gather(&case.f32(2, &[3, 4])?, &[])?),
    ])
}

fn moved(case: &CaseInputs, rows: usize, width: usize) -> Result<Vec<Output>> {
    let noise = |seed, rows| case.noise(seed, &[rows, width]);
    let x = noise(1, rows)?;
    let copy = memory::copy(&x)?;
    memory::scale(&x, 0.5)?;
    let part = memory::rows(&x, 1..rows - 1)?;
    let over = noise(2, rows)?;
    memory::copy_rows(&over, 1, &x, 2..rows)?;
    let stacked = memory::concat_rows(&[&x, &over])?;
    let sum = noise(3, rows)?;
    memory::add(&sum, &x)?;
    // An f32 gradient that activations are added to, and one that is added to them.
    let wide = case.f32(4, &[rows, width])?;
    memory::add(&wide, &x)?;
    let narrow = noise(5, rows)?;
    memory::add(&narrow, &wide)?;
    let lerped = noise(6, rows)?;
    memory::lerp(&lerped, &x, 0.3)?;
    let written = noise(7, rows)?;
    memory::overwrite(&written, &case.f32(8, &[rows, width])?)?;
    let squares = memory::squared_norm(&wide)? as f32;
    let squares = Tensor::from_vec(vec![squares], 1, case.device())?;
    Ok(vec![
        Output::exact("copy", copy),
        Output::exact("scale", x),
        Output::exact("rows", part),
        Output::exact("copy_rows", over),
        Output::exact("concat_rows", stacked),
        Output::near("add", sum),
        Output::near("add to f32", wide.clone()),
        Output::near("add f32", narrow),
        Output::near("lerp", lerped),
        Output::near("overwrite", written),
        Output::near("squares", squares),
        Output::exact("zeros", memory::zeros(&[rows, 3], case.device())?),
        Output::exact("zeros_like", memory::zeros_like(&wide)?),
        Output::exact("zero_rows", memory::zero_rows(3, &wide)?),
    ])
}

fn lookup(case: &CaseInputs, rows: usize, width: usize) -> Result<Vec<Output>> {
    // The capacity is too small, so the buffer grows.
    let mut table = RowBuffer::new(rows + 1, width);
    let mut found = Vec::new();
    for (name, seed) in [("first", 1), ("cleared", 3)] {
        table.clear();
        table.push(&case.noise(seed, &[rows, width])?)?;
        table.push(&case.noise(seed + 1, &[rows, width])?)?;
        found.push(Output::exact(name, table.gather(&[table.rows() - 1, 0, rows, rows - 1, 0])?));
    }
    let mut narrow = RowBuffer::new(1, 3);
    for seed in [5, 6] {
        let (wide, few) = (case.noise(seed, &[rows, width])?, case.noise(seed, &[2, 3])?);
        row_buffer::push_all(vec![(&mut table, &wide), (&mut narrow, &few)])?;
    }
    found.push(Output::exact("of two", table.gather(&[3 * rows, 4 * rows - 1, 0])?));
    found.push(Output::exact("of the other", narrow.gather(&[3, 0, 2, 1])?));
    Ok(found)
}
