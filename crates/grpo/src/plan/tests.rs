use embodied_r_rewards::Names;
use embodied_r_rewards::stages::{Mark, Until};

use super::*;

fn train() -> Train {
    Train { learning_rate: 1.0, warmup_ratio: 0.0, ..Train::default() }
}

fn plan(change: impl FnOnce(&mut Train), stages: &Stages) -> Plan {
    let mut settings = train();
    change(&mut settings);
    Plan::new(&settings, stages, 10).unwrap()
}

/// The paper's stages, 20, 20 and 80 steps long, after a change.
fn changed(change: impl FnOnce(&mut [Stage])) -> Stages {
    let mut stages = Stages::default().stages().to_vec();
    change(&mut stages);
    Stages::new(stages, &Names::default()).unwrap()
}

fn restarting() -> Stages {
    changed(|stages| stages[1].restart_schedule = true)
}

fn bounds(plan: &Plan) -> Vec<(u64, u64)> {
    plan.spans.iter().map(|span| (span.first, span.end)).collect()
}

fn faults(settings: &Train, stages: &Stages) -> Vec<String> {
    let faults = Plan::new(settings, stages, 10).unwrap_err();
    faults.iter().map(ToString::to_string).collect()
}

#[test]
fn stages_follow_each_other_in_steps() {
    let plan = plan(|_| {}, &Stages::default());
    assert_eq!(plan.total_steps, 120);
    assert_eq!([0, 19, 20, 39, 40, 119].map(|step| plan.stage_at(step)), [0, 0, 1, 1, 2, 2]);
}

#[test]
fn epochs_and_steps_stand_beside_each_other() {
    let stages = changed(|stages| stages[1].length = Length::Steps(7));
    let plan = plan(|_| {}, &stages);
    assert_eq!(bounds(&plan), [(0, 20), (20, 27), (27, 107)]);
    assert_eq!(plan.total_steps, 107);
}

#[test]
fn by_default_the_learning_rate_goes_on_over_the_stages() {
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
    let plan = plan(|train| train.num_iterations = 2, &Stages::default());
    assert!((plan.learning_rate(60, 0) - 0.5).abs() < 1e-12);
    assert!(plan.learning_rate(60, 1) < plan.learning_rate(60, 0));
}

#[test]
fn max_steps_may_cut_the_last_stage_short() {
    let plan = plan(|train| train.max_steps = Some(45), &Stages::default());
    assert_eq!(plan.total_steps, 45);
    assert_eq!(bounds(&plan), [(0, 20), (20, 40), (40, 45)]);
}

#[test]
fn every_stage_that_never_comes_is_refused() {
    let stage = Stages::default().stages().to_vec();
    let settings = Train { max_steps: Some(20), stage, ..train() };
    let advice = "raise `max_steps`, shorten the stages before it, or remove it";
    assert_eq!(
        faults(&settings, &Stages::default()),
        [
            format!(
                "`stage[1]` never comes: it would begin after step 20, and `max_steps` ends the \
                 run after step 20; {advice}"
            ),
            format!(
                "`stage[2]` never comes: it would begin after step 40, and `max_steps` ends the \
                 run after step 20; {advice}"
            ),
        ]
    );
}

#[test]
fn who_gave_no_stages_is_told_what_else_to_give() {
    let settings = Train { max_steps: Some(20), ..train() };
    let told = faults(&settings, &Stages::default());
    let advice = "raise `max_steps`, or give `reward_weights` or stages in place of the paper's";
    assert!(told.iter().all(|fault| fault.ends_with(advice)), "{told:?}");
}

#[test]
fn what_is_longer_than_its_stage_is_refused_once_the_steps_of_an_epoch_are_known() {
    let stages = changed(|stages| {
        stages[0].until =
            Some(Until { metric: "reward".into(), mark: Mark::Above(0.5), window: 21 });
        stages[1].length = Length::Epochs(0.01);
        stages[2].blend_steps = 81;
    });
    assert_eq!(
        faults(&train(), &stages),
        [
            "`stage[0].until.window` is 21, more than the 20 steps of its stage",
            "`stage[1].epochs` is 0.01, less than one step where an epoch has 10",
            "`stage[2].blend_steps` is 81, more than the 80 steps of its stage",
        ]
    );
}

#[test]
fn a_stage_that_ends_early_makes_the_later_ones_begin_earlier_and_the_last_one_longer() {
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
fn a_resumed_plan_is_the_plan_that_never_stopped() {
    let mut whole = plan(|_| {}, &restarting());
    let begins = [0, 12, 30];
    begins.iter().enumerate().for_each(|(index, &first)| whole.begin(index, first));
    let mut resumed = plan(|_| {}, &restarting());
    resumed.resume(&begins);
    assert_eq!(resumed, whole);
    assert_eq!(bounds(&resumed), [(0, 12), (12, 30), (30, 120)]);
}

fn format(plan: &Plan, step: u64) -> f64 {
    plan.weights(step)["format"]
}

#[test]
fn weights_go_over_in_a_straight_line_in_the_first_steps_of_a_stage() {
    let plan = plan(|_| {}, &changed(|stages| stages[1].blend_steps = 3));
    let found = [18, 19, 20, 21, 22, 23, 39].map(|step| format(&plan, step));
    for (found, expected) in found.into_iter().zip([0.7, 0.7, 0.6, 0.5, 0.4, 0.3, 0.3]) {
        assert!((found - expected).abs() < 1e-12, "{found}, not {expected}");
    }
    assert_eq!(format(&plan, 40), 0.1, "a stage without `blend_steps` begins at once");
}

#[test]
fn a_reward_that_comes_or_goes_is_blended_from_or_to_nothing() {
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
fn a_stage_that_ends_within_its_transition_hands_on_what_it_came_to() {
    let stages = changed(|stages| {
        stages[1].blend_steps = 3;
        stages[2].blend_steps = 1;
    });
    let mut plan = plan(|_| {}, &stages);
    plan.begin(1, 20);
    // After two of three steps: format has come to 0.5, and goes over to 0.1.
    plan.begin(2, 22);
    assert!((format(&plan, 21) - 0.5).abs() < 1e-12);
    assert!((format(&plan, 22) - 0.3).abs() < 1e-12);
    assert_eq!(format(&plan, 23), 0.1);
}
