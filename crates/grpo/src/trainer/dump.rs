//! What is written down of a step that had to be left out, and what is known of why.

use super::Trainer;
use crate::batch_file::BatchFile;
use crate::error::Result;
use crate::micro_batch::MicroBatch;
use crate::model::Model;
use crate::rollout::{self, Rollout};
use crate::skipped::{self, Diagnosis};

impl<M: Model> Trainer<'_, M> {
    /// Writes the micro-batches of step `step` (from 0) down, and tells what was not finite in them.
    pub(super) fn left_out(
        &self,
        step: u64,
        rollouts: &[Rollout],
        batches: &[MicroBatch],
    ) -> Result<Diagnosis> {
        let file = BatchFile::of(batches, self.settings.loss()).of_all(&self.team)?;
        let finite = |values: &[f64]| values.iter().all(|value| value.is_finite());
        Ok(Diagnosis {
            found: self.updater.found().clone(),
            rewards: rollout::rewards(rollouts).flatten().any(|reward| !reward.is_finite()),
            reference: self.team.any(!batches.iter().all(|batch| finite(&batch.reference)))?,
            learning_rate: self.plan.learning_rate(step, 0),
            grad_norms: self.updater.norms(),
            dump: match self.team.is_first() {
                true => Some(skipped::dump(&self.settings.output, step, &file)?),
                false => None,
            },
            ..Diagnosis::default()
        })
    }
}
