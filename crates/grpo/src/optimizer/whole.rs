//! AdamW and Muon with all moments on every rank.

use std::collections::BTreeMap;

use candle_core::Tensor;
use embodied_r_kernels::memory;
use embodied_r_kernels::{AdamwStep, MuonStep, adamw, muon};
use rayon::prelude::*;

use super::Optim;
use super::stored::{Moment, Stored};
use crate::error::{Error, Result};
use crate::model::{Gradients, Model};

/// Decay of Muon's momentum, as in `torch.optim.Muon`.
const MUON_MOMENTUM: f64 = 0.95;

/// The moments of all parameters.
#[derive(Debug)]
pub(super) struct Whole {
    moments: BTreeMap<String, OfOne>,
}

/// What is remembered of a parameter's gradients.
#[derive(Debug)]
enum OfOne {
    Adamw { first: Tensor, second: Tensor },
    Muon { momentum: Tensor },
}

impl OfOne {
    /// Moments for `parameter`, each made by `make`.
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

impl Whole {
    /// Moments of 0 for `model`, or those that `stored` has.
    pub(super) fn new<M: Model>(optim: Optim, model: &M, stored: Option<&Stored>) -> Result<Self> {
        let mut moments = BTreeMap::new();
        for parameter in model.parameters() {
            let numbers = parameter.1.elem_count();
            let make = |moment: Moment| match stored {
                None => Ok(parameter.1.zeros_like()?),
                Some(stored) => {
                    let values = stored.read(moment, &parameter, 0..numbers)?;
                    let moments = memory::tensor(values, parameter.1.dims())?;
                    Ok(moments.to_device(parameter.1.device())?)
                }
            };
            let built = OfOne::build(optim, &parameter, make)?;
            moments.insert(parameter.0, built);
        }
        Ok(Self { moments })
    }

    /// Moves all weights; `of` says how, for a matrix or a vector.
    pub(super) fn step<M: Model>(
        &self,
        model: &M,
        gradients: &M::Gradients,
        of: impl Fn(bool) -> AdamwStep + Sync,
    ) -> Result<()> {
        // Each matrix of Muon's is worked on by one thread, hence several of them at once.
        let parameters = model.parameters();
        parameters.par_iter().with_max_len(1).try_for_each(|(name, parameter)| -> Result<()> {
            let missing = |what: &str| Error::Model { what: format!("has no {what} for `{name}`") };
            let gradient = gradients.get(name).ok_or_else(|| missing("gradient"))?;
            let moments = self.moments.get(name).ok_or_else(|| missing("moments"))?;
            let step = of(parameter.rank() > 1);
            match moments {
                OfOne::Adamw { first, second } => adamw(parameter, gradient, first, second, &step)?,
                OfOne::Muon { momentum } => {
                    let AdamwStep { lr, weight_decay, grad_scale, .. } = step;
                    let step = MuonStep { lr, momentum: MUON_MOMENTUM, weight_decay, grad_scale };
                    muon(parameter, gradient, momentum, &step)?;
                }
            }
            Ok(())
        })
    }

    /// The moments by their names in files.
    pub(super) fn pieces(&self) -> Vec<(String, Tensor)> {
        let of_one = |(name, moments): (&String, &OfOne)| {
            let named = moments.named().into_iter();
            named.map(|(moment, tensor)| (moment.whole(name), tensor.clone())).collect::<Vec<_>>()
        };
        self.moments.iter().flat_map(of_one).collect()
    }
}
