//! Operations that go row by row.

use super::{Case, Maker, Output};
use crate::error::Result;
use crate::rms_norm;

/// Rows and widths: common ones, one row, none, widths that are no whole warps or packs, more than a block holds.
const SHAPES: [(usize, usize); 7] =
    [(5, 64), (1, 7), (3, 100), (70, 33), (2, 2048), (2, 2500), (0, 16)];

pub(super) fn add(cases: &mut Vec<Case>) {
    for (rows, width) in SHAPES {
        let shape = format!("{rows} x {width}");
        let case = |op, run: fn(&Maker, usize, usize) -> Result<Vec<Output>>| {
            Case::new(op, shape.clone(), move |maker| run(maker, rows, width))
        };
        cases.push(case("rms_norm", normed));
    }
}

fn normed(maker: &Maker, rows: usize, width: usize) -> Result<Vec<Output>> {
    let (x, weight) = (maker.noise(1, &[rows, width])?, maker.f32(2, &[width])?);
    let normed = rms_norm::forward(&x, &weight, 1e-6)?;
    let again = rms_norm::again(&x, &weight, &normed.scale)?;
    let (dy, dx) = (maker.noise(3, &[rows, width])?, maker.noise(4, &[rows, width])?);
    let d_weight = maker.f32(5, &[width])?;
    rms_norm::backward(&x, &weight, &normed.scale, &dy, &dx, Some(&d_weight))?;
    Ok(vec![
        Output::near("y", normed.y),
        Output::near("y again", again),
        Output::near("dx", dx),
        Output::near("d_weight", d_weight),
    ])
}
