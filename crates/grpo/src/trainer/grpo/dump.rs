//! The dump and the diagnosis of a skipped step.

use super::GrpoTrainer;
use crate::error::Result;
use crate::inspect::batch_file::BatchFile;
use crate::model::Model;
use crate::non_finite::Diagnosis;
use crate::rollout::{self, Rollout};
use crate::update::micro_batch::MicroBatch;

impl<M: Model> GrpoTrainer<'_, M> {
    /// Dumps the micro-batches of the skipped step `step` (from 0) and diagnoses what was non-finite.
    pub(super) fn diagnose_skip(
        &self,
        step: u64,
        rollouts: &[Rollout],
        batches: &[MicroBatch],
    ) -> Result<Diagnosis> {
        let file = BatchFile::of(batches, self.settings.loss, self.run.images.as_deref())
            .merge_ranks(&self.run.process_group)?;
        let finite = |values: &[f64]| values.iter().all(|value| value.is_finite());
        Ok(Diagnosis {
            found: self.run.updater.non_finite().clone(),
            rewards: rollout::rewards(rollouts).flatten().any(|reward| !reward.is_finite()),
            reference: self
                .run
                .process_group
                .any(!batches.iter().all(|batch| finite(&batch.reference)))?,
            learning_rate: self.plan.learning_rate(step, 0),
            grad_norms: self.run.updater.grad_norms(),
            dump: self.run.dump(step, &file)?,
            ..Diagnosis::default()
        })
    }
}
