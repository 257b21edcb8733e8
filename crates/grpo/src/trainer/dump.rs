//! The dump and the diagnosis of a skipped step.

use super::GrpoTrainer;
use crate::batch_file::BatchFile;
use crate::error::Result;
use crate::micro_batch::MicroBatch;
use crate::model::Model;
use crate::rollout::{self, Rollout};
use crate::skipped::{self, Diagnosis};

impl<M: Model> GrpoTrainer<'_, M> {
    /// Dumps the micro-batches of the skipped step `step` (from 0) and diagnoses what was non-finite.
    pub(super) fn diagnose_skip(
        &self,
        step: u64,
        rollouts: &[Rollout],
        batches: &[MicroBatch],
    ) -> Result<Diagnosis> {
        let file = BatchFile::of(batches, self.settings.loss()).merge_ranks(&self.process_group)?;
        let finite = |values: &[f64]| values.iter().all(|value| value.is_finite());
        Ok(Diagnosis {
            found: self.updater.non_finite().clone(),
            rewards: rollout::rewards(rollouts).flatten().any(|reward| !reward.is_finite()),
            reference: self
                .process_group
                .any(!batches.iter().all(|batch| finite(&batch.reference)))?,
            learning_rate: self.plan.learning_rate(step, 0),
            grad_norms: self.updater.grad_norms(),
            dump: match self.process_group.is_rank_zero() {
                true => Some(skipped::dump(&self.settings.output, step, &file)?),
                false => None,
            },
            ..Diagnosis::default()
        })
    }
}
