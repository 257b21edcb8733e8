//! The frozen reference in a run: who needs it, and how it follows the policy.

use std::sync::Arc;

use embodied_r_kernels::memory::blend;
use embodied_r_rewards::{Judge, Schedule as Stages};

use super::{Job, Trainer};
use crate::error::{Error, Result};
use crate::judge::{Reference, ReferenceJudge};
use crate::model::{Model, Text};
use crate::scoring::needs_judge;
use crate::settings::JudgeKind;
use crate::team::Team;

/// The reference is loaded only where something uses it: the divergence, or the judge.
pub(super) fn needs_reference(job: &Job<'_>) -> Result<bool> {
    let stages: Stages = job.settings.stages().map_err(Error::Settings)?;
    let judges = job.settings.judge == JudgeKind::Reference && job.judge.is_none();
    Ok(job.settings.beta > 0.0 || (judges && needs_judge(&stages)))
}

/// The reference as the judge.
pub(super) fn in_process<M: Model + 'static>(
    reference: Option<&Arc<Reference<M>>>,
    text: &Arc<dyn Text>,
    team: &Team,
) -> Option<Box<dyn Judge>> {
    let reference = Arc::clone(reference?);
    Some(Box::new(ReferenceJudge::new(reference, Arc::clone(text), team.clone())))
}

impl<M: Model + 'static> Trainer<'_, M> {
    /// Moves the reference towards the policy after every `ref_model_sync_steps` steps, as TRL's
    /// `SyncRefModelCallback` does.
    pub(super) fn sync_reference(&mut self) -> Result<()> {
        let settings = self.settings;
        let due = self.state.step.is_multiple_of(settings.ref_model_sync_steps);
        let (true, true, Some(reference)) = (settings.sync_ref_model, due, &self.reference) else {
            return Ok(());
        };
        let model = reference.get();
        for ((_, to), (_, from)) in model.parameters().iter().zip(&self.policy.parameters()) {
            blend(to, from, settings.ref_model_mixup_alpha)?;
        }
        self.reference_moved = true;
        Ok(())
    }

    /// Writes the reference beside the checkpoint to come, if it has moved since the last one.
    pub(super) fn save_reference(&mut self) -> Result<()> {
        if let (true, Some(reference)) = (self.reference_moved, &self.reference) {
            let name = self.checkpoints.save_reference(&*reference.get(), self.state.step)?;
            self.state.reference = Some(name);
            self.reference_moved = false;
        }
        Ok(())
    }
}
