//! AdamW and Muon with all moments and masters on every rank.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor};
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
    remembered: BTreeMap<String, Remembered>,
}

/// What is remembered of a parameter.
#[derive(Debug)]
struct Remembered {
    /// Its f32 numbers, where it is held in fewer bits.
    master: Option<Tensor>,
    moments: OfOne,
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
        let mut remembered = BTreeMap::new();
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
                // The run has computed in f32 until now, or begins.
                _ => Some(tensor.to_dtype(DType::F32)?),
            };
            let moments = OfOne::build(optim, &parameter, make)?;
            remembered.insert(parameter.0, Remembered { master, moments });
        }
        Ok(Self { remembered })
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
            let Remembered { master, moments } =
                self.remembered.get(name).ok_or_else(|| missing("moments"))?;
            let moved = master.as_ref().unwrap_or(parameter);
            let step = of(parameter.rank() > 1);
            match moments {
                OfOne::Adamw { first, second } => adamw(moved, gradient, first, second, &step)?,
                OfOne::Muon { momentum } => {
                    let AdamwStep { lr, weight_decay, grad_scale, .. } = step;
                    let step = MuonStep { lr, momentum: MUON_MOMENTUM, weight_decay, grad_scale };
                    muon(moved, gradient, momentum, &step)?;
                }
            }
            if let Some(master) = master {
                memory::overwrite(parameter, master)?;
            }
            Ok(())
        })
    }

    /// The moments and masters by their names in files.
    pub(super) fn pieces(&self) -> Vec<(String, Tensor)> {
        let of_one = |(name, Remembered { master, moments }): (&String, &Remembered)| {
            let master = master.iter().map(|master| (Moment::Master, master));
            let named = moments.named().into_iter().chain(master);
            named.map(|(moment, tensor)| (moment.whole(name), tensor.clone())).collect::<Vec<_>>()
        };
        self.remembered.iter().flat_map(of_one).collect()
    }
}
