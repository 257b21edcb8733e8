//! Optimizer steps.

use super::case::{Case, CaseInputs, Output};
use crate::error::Result;
use crate::{AdamwStep, MuonStep, adamw, muon};

pub(super) fn add(cases: &mut Vec<Case>) {
    for elements in [1, 7, 64, 4099, 8200] {
        let run = move |case: &CaseInputs| run_adamw(case, elements);
        cases.push(Case::new("adamw", format!("{elements}"), run));
    }
    for (rows, cols) in [(8, 8), (5, 33), (33, 5), (1, 9)] {
        let run = move |case: &CaseInputs| run_muon(case, rows, cols);
        cases.push(Case::new("muon", format!("{rows} x {cols}"), run));
    }
}

fn run_adamw(case: &CaseInputs, elements: usize) -> Result<Vec<Output>> {
    let (param, m) = (case.f32(1, &[elements])?, case.f32(2, &[elements])?);
    // A second moment is not negative.
    let v = case.f32(3, &[elements])?.sqr()?;
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
        adamw(&param, &case.noise(4, &[elements])?, &m, &v, &step)?;
    }
    Ok(vec![Output::near("param", param), Output::near("m", m), Output::near("v", v)])
}

fn run_muon(case: &CaseInputs, rows: usize, cols: usize) -> Result<Vec<Output>> {
    let shape = [rows, cols];
    let (param, momentum) = (case.f32(1, &shape)?, case.f32(2, &shape)?);
    let precision = case.precision();
    let step = MuonStep { lr: 0.1, momentum: 0.95, weight_decay: 0.1, grad_scale: 0.5, precision };
    muon(&param, &case.noise(3, &shape)?, &momentum, &step)?;
    // Five iterations round their matrices.
    Ok(vec![case.chained("param", param, 5), Output::near("momentum", momentum)])
}
