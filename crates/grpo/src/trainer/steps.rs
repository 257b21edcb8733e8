//! The loop over steps, evaluations and checkpoints.

use std::time::Instant;

use super::recording::{record_step, save};
use super::{RunOutcome, Trainer};
use crate::error::Result;
use crate::events::{Event, now_s};

/// Trains until all steps are done or the user requests a stop; either way a final checkpoint is written.
///
/// # Errors
/// Any part fails; the last checkpoint remains usable.
pub(crate) fn train<'a, T: Trainer<'a>>(mut trainer: T) -> Result<RunOutcome> {
    let checkpoints = trainer.run().checkpoints.clone();
    // A folder that is moved during the run causes errors of all kinds.
    train_steps(&mut trainer).map_err(|error| checkpoints.keep_lock().err().unwrap_or(error))
}

fn train_steps<'a, T: Trainer<'a>>(trainer: &mut T) -> Result<RunOutcome> {
    let run = trainer.run_mut();
    let (done, total) = (run.state.step, run.plan.total_steps);
    run.events.emit(&Event::Start { steps: total, done })?;
    if run.other_data {
        run.events.emit(&Event::other_data(done))?;
    }
    // A resumed run has these events already.
    if done == 0 {
        trainer.begin_run()?;
    }
    let began = Instant::now();
    let mut saved = (done > 0).then_some(done);
    if evaluate_if_due(trainer)? {
        save(trainer)?;
        saved = Some(done);
    }
    while trainer.run().state.step < total {
        trainer.begin_step()?;
        let Some(output) = trainer.step(trainer.run().state.step)? else { break };
        record_step(trainer, output, began, done)?;
        trainer.end_step()?;
        let best = evaluate_if_due(trainer)?;
        if best || trainer.run().save_is_due() {
            save(trainer)?;
            saved = Some(trainer.run().state.step);
        }
        if trainer.run().stopping()? {
            break;
        }
    }
    let step = trainer.run().state.step;
    if saved != Some(step) {
        save(trainer)?;
    }
    let run = trainer.run_mut();
    if step < total {
        return Ok(RunOutcome::Stopped(run.checkpoints.path(step)));
    }
    run.check_finite()?;
    let folder = run.checkpoints.save_final(&run.model, run.tokenizer.as_ref())?;
    run.events.emit(&Event::End { step })?;
    Ok(RunOutcome::Finished(folder))
}

/// Evaluates if due; returns whether the result is the best so far.
fn evaluate_if_due<'a, T: Trainer<'a>>(trainer: &mut T) -> Result<bool> {
    let run = trainer.run();
    let step = run.state.step;
    let known = run.state.evaluated == Some(step);
    if !trainer.evaluation_is_due(step) || known || run.stopping()? {
        return Ok(false);
    }
    run.process_group.enter("evaluation");
    run.check_finite()?;
    let Some(mut metrics) = trainer.evaluate()? else { return Ok(false) };
    let run = trainer.run_mut();
    run.state.evaluated = Some(step);
    let value = metrics.get(&run.plan.best_by.metric).copied();
    let is_best = run.plan.best_by.update(&mut run.state.best, value, step);
    if let Some(best) = &trainer.run().state.best {
        trainer.add_best(best, &mut metrics);
    }
    let epoch = trainer.epoch(step);
    trainer.run_mut().events.emit(&Event::Eval { step, epoch, time_s: now_s(), metrics })?;
    // At step 0 the base model's folder already holds these weights.
    Ok(is_best && step > 0)
}
