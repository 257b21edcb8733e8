//! Optimisers' steps.

use super::{Case, Maker, Output};
use crate::error::Result;
use crate::{AdamwStep, MuonStep, adamw, muon};

pub(super) fn add(cases: &mut Vec<Case>) {
    for numbers in [1, 7, 64, 4099, 8200] {
        let run = move |maker: &Maker| of_adamw(maker, numbers);
        cases.push(Case::new("adamw", format!("{numbers}"), run));
    }
    for (rows, cols) in [(8, 8), (5, 33), (33, 5), (1, 9)] {
        let run = move |maker: &Maker| of_muon(maker, rows, cols);
        cases.push(Case::new("muon", format!("{rows} x {cols}"), run));
    }
}

fn of_adamw(maker: &Maker, numbers: usize) -> Result<Vec<Output>> {
    let (param, m) = (maker.f32(1, &[numbers])?, maker.f32(2, &[numbers])?);
    // A second moment is no less than 0.
    let v = maker.f32(3, &[numbers])?.sqr()?;
    for step in 1..=2 {
        let step = AdamwStep {
            lr: 0.01,
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            weight_decay: 0.1,
            step,
            grad_scale: 0.5,
        };
        adamw(&param, &maker.noise(4, &[numbers])?, &m, &v, &step)?;
    }
    Ok(vec![Output::near("param", param), Output::near("m", m), Output::near("v", v)])
}

fn of_muon(maker: &Maker, rows: usize, cols: usize) -> Result<Vec<Output>> {
    let shape = [rows, cols];
    let (param, momentum) = (maker.f32(1, &shape)?, maker.f32(2, &shape)?);
    let step = MuonStep { lr: 0.1, momentum: 0.95, weight_decay: 0.1, grad_scale: 0.5 };
    muon(&param, &maker.noise(3, &shape)?, &momentum, &step)?;
    Ok(vec![Output::near("param", param), Output::near("momentum", momentum)])
}
