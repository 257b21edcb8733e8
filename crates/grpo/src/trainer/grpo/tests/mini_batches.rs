//! Several optimizer steps over the questions of a step.

use super::*;
use crate::loss::LossType;
use crate::schedule::LrScheduler;
use crate::update::micro_batch::{
    MicroBatch, TokenSelection, UpdateStats, loss_normalizers, to_f64,
};
use crate::update::optimizer::Optimizer;
use crate::update::{StepParams, Updater, score_all};

/// One step of four questions with four completions each, in `parts` mini-batches.
fn one_step(output: &Path, parts: usize) -> GrpoSettings {
    settings(output).with(|s| {
        s.rollout.generation_batch_size = 16;
        s.rollout.num_mini_batches = parts;
        s.loss.loss_type = LossType::Dapo;
        s.loss.beta = 0.0;
        s.lr.learning_rate = 0.3;
        s.lr.lr_scheduler_type = LrScheduler::Constant;
        s.stages.max_steps = Some(1);
        s.stages.stage = vec![stage(1.0, 0.5, 0.5)];
    })
}

/// The final weights, the step's event, and its completions.
fn trained(parts: usize) -> (Vec<f32>, serde_json::Value, Vec<Rollout>) {
    let dir = tempfile::tempdir().unwrap();
    let settings = one_step(dir.path(), parts);
    let keep = Keep::default();
    let sinks: Vec<Box<dyn Sink>> = vec![Box::new(keep.clone())];
    let outcome = run_with(Bigram::thinking(6), &settings, sinks).unwrap();
    let RunOutcome::Finished(folder) = outcome else { panic!("the run was not stopped") };
    let events = of_kind(&events(dir.path()), "step");
    let steps = keep.0.lock().unwrap().clone();
    (Bigram::read(&folder).unwrap().values(), events[0].clone(), steps[0].clone())
}

/// The same update by hand: the old log-probabilities of all completions, then an update on each question of four.
fn by_hand(rollouts: &[Rollout]) -> Vec<f32> {
    let dir = tempfile::tempdir().unwrap();
    let settings = one_step(dir.path(), 4);
    let (model, alone) = (Bigram::thinking(6), ProcessGroup::default());
    let mut updater = Updater::new(Optimizer::new(settings.optimizer, &model, &alone).unwrap());
    let batch = |rollout: &Rollout| MicroBatch {
        groups: [rollout.group(0..4)].into(),
        unmasked: vec![true; 4],
        advantages: rollout.completions.iter().map(|one| one.advantage).collect(),
        ..MicroBatch::default()
    };
    let mut batches: Vec<MicroBatch> = rollouts.iter().map(batch).collect();
    let old = score_all(&model, &batches, 1.0, &alone).unwrap();
    for (batch, old) in batches.iter_mut().zip(old) {
        batch.old = to_f64(&old.logps);
    }
    for batch in &batches {
        let only = std::slice::from_ref(batch);
        let normalizer = loss_normalizers(only, LossType::Dapo, 5, &alone).unwrap()[0];
        let params = StepParams { temperature: 1.0, learning_rate: 0.3, dropout_seed: 0 };
        let derivative = |_, scores: &_| {
            let mut totals = UpdateStats::default();
            let loss = settings.update_loss();
            batch.derivative(&loss, &normalizer, scores, TokenSelection::All, &mut totals)
        };
        let stop = AtomicBool::new(false);
        updater.run(&model, only, params, None, &stop, derivative).unwrap();
    }
    model.values()
}

#[test]
fn each_mini_batch_is_an_update_on_its_own_questions() {
    let (found, _, rollouts) = trained(4);
    assert_eq!(rollouts.len(), 4);
    let expected = by_hand(&rollouts);
    for (found, expected) in found.iter().zip(&expected) {
        assert!((found - expected).abs() < 1e-5, "{found} instead of {expected}");
    }
    assert_ne!(found, trained(1).0);
}

#[test]
fn only_the_first_mini_batch_is_on_policy() {
    let clipped = |parts| trained(parts).1["clip_ratio/region_mean"].as_f64().unwrap();
    assert_eq!(clipped(1), 0.0);
    let ratio = clipped(2);
    assert!(0.0 < ratio && ratio <= 0.5, "the mean over one without clips and one with: {ratio}");
}
