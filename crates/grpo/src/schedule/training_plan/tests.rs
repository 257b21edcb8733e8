use embodied_r_rewards::RewardNames;
use embodied_r_rewards::stages::{ExitCondition, Threshold};

use super::*;
use crate::schedule::LrScheduler;

fn train() -> GrpoSettings {
    GrpoSettings::default().with(|s| {
        s.lr.learning_rate = 1.0;
        s.lr.warmup_ratio = 0.0;
    })
}

fn plan(change: impl FnOnce(&mut GrpoSettings), stages: &Stages) -> TrainingPlan {
    let mut settings = train();
    change(&mut settings);
    TrainingPlan::new(&settings, stages, 10).unwrap()
}

/// The paper's stages of 20, 20 and 80 steps, modified.
fn changed(change: impl FnOnce(&mut [Stage])) -> Stages {
    let mut stages = Stages::default().stages().to_vec();
    change(&mut stages);
    Stages::new(stages, &RewardNames::default()).unwrap()
}

fn restarting() -> Stages {
    changed(|stages| stages[1].restart_schedule = true)
}

fn bounds(plan: &TrainingPlan) -> Vec<(u64, u64)> {
    plan.spans.iter().map(|span| (span.first, span.end)).collect()
}

fn faults(settings: &GrpoSettings, stages: &Stages) -> Vec<String> {
    let faults = TrainingPlan::new(settings, stages, 10).unwrap_err();
    faults.iter().map(ToString::to_string).collect()
}

#[test]
fn stages_follow_each_other_in_steps() {
    let plan = plan(|_| {}, &Stages::default());
    assert_eq!(plan.total_steps, 120);
    assert_eq!([0, 19, 20, 39, 40, 119].map(|step| plan.stage_at(step)), [0, 0, 1, 1, 2, 2]);
}

#[test]
fn stage_lengths_in_epochs_and_steps_can_be_mixed() {
    let stages = changed(|stages| stages[1].length = StageLength::Steps(7));
    let plan = plan(|_| {}, &stages);
    assert_eq!(bounds(&plan), [(0, 20), (20, 27), (27, 107)]);
    assert_eq!(plan.total_steps, 107);
}

#[test]
fn by_default_the_learning_rate_schedule_spans_all_stages() {
    let plan = plan(|_| {}, &Stages::default());
    assert!(plan.learning_rate(19, 0) > plan.learning_rate(20, 0));
    assert!((plan.learning_rate(60, 0) - 0.5).abs() < 1e-12);
}

#[test]
fn a_stage_may_restart_the_learning_rate() {
    let plan = plan(|_| {}, &restarting());
    assert_eq!(plan.learning_rate(0, 0), 1.0);
    assert!(plan.learning_rate(19, 0) < 0.01);
    assert_eq!(plan.learning_rate(20, 0), 1.0);
    assert!((plan.learning_rate(70, 0) - 0.5).abs() < 1e-12, "half way from 20 to 120");
}

#[test]
fn every_iteration_is_a_step_of_the_schedule() {
    let plan = plan(|train| train.rollout.num_iterations = 2, &Stages::default());
    assert!((plan.learning_rate(60, 0) - 0.5).abs() < 1e-12);
    assert!(plan.learning_rate(60, 1) < plan.learning_rate(60, 0));
}

#[test]
fn every_mini_batch_is_a_step_of_the_schedule() {
    let plan = plan(
        |train| (train.rollout.num_iterations, train.rollout.num_mini_batches) = (2, 4),
        &Stages::default(),
    );
    assert!((plan.learning_rate(60, 0) - 0.5).abs() < 1e-12);
    assert!((plan.learning_rate(59, 7) - plan.learning_rate(60, 0)).abs() < 2e-3);
    let rates: Vec<f64> = (0..8).map(|index| plan.learning_rate(60, index)).collect();
    assert!(rates.is_sorted_by(|a, b| a > b), "{rates:?}");
}

#[test]
fn a_constant_learning_rate_has_warmup_only_by_name() {
    let rates = |kind: LrScheduler| {
        let warm = |train: &mut GrpoSettings| {
            (train.lr.lr_scheduler_type, train.lr.warmup_ratio) = (kind, 0.1);
        };
        let plan = plan(warm, &Stages::default());
        [0, 6, 12, 119].map(|step| plan.learning_rate(step, 0))
    };
    assert_eq!(rates(LrScheduler::Constant), [1.0; 4]);
    assert_eq!(rates(LrScheduler::ConstantWithWarmup), [0.0, 0.5, 1.0, 1.0]);
}

#[test]
fn max_steps_may_cut_the_last_stage_short() {
    let plan = plan(|train| train.stages.max_steps = Some(45), &Stages::default());
    assert_eq!(plan.total_steps, 45);
    assert_eq!(bounds(&plan), [(0, 20), (20, 40), (40, 45)]);
}

#[test]
fn every_stage_that_never_starts_is_refused() {
    let stage = Stages::default().stages().to_vec();
    let settings = train().with(|s| {
        s.stages.max_steps = Some(20);
        s.stages.stage = stage;
    });
    let advice = "raise `max_steps`, shorten the earlier stages, or remove it";
    assert_eq!(
        faults(&settings, &Stages::default()),
        [
            format!(
                "`stage[1]`: would start after step 20, but `max_steps` ends the \
                 run after step 20; {advice}"
            ),
            format!(
                "`stage[2]`: would start after step 40, but `max_steps` ends the \
                 run after step 20; {advice}"
            ),
        ]
    );
}

#[test]
fn without_stages_the_error_suggests_reward_weights() {
    let settings = train().with(|s| s.stages.max_steps = Some(20));
    let errors = faults(&settings, &Stages::default());
    let advice = "raise `max_steps`, or set `reward_weights` or stages to replace the paper's";
    assert!(errors.iter().all(|fault| fault.ends_with(advice)), "{errors:?}");
}

#[test]
fn windows_and_blends_longer_than_their_stage_are_refused() {
    let stages = changed(|stages| {
        stages[0].until = Some(ExitCondition {
            metric: "reward".into(),
            threshold: Threshold::Above(0.5),
            window: 21,
        });
        stages[1].length = StageLength::Epochs(0.01);
        stages[2].blend_steps = 81;
    });
    assert_eq!(
        faults(&train(), &stages),
        [
            "`stage[0].until.window`: is 21, more than the 20 steps of its stage",
            "`stage[1].epochs`: is 0.01, shorter than one step (an epoch has 10)",
            "`stage[2].blend_steps`: is 81, more than the 80 steps of its stage",
        ]
    );
}

#[test]
fn an_early_end_starts_later_stages_earlier_and_extends_the_last_one() {
    let mut plan = plan(|_| {}, &Stages::default());
    plan.begin(0, 0);
    plan.begin(1, 12);
    assert_eq!(bounds(&plan), [(0, 12), (12, 32), (32, 120)]);
    assert_eq!([11, 12, 31, 32].map(|step| plan.stage_at(step)), [0, 1, 1, 2]);
    assert_eq!(plan.total_steps, 120);
}

#[test]
fn an_early_end_moves_a_restart_of_the_learning_rate_and_nothing_else() {
    let (mut goes_on, mut restarts) =
        (plan(|_| {}, &Stages::default()), plan(|_| {}, &restarting()));
    let before = goes_on.learning_rate(60, 0);
    goes_on.begin(1, 12);
    restarts.begin(1, 12);
    assert_eq!(goes_on.learning_rate(60, 0), before);
    assert_eq!(restarts.learning_rate(12, 0), 1.0);
    assert!((restarts.learning_rate(66, 0) - 0.5).abs() < 1e-12, "half way from 12 to 120");
}

#[test]
fn a_resumed_plan_equals_the_uninterrupted_plan() {
    let mut whole = plan(|_| {}, &restarting());
    let begins = [0, 12, 30];
    begins.iter().enumerate().for_each(|(index, &first)| whole.begin(index, first));
    let mut resumed = plan(|_| {}, &restarting());
    resumed.resume(&begins);
    assert_eq!(resumed, whole);
    assert_eq!(bounds(&resumed), [(0, 12), (12, 30), (30, 120)]);
}

fn format(plan: &TrainingPlan, step: u64) -> f64 {
    plan.weights(step)["format"]
}

#[test]
fn weights_are_blended_linearly_in_the_first_steps_of_a_stage() {
    let plan = plan(|_| {}, &changed(|stages| stages[1].blend_steps = 3));
    let found = [18, 19, 20, 21, 22, 23, 39].map(|step| format(&plan, step));
    for (found, expected) in found.into_iter().zip([0.7, 0.7, 0.6, 0.5, 0.4, 0.3, 0.3]) {
        assert!((found - expected).abs() < 1e-12, "{found}, not {expected}");
    }
    assert_eq!(format(&plan, 40), 0.1, "a stage without `blend_steps` starts at once");
}

#[test]
fn an_added_or_removed_reward_is_blended_from_or_to_zero() {
    let stages = changed(|stages| {
        stages[2].blend_steps = 1;
        stages[1].weights.remove("consistency");
        stages[2].weights.remove("format");
    });
    let weights = plan(|_| {}, &stages).weights(40);
    assert!((weights["consistency"] - 0.1).abs() < 1e-12);
    assert!((weights["format"] - 0.15).abs() < 1e-12);
}

#[test]
fn a_stage_that_ends_while_blending_passes_on_the_weights_it_reached() {
    let stages = changed(|stages| {
        stages[1].blend_steps = 3;
        stages[2].blend_steps = 1;
    });
    let mut plan = plan(|_| {}, &stages);
    plan.begin(1, 20);
    // After two of three blending steps: format has reached 0.5 and is blended to 0.1.
    plan.begin(2, 22);
    assert!((format(&plan, 21) - 0.5).abs() < 1e-12);
    assert!((format(&plan, 22) - 0.3).abs() < 1e-12);
    assert_eq!(format(&plan, 23), 0.1);
}

#[test]
fn absurd_step_counts_are_faults() {
    let faults = |change: &dyn Fn(&mut GrpoSettings)| {
        let mut settings = GrpoSettings::default()
            .with(|s| s.stages.reward_weights = [("accuracy".to_owned(), 1.0)].into());
        change(&mut settings);
        let stages = settings.stages().unwrap();
        match TrainingPlan::new(&settings, &stages, 1000) {
            Ok(plan) => plan.total_steps.to_string(),
            Err(faults) => faults[0].key.clone(),
        }
    };
    assert_eq!(
        faults(&|settings| settings.stages.num_train_epochs = Some(1e300)),
        "num_train_epochs"
    );
    assert_eq!(
        faults(&|settings| {
            settings.stages.num_train_epochs = Some(1e300);
            settings.stages.max_steps = Some(7);
        }),
        "7"
    );
    assert_eq!(
        faults(&|settings| {
            settings.stages.num_train_epochs = Some(1e300);
            settings.stages.max_steps = Some(u64::MAX);
        }),
        "max_steps"
    );
    let long = |steps: u64| {
        let weights = [("accuracy".to_owned(), 1.0)];
        Stage::new(StageLength::Steps(steps), weights.into())
    };
    assert_eq!(
        faults(&|settings| {
            settings.stages.reward_weights.clear();
            settings.stages.stage = vec![long(u64::MAX - 1), long(u64::MAX - 1)];
        }),
        "stage"
    );
    assert_eq!(
        faults(&|settings| {
            settings.stages.max_steps = Some(1 << 39);
            settings.stages.num_train_epochs = Some(1e300);
            settings.rollout.num_iterations = 4;
        }),
        "max_steps"
    );
}
