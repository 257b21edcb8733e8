//! Transitions between stages.

use super::GrpoTrainer;
use crate::error::Result;
use crate::events::{Event, Metrics, StageTrigger};
use crate::model::Model;

impl<M: Model + 'static> GrpoTrainer<'_, M> {
    /// Starts the next step's stage if it is due: the previous stage has reached its length or its `until` condition.
    pub(super) fn begin_stage(&mut self) -> Result<()> {
        let step = self.run.state.step;
        let planned = self.plan.stage_at(step);
        let (index, because) = match self.run.state.stage_begins.len() {
            0 => (planned, StageTrigger::Start),
            begun if begun <= planned => (planned, StageTrigger::Length),
            begun => match self.ends_early(begun - 1) {
                Some(because) => (begun, because),
                None => return Ok(()),
            },
        };
        while self.run.state.stage_begins.len() <= index {
            self.plan.begin(self.run.state.stage_begins.len(), step);
            self.run.state.stage_begins.push(step);
        }
        self.run.state.until_values.clear();
        let stage = self.plan.spans[index].stage.clone();
        // The first stage starts with a fresh optimizer and reference anyway.
        if index > 0 && stage.restart_schedule {
            self.run.updater.optimizer.restart(&self.run.model)?;
        }
        if let (true, true, Some(reference)) = (index > 0, stage.reset_reference, &self.reference) {
            self.run.check_finite()?;
            self.run.state.reference =
                Some(self.run.checkpoints.save_reference(&self.run.model, step)?);
            reference.replace(self.run.model.frozen_copy()?);
            self.run.state.watch.reference_changed();
        }
        let weights = self.rewards.iter().map(|function| function.reward.name().to_owned());
        let weights = weights.map(|name| (name.clone(), stage.weight(&name))).collect();
        self.run.events.emit(&Event::Stage {
            step,
            stage: index,
            because,
            weights,
            blend_steps: stage.blend_steps,
            restart_schedule: stage.restart_schedule,
            reset_reference: stage.reset_reference,
        })
    }

    /// Records the metric of the running stage's `until` condition.
    pub(super) fn watch_stage(&mut self, metrics: &Metrics) {
        let running = self.run.state.stage_begins.len().checked_sub(1);
        let span = running.and_then(|index| self.plan.spans.get(index));
        let Some(until) = span.and_then(|span| span.stage.until.as_ref()) else { return };
        let values = &mut self.run.state.until_values;
        values.extend(metrics.get(&until.metric));
        let too_many = values.len().saturating_sub(until.window as usize);
        values.drain(..too_many);
    }

    /// The trigger that ends stage `index` before its length is reached.
    fn ends_early(&self, index: usize) -> Option<StageTrigger> {
        self.plan.spans.get(index + 1)?;
        let until = self.plan.spans[index].stage.until.as_ref()?;
        let mean = until.passed(&self.run.state.until_values)?;
        Some(StageTrigger::Until {
            metric: until.metric.clone(),
            mean,
            window: until.window,
            mark: until.threshold.to_string(),
        })
    }
}
