//! What fits into a device's memory, and what would make a run fit.

use embodied_r_policy::trainable::ParameterCounts;
use embodied_r_policy::{ModelConfig, PAGE_SIZE, Precision};

use crate::estimate::memory_plan::{MemoryPlan, Placement, Workload};
use crate::settings::Recompute;

/// Usable fraction of a GPU's memory; the rest is lost to fragmentation.
pub const USABLE: f64 = 0.95;

/// Granularity of the search for the largest micro-batch, in tokens.
const BUDGET_STEP: usize = 1024;

/// Maximum number of GPUs to advise.
const MAX_GPUS: usize = 1024;

/// A planned run, before it is partitioned over ranks.
#[derive(Debug, Clone, Copy)]
pub struct PlannedRun<'a> {
    /// The model's configuration.
    pub config: &'a ModelConfig,
    /// The workload of the entire run.
    pub total_workload: Workload,
    /// The activation recomputation policy.
    pub recompute: Recompute,
    /// Matmul precision.
    pub precision: Precision,
    /// The devices.
    pub placement: Placement,
    /// Usable memory per rank in bytes.
    pub usable: usize,
    /// Parameter counts with a LoRA adapter instead.
    pub lora_counts: ParameterCounts,
}

/// A change that reduces a run's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryReduction {
    /// Recompute all layers.
    RecomputeAll,
    /// Limit micro-batches to this many tokens.
    Budget(usize),
    /// No reference model: neither KL nor a judge that needs it.
    NoReference,
    /// Train a LoRA adapter.
    Adapter,
    /// This many GPUs in total.
    Gpus(usize),
}

/// Changes that together make a run fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advice {
    /// The changes.
    pub changes: Vec<MemoryReduction>,
    /// Memory in bytes after the changes.
    pub total: usize,
}

/// Memory headroom of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Headroom {
    /// Memory in bytes with all layers recomputed: the minimum with these settings.
    pub least: usize,
    /// Tokens of the largest micro-batch that fits, if any; at most a rank's step.
    pub budget: Option<usize>,
    /// Pages of the paged KV cache that fit.
    pub kv_pages: usize,
    /// Completions of maximum length, each with its own prompt, that these pages hold.
    pub kv_sequences: usize,
}

impl PlannedRun<'_> {
    /// The workload of one rank.
    pub fn workload(&self) -> Workload {
        self.total_workload.on(self.placement, self.precision)
    }

    /// The memory of one rank.
    pub fn memory(&self) -> MemoryPlan {
        MemoryPlan::new(self.config, &self.workload(), self.recompute, Some(self.usable))
    }

    /// Whether the run fits.
    pub fn fits(&self) -> bool {
        self.memory().total() <= self.usable
    }

    /// The memory headroom.
    pub fn headroom(&self) -> Headroom {
        let all = |budget| Self {
            total_workload: Workload { budget, ..self.total_workload },
            recompute: Recompute::All,
            ..*self
        };
        let most = self.workload().tokens().div_ceil(BUDGET_STEP).max(1);
        let (mut fitting, mut too_many) = (0, most + 1);
        while fitting + 1 < too_many {
            let middle = usize::midpoint(fitting, too_many);
            match all(middle * BUDGET_STEP).fits() {
                true => fitting = middle,
                false => too_many = middle,
            }
        }
        let (plan, workload) = (self.memory(), self.workload());
        let occupied = plan.resident() + plan.cached_activations + plan.rollout - plan.kv_cache;
        let page = (PAGE_SIZE * self.config.kv_bytes_per_token(workload.layout.activation)).max(1);
        let kv_pages = self.usable.saturating_sub(occupied) / page;
        Headroom {
            least: all(self.total_workload.budget).memory().total(),
            budget: (fitting > 0).then_some(fitting * BUDGET_STEP),
            kv_pages,
            kv_sequences: kv_pages
                / (workload.prompt + workload.completion).div_ceil(PAGE_SIZE).max(1),
        }
    }

    /// Advice to make the run fit: each single change that suffices, or else the first combination that does. Empty if
    /// the run fits already or nothing suffices.
    pub fn advice(&self) -> Vec<Advice> {
        if self.fits() {
            return Vec::new();
        }
        let single = self.changes();
        let alone: Vec<_> = single.iter().filter_map(|change| self.tried(&[*change])).collect();
        if !alone.is_empty() {
            return alone;
        }
        let small = [MemoryReduction::RecomputeAll, MemoryReduction::Budget(BUDGET_STEP)];
        let together: &[&[MemoryReduction]] = &[
            &small,
            &[small[0], small[1], MemoryReduction::NoReference],
            &[small[0], small[1], MemoryReduction::Adapter],
        ];
        let mut advice: Vec<_> =
            together.iter().find_map(|changes| self.tried(changes)).into_iter().collect();
        let gpus = single.iter().filter(|change| matches!(change, MemoryReduction::Gpus(_)));
        advice.extend(gpus.filter_map(|gpus| self.tried(&[small[0], small[1], *gpus])).take(1));
        advice
    }

    /// The changes to try one by one, with the smallest sufficient number of GPUs first.
    fn changes(&self) -> Vec<MemoryReduction> {
        let mut changes = vec![MemoryReduction::RecomputeAll];
        if self.total_workload.budget > BUDGET_STEP {
            changes.push(MemoryReduction::Budget(BUDGET_STEP));
        }
        if let Placement::Gpus(ranks) = self.placement {
            let doubled = |ranks: &usize| Some(ranks * 2).filter(|ranks| *ranks <= MAX_GPUS);
            let more =
                std::iter::successors(doubled(&ranks.max(1)), doubled).map(MemoryReduction::Gpus);
            let enough = more.clone().find(|gpus| self.tried(&[*gpus]).is_some());
            match enough {
                Some(gpus) => changes.push(gpus),
                None => changes.extend(more),
            }
        }
        if self.total_workload.reference > 0 {
            changes.push(MemoryReduction::NoReference);
        }
        if self.total_workload.trainable == self.total_workload.parameters {
            changes.push(MemoryReduction::Adapter);
        }
        changes
    }

    fn tried(&self, changes: &[MemoryReduction]) -> Option<Advice> {
        let changed = changes.iter().fold(*self, |run, change| run.changed(*change));
        let total = changed.memory().total();
        (total <= self.usable).then(|| Advice { changes: changes.to_vec(), total })
    }

    fn changed(self, change: MemoryReduction) -> Self {
        let total_workload = self.total_workload;
        match change {
            MemoryReduction::RecomputeAll => Self { recompute: Recompute::All, ..self },
            MemoryReduction::Budget(budget) => {
                Self { total_workload: Workload { budget, ..total_workload }, ..self }
            }
            MemoryReduction::NoReference => {
                Self { total_workload: Workload { reference: 0, ..total_workload }, ..self }
            }
            MemoryReduction::Adapter => {
                let ParameterCounts { trainable, total: parameters } = self.lora_counts;
                Self {
                    total_workload: Workload {
                        parameters,
                        trainable,
                        reference: 0,
                        ..total_workload
                    },
                    ..self
                }
            }
            MemoryReduction::Gpus(ranks) => Self { placement: Placement::Gpus(ranks), ..self },
        }
    }
}

#[cfg(test)]
mod tests;
