//! The frozen reference model of a run: when it is needed, and how it is synced with the policy.

use std::collections::HashMap;
use std::sync::Arc;

use candle_core::Tensor;
use embodied_r_kernels::memory::lerp;
use embodied_r_rewards::Judge;

use super::{GrpoInputs, GrpoTrainer};
use crate::error::{Error, Result};
use crate::model::{ChatTokenizer, Model};
use crate::rewards::judge::{ReferenceJudge, ReferenceModel};
use crate::rewards::scoring::needs_judge;
use crate::settings::JudgeKind;
use embodied_r_dist::ProcessGroup;

/// The reference is loaded only if the KL term or the judge needs it.
pub(super) fn needs_reference(inputs: &GrpoInputs<'_>) -> bool {
    let judges = inputs.settings.judge.judge == JudgeKind::Reference && inputs.judge.is_none();
    inputs.settings.loss.beta > 0.0 || (judges && needs_judge(inputs.settings, &inputs.data.stages))
}

/// The reference as an in-process judge.
pub(super) fn in_process<M: Model + 'static>(
    reference: Option<&Arc<ReferenceModel<M>>>,
    tokenizer: &Arc<dyn ChatTokenizer>,
    process_group: &ProcessGroup,
) -> Option<Box<dyn Judge>> {
    let reference = Arc::clone(reference?);
    Some(Box::new(ReferenceJudge::new(reference, Arc::clone(tokenizer), process_group.clone())))
}

impl<M: Model + 'static> GrpoTrainer<'_, M> {
    /// Moves the reference towards the policy every `ref_model_sync_steps` steps, as TRL's `SyncRefModelCallback` does.
    pub(super) fn sync_reference(&mut self) -> Result<()> {
        let settings = self.settings;
        let due = self.run.state.step.is_multiple_of(settings.reference.ref_model_sync_steps);
        let (true, true, Some(reference)) =
            (settings.reference.sync_ref_model, due, &self.reference)
        else {
            return Ok(());
        };
        let model = reference.get();
        let own: HashMap<String, Tensor> = model.all_tensors().into_iter().collect();
        for (name, from) in self.run.model.parameters() {
            let missing = || Error::Model { what: format!("has a reference without `{name}`") };
            let to = own.get(&name).ok_or_else(missing)?;
            lerp(to, &from, settings.reference.ref_model_mixup_alpha)?;
        }
        model.parameters_changed();
        self.reference_moved = true;
        Ok(())
    }

    /// Saves the reference for the next checkpoint if it has changed since the last one.
    pub(super) fn save_reference(&mut self) -> Result<()> {
        if let (true, Some(reference)) = (self.reference_moved, &self.reference) {
            let name =
                self.run.checkpoints.save_reference(&*reference.get(), self.run.state.step)?;
            self.run.state.reference = Some(name);
            self.reference_moved = false;
        }
        Ok(())
    }
}
