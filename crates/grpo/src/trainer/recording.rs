//! What a run records of its steps: metrics, warnings, skipped steps and checkpoints.

use std::time::Instant;

use super::{StepOutput, Trainer};
use crate::checkpoint;
use crate::checkpoint::finite::non_finite;
use crate::error::{Error, Result};
use crate::events::{BYTES_SENT, Event, now_s};
use crate::non_finite::Diagnosis;

/// Updates the state after a step and reports it.
pub(super) fn record_step<'a, T: Trainer<'a>>(
    trainer: &mut T,
    output: StepOutput,
    began: Instant,
    done_before: u64,
) -> Result<()> {
    let StepOutput { rollouts, mut metrics, ranks, skipped, tokens } = output;
    let run = trainer.run_mut();
    run.checkpoints.keep_lock()?;
    run.state.step += 1;
    run.state.num_tokens += tokens;
    run.state.optimizer_steps = run.updater.optimizer.steps();
    run.state.count_skipped(skipped.is_some());
    let step = run.state.step;
    let per_step = began.elapsed().as_secs_f64() / (step - done_before) as f64;
    metrics.insert("num_tokens".into(), run.state.num_tokens as f64);
    metrics.insert("skipped_steps".into(), run.state.skipped_steps as f64);
    metrics.insert("time_left_s".into(), per_step * (run.plan.total_steps - step) as f64);
    if run.process_group.world_size() > 1 {
        let before = std::mem::replace(&mut run.bytes_sent, run.process_group.bytes_sent());
        metrics.insert(BYTES_SENT.into(), (run.bytes_sent - before) as f64);
    }
    // All ranks base their decisions on the metrics of rank 0.
    let metrics = run.process_group.broadcast(metrics)?;
    let warnings = trainer.observe(&rollouts, &metrics);
    let epoch = trainer.epoch(step);
    let run = trainer.run_mut();
    let (events, checkpoints, output) =
        (&mut run.events, &run.checkpoints, &run.plan.settings.output);
    let report = || {
        if let Some(diagnosis) = &skipped {
            events.emit(&Event::skipped(step, output, diagnosis))?;
        }
        events.emit(&Event::Step { step, epoch, time_s: now_s(), ranks, metrics })?;
        if !rollouts.is_empty() {
            // A write by path would make the folder anew if it was moved during the step.
            checkpoints.keep_lock()?;
            events.completions(step, &rollouts)?;
        }
        warnings.iter().try_for_each(|warning| events.emit(warning))
    };
    // Reporting needs no weights, so it overlaps with their all-gather.
    run.updater.optimizer.all_gather_weights(&run.model, report)??;
    match skipped {
        Some(diagnosis) => go_on_after_skip(trainer, diagnosis),
        None => Ok(()),
    }
}

/// Aborts the run after too many skipped steps, or if the model is not finite, since no further step can be taken then.
/// A finite model is saved first.
fn go_on_after_skip<'a, T: Trainer<'a>>(
    trainer: &mut T,
    mut diagnosis: Box<Diagnosis>,
) -> Result<()> {
    let run = trainer.run_mut();
    let found = non_finite(&run.model, &run.plan.probe, &run.process_group)?;
    if found.is_none() && run.state.skipped_in_a_row < run.plan.settings.max_skipped_steps {
        return Ok(());
    }
    // A resumed run restarts the count.
    let steps = std::mem::take(&mut run.state.skipped_in_a_row);
    if found.is_none() {
        save(trainer)?;
    }
    diagnosis.model = found;
    diagnosis.checkpoint = trainer.run().checkpoints.last_path();
    Err(Error::NotFinite { steps, diagnosis })
}

/// Writes a checkpoint, unless the model is not finite, which ends the run.
pub(super) fn save<'a, T: Trainer<'a>>(trainer: &mut T) -> Result<()> {
    let run = trainer.run();
    run.check_finite()?;
    run.process_group.enter("checkpoint");
    trainer.begin_save()?;
    let run = trainer.run_mut();
    let optimizer = &run.updater.optimizer;
    let step = run.state.step;
    run.state.optimizer_steps = optimizer.steps();
    run.state.optimizer_files = optimizer.files();
    run.events.emit(&Event::Checkpoint { step, folder: checkpoint::name(step) })?;
    run.events.mark(&mut run.state)?;
    let (text, settings) = (run.tokenizer.as_ref(), run.settings_text);
    run.checkpoints.save(&run.model, text, optimizer, &run.state, settings).map(|_| ())
}
