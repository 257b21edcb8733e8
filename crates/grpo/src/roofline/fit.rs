//! What fits a device's memory, and what would make it fit.

use embodied_r_policy::trainable::Counts;
use embodied_r_policy::{BlockFormat, ModelConfig, PAGE, WeightFormat};

use crate::memory_plan::{Load, MemoryPlan};
use crate::settings::Recompute;

/// Share of a card's memory that a run may take: the rest is for what an allocator cannot use.
pub const USABLE: f64 = 0.95;

/// Tokens by which micro-batches are tried.
const BUDGETS: usize = 1024;

/// Most GPUs that are advised.
const MOST_GPUS: usize = 1024;

/// Where a run is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// One processor, which so many ranks share.
    Processor(usize),
    /// So many GPUs, one rank each.
    Gpus(usize),
}

/// A run, before it is dealt to ranks.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The model's shape.
    pub config: &'a ModelConfig,
    /// The load of the whole run.
    pub whole: Load,
    /// Which layers are computed again.
    pub recompute: Recompute,
    /// Whether gradients are held in bf16 on GPUs.
    pub bf16_gradients: bool,
    /// Whether the weights are held in blocks of 4.5 bits on GPUs.
    pub blocks: bool,
    /// Where it is to be.
    pub place: Place,
    /// Bytes that each rank may take.
    pub usable: usize,
    /// What an adapter would train in place of what is trained now.
    pub adapter: Counts,
}

/// A change of a run that takes less memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// All layers are computed again.
    RecomputeAll,
    /// Micro-batches of so many tokens.
    Budget(usize),
    /// Gradients in bf16.
    Bf16Gradients,
    /// No reference: neither a divergence nor a judge needs one.
    NoReference,
    /// An adapter beside the model.
    Adapter,
    /// The model's own weights, which an adapter leaves as they are, in blocks of 4.5 bits.
    Quantised,
    /// So many GPUs in all.
    Gpus(usize),
}

/// Changes that together make a run fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advice {
    /// The changes.
    pub changes: Vec<Change>,
    /// Bytes that it takes then.
    pub total: usize,
}

/// What fits beside the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Bytes that the run takes if every layer is computed again: the least with these settings.
    pub least: usize,
    /// Tokens of the largest micro-batch that fits, if one does; all of a rank's step at most.
    pub budget: Option<usize>,
    /// Pages of keys and values for which a rollout has room.
    pub kv_pages: usize,
    /// Completions of full length, each behind a prompt of its own, that these hold.
    pub kv_sequences: usize,
}

impl Wanted<'_> {
    /// The load of one rank.
    pub fn load(&self) -> Load {
        match self.place {
            Place::Processor(ranks) => self.whole.on_ranks(ranks),
            Place::Gpus(ranks) => {
                let load = self.whole.on_gpus(ranks);
                let mut layout = load.layout;
                if self.bf16_gradients {
                    layout = layout.with_bf16_gradients();
                }
                if self.blocks {
                    layout.weights = WeightFormat::Blocks(BlockFormat::Q4K);
                }
                Load { layout, ..load }
            }
        }
    }

    /// The memory of one rank.
    pub fn memory(&self) -> MemoryPlan {
        MemoryPlan::new(self.config, &self.load(), self.recompute, Some(self.usable))
    }

    /// Whether it fits.
    pub fn fits(&self) -> bool {
        self.memory().total() <= self.usable
    }

    /// What fits.
    pub fn room(&self) -> Room {
        let all = |budget| Self {
            whole: Load { budget, ..self.whole },
            recompute: Recompute::All,
            ..*self
        };
        let most = self.load().tokens().div_ceil(BUDGETS).max(1);
        let (mut fitting, mut too_many) = (0, most + 1);
        while fitting + 1 < too_many {
            let middle = usize::midpoint(fitting, too_many);
            match all(middle * BUDGETS).fits() {
                true => fitting = middle,
                false => too_many = middle,
            }
        }
        let (plan, load) = (self.memory(), self.load());
        let beside = plan.resident() + plan.taped + plan.rollout - plan.cache;
        let page = (PAGE * self.config.kv_bytes_per_token(load.layout.number)).max(1);
        let kv_pages = self.usable.saturating_sub(beside) / page;
        Room {
            least: all(self.whole.budget).memory().total(),
            budget: (fitting > 0).then_some(fitting * BUDGETS),
            kv_pages,
            kv_sequences: kv_pages / (load.prompt + load.completion).div_ceil(PAGE).max(1),
        }
    }

    /// What would make it fit: each single change that does, or else the first few that do together. Empty if it fits
    /// already, or nothing does.
    pub fn advice(&self) -> Vec<Advice> {
        if self.fits() {
            return Vec::new();
        }
        let single = self.changes();
        let alone: Vec<_> = single.iter().filter_map(|change| self.tried(&[*change])).collect();
        if !alone.is_empty() {
            return alone;
        }
        let small = [Change::RecomputeAll, Change::Budget(BUDGETS)];
        let together: &[&[Change]] = match self.place {
            Place::Processor(_) => &[&small, &[small[0], small[1], Change::Adapter]],
            Place::Gpus(_) => &[
                &[small[0], small[1], Change::Bf16Gradients],
                &[small[0], small[1], Change::Bf16Gradients, Change::NoReference],
                &[small[0], small[1], Change::Adapter],
                &[small[0], small[1], Change::Adapter, Change::Quantised],
            ],
        };
        let mut advice: Vec<_> =
            together.iter().find_map(|changes| self.tried(changes)).into_iter().collect();
        let gpus = single.iter().filter(|change| matches!(change, Change::Gpus(_)));
        advice.extend(gpus.filter_map(|gpus| self.tried(&[small[0], small[1], *gpus])).take(1));
        advice
    }

    /// The changes that are tried one by one, the smallest number of more GPUs that does first.
    fn changes(&self) -> Vec<Change> {
        let mut changes = vec![Change::RecomputeAll];
        if self.whole.budget > BUDGETS {
            changes.push(Change::Budget(BUDGETS));
        }
        if let Place::Gpus(ranks) = self.place {
            changes.push(Change::Bf16Gradients);
            let doubled = |ranks: &usize| Some(ranks * 2).filter(|ranks| *ranks <= MOST_GPUS);
            let more = std::iter::successors(doubled(&ranks.max(1)), doubled).map(Change::Gpus);
            let enough = more.clone().find(|gpus| self.tried(&[*gpus]).is_some());
            match enough {
                Some(gpus) => changes.push(gpus),
                None => changes.extend(more),
            }
        }
        if self.whole.reference > 0 {
            changes.push(Change::NoReference);
        }
        if self.whole.trainable == self.whole.parameters {
            changes.push(Change::Adapter);
        }
        changes
    }

    fn tried(&self, changes: &[Change]) -> Option<Advice> {
        let changed = changes.iter().fold(*self, |run, change| run.changed(*change));
        let total = changed.memory().total();
        (total <= self.usable).then(|| Advice { changes: changes.to_vec(), total })
    }

    fn changed(self, change: Change) -> Self {
        let whole = self.whole;
        match change {
            Change::RecomputeAll => Self { recompute: Recompute::All, ..self },
            Change::Budget(budget) => Self { whole: Load { budget, ..whole }, ..self },
            Change::Bf16Gradients => Self { bf16_gradients: true, ..self },
            Change::NoReference => Self { whole: Load { reference: 0, ..whole }, ..self },
            Change::Adapter => {
                let Counts { trainable, total: parameters } = self.adapter;
                Self { whole: Load { parameters, trainable, reference: 0, ..whole }, ..self }
            }
            Change::Quantised => Self { blocks: true, ..self },
            Change::Gpus(ranks) => Self { place: Place::Gpus(ranks), ..self },
        }
    }
}

#[cfg(test)]
mod tests;
