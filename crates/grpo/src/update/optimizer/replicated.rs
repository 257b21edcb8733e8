//! AdamW and Muon with replicated state.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor};
use embodied_r_kernels::memory;
use embodied_r_kernels::{AdamwStep, MuonStep, Precision, adamw, muon};
use rayon::prelude::*;

use super::state_files::{Moment, StateFiles};
use crate::error::{Error, Result};
use crate::model::{Model, NamedGradients};
use crate::settings::Optim;

/// Decay of Muon's momentum, as in `torch.optim.Muon`.
const MUON_MOMENTUM: f64 = 0.95;

/// The state of all parameters.
#[derive(Debug)]
pub(super) struct Replicated {
    state: BTreeMap<String, ParameterState>,
}

/// The state of one parameter.
#[derive(Debug)]
struct ParameterState {
    /// The f32 master weights, if the parameter has lower precision.
    master: Option<Tensor>,
    moments: Moments,
}

/// The moments of one parameter.
#[derive(Debug)]
enum Moments {
    Adamw { first: Tensor, second: Tensor },
    Muon { momentum: Tensor },
}

impl Moments {
    /// The moments of `parameter`, each created by `make`.
    fn build(
        optim: Optim,
        (name, parameter): &(String, Tensor),
        mut make: impl FnMut(Moment) -> Result<Tensor>,
    ) -> Result<Self> {
        let within = !name.contains("embed_tokens") && !name.contains("lm_head");
        if optim == Optim::Muon && parameter.rank() == 2 && within {
            return Ok(Self::Muon { momentum: make(Moment::Momentum)? });
        }
        Ok(Self::Adamw { first: make(Moment::First)?, second: make(Moment::Second)? })
    }

    fn named(&self) -> Vec<(Moment, &Tensor)> {
        match self {
            Self::Adamw { first, second } => vec![(Moment::First, first), (Moment::Second, second)],
            Self::Muon { momentum } => vec![(Moment::Momentum, momentum)],
        }
    }
}

impl Replicated {
    /// Zero moments for `model`, or those in `stored`.
    pub(super) fn new<M: Model>(
        optim: Optim,
        model: &M,
        stored: Option<&StateFiles>,
    ) -> Result<Self> {
        let mut state = BTreeMap::new();
        for parameter in model.parameters() {
            let (name, tensor) = &parameter;
            let make = |moment: Moment| match stored {
                None => Ok(memory::zeros(tensor.dims(), tensor.device())?),
                Some(stored) => {
                    let values = stored.read(moment, &parameter, 0..tensor.elem_count())?;
                    let moments = memory::tensor(values, tensor.dims())?;
                    Ok(moments.to_device(tensor.device())?)
                }
            };
            let master = match tensor.dtype() {
                DType::F32 => None,
                _ if stored.is_some_and(|stored| stored.has(Moment::Master, name)) => {
                    Some(make(Moment::Master)?)
                }
                // A new run, or one that computed in f32 so far.
                _ => Some(tensor.to_dtype(DType::F32)?),
            };
            let moments = Moments::build(optim, &parameter, make)?;
            state.insert(parameter.0, ParameterState { master, moments });
        }
        Ok(Self { state })
    }

    /// Updates all weights; `step_for` gives the step of a tensor by its name and whether it is a matrix.
    pub(super) fn step<M: Model>(
        &self,
        model: &M,
        gradients: &M::Gradients,
        step_for: impl Fn(&str, bool) -> AdamwStep + Sync,
    ) -> Result<()> {
        // Muon works on a matrix with one thread, so matrices are updated in parallel.
        let parameters = model.parameters();
        parameters.par_iter().with_max_len(1).try_for_each(|(name, parameter)| -> Result<()> {
            let missing = |what: &str| Error::Model { what: format!("has no {what} for `{name}`") };
            let gradient = gradients.get(name).ok_or_else(|| missing("gradient"))?;
            let ParameterState { master, moments } =
                self.state.get(name).ok_or_else(|| missing("moments"))?;
            let moved = master.as_ref().unwrap_or(parameter);
            let step = step_for(name, parameter.rank() > 1);
            match moments {
                Moments::Adamw { first, second } => adamw(moved, gradient, first, second, &step)?,
                Moments::Muon { momentum } => {
                    let AdamwStep { lr, weight_decay, grad_scale, .. } = step;
                    // As PyTorch where the model computes in bf16.
                    let precision = match master {
                        Some(_) => Precision::Bf16,
                        None => Precision::F32,
                    };
                    let step = MuonStep {
                        lr,
                        momentum: MUON_MOMENTUM,
                        weight_decay,
                        grad_scale,
                        precision,
                    };
                    muon(moved, gradient, momentum, &step)?;
                }
            }
            if let Some(master) = master {
                memory::overwrite(parameter, master)?;
            }
            Ok(())
        })
    }

    /// Moments and master weights by their names in files.
    pub(super) fn named_tensors(&self) -> Vec<(String, Tensor)> {
        let of_one = |(name, ParameterState { master, moments }): (&String, &ParameterState)| {
            let master = master.iter().map(|master| (Moment::Master, master));
            let named = moments.named().into_iter().chain(master);
            named
                .map(|(moment, tensor)| (moment.full_name(name), tensor.clone()))
                .collect::<Vec<_>>()
        };
        self.state.iter().flat_map(of_one).collect()
    }
}
