//! What is written down of a step that had to be left out, and what is known of why.

use serde_json::Value;

use super::Trainer;
use super::step::MicroBatch;
use crate::error::Result;
use crate::model::Model;
use crate::rollout::{self, Rollout};
use crate::skipped::{self, Diagnosis, DumpedCompletion, dumped_group};

impl<M: Model> Trainer<'_, M> {
    /// Writes the micro-batches of step `step` (from 0) down, and tells what was not finite in them.
    pub(super) fn left_out(
        &self,
        step: u64,
        rollouts: &[Rollout],
        batches: &[MicroBatch],
    ) -> Result<Diagnosis> {
        let groups: Vec<Value> = batches.iter().flat_map(groups).collect();
        let finite = |values: &[f64]| values.iter().all(|value| value.is_finite());
        Ok(Diagnosis {
            found: self.updater.found().clone(),
            rewards: rollout::rewards(rollouts).flatten().any(|reward| !reward.is_finite()),
            reference: !batches.iter().all(|batch| finite(&batch.reference)),
            learning_rate: self.plan.learning_rate(step, 0),
            grad_norms: self.updater.norms(),
            dump: Some(skipped::dump(&self.settings.output, step, &groups)?),
            ..Diagnosis::default()
        })
    }
}

fn groups(batch: &MicroBatch) -> Vec<Value> {
    let mut completions = batch.completions();
    let mut start = 0;
    let mut group_of = |group: &crate::model::Group| {
        let dumped = group.completions.iter().zip(&mut completions);
        let dumped = dumped.map(|(ids, (length, advantage))| {
            let tokens = start..start + length;
            start += length;
            DumpedCompletion {
                ids,
                advantage,
                old: batch.old.get(tokens.clone()),
                reference: batch.reference.get(tokens),
            }
        });
        dumped_group(&group.prompt, dumped)
    };
    batch.groups.iter().map(&mut group_of).collect()
}
