use proptest::prelude::*;

use super::*;

fn from_toml(text: &str) -> Result<RewardSchedule, ValidationErrors> {
    let table: toml::Table = text.parse().unwrap();
    RewardSchedule::from_toml(&table["stage"], &RewardNames::new(["style"]))
}

fn errors(text: &str) -> Vec<String> {
    from_toml(text).unwrap_err().0
}

const PAPER: &str = "
    [[stage]]
    epochs = 2
    weights = { format = 0.7, accuracy = 0.3, consistency = 0.0 }
    [[stage]]
    epochs = 2
    weights = { format = 0.3, accuracy = 0.7, consistency = 0.0 }
    [[stage]]
    epochs = 8
    weights = { format = 0.1, accuracy = 0.7, consistency = 0.2 }
";

#[test]
fn the_default_is_the_papers_three_stages() {
    assert_eq!(from_toml(PAPER).unwrap(), RewardSchedule::default());
}

#[test]
fn a_reward_missing_from_the_weights_has_weight_zero() {
    let schedule = from_toml("[[stage]]\nepochs = 1\nweights = { accuracy = 1 }").unwrap();
    assert_eq!(schedule.stages()[0].weight("format"), 0.0);
}

#[test]
fn a_stage_has_a_length_an_exit_condition_and_blend_steps() {
    let schedule = from_toml(
        "[[stage]]\nsteps = 60\nweights = { format = 1 }\n\
         until = { metric = 'rewards/format/mean', above = 0.95, window = 50 }\n\
         [[stage]]\nepochs = 0.5\nweights = { accuracy = 1 }\nblend_steps = 10\n\
         until = { metric = 'completions/clipped_ratio', below = 0, window = 1 }\n\
         [[stage]]\nepochs = 1\nweights = { accuracy = 1 }",
    )
    .unwrap();
    let [first, second, _] = schedule.stages() else { panic!("three stages") };
    assert_eq!((first.length, second.length), (StageLength::Steps(60), StageLength::Epochs(0.5)));
    assert_eq!((first.blend_steps, second.blend_steps), (0, 10));
    let until = |metric: &str, threshold, window| {
        Some(ExitCondition { metric: metric.into(), threshold, window })
    };
    assert_eq!(first.until, until("rewards/format/mean", Threshold::Above(0.95), 50));
    assert_eq!(second.until, until("completions/clipped_ratio", Threshold::Below(0.0), 1));
}

#[test]
fn a_threshold_is_passed_by_the_mean_of_a_full_window_only() {
    let until = |threshold| ExitCondition { metric: "reward".into(), threshold, window: 3 };
    let above = until(Threshold::Above(0.5));
    assert_eq!(above.passed(&[0.9, 0.9]), None, "too few");
    assert_eq!(above.passed(&[0.25, 0.5, 0.75]), None, "at the threshold, not above it");
    assert_eq!(above.passed(&[0.0, 0.5, 0.5, 1.25]), Some(0.75), "only the last three count");
    assert_eq!(until(Threshold::Below(0.5)).passed(&[9.0, 0.25, 0.25, 0.25]), Some(0.25));
}

#[test]
fn blended_weights_are_linearly_interpolated_between_two_stages() {
    let weights = |list: &[(&str, f64)]| -> Weights {
        list.iter().map(|(name, weight)| ((*name).to_owned(), *weight)).collect()
    };
    let from = weights(&[("format", 1.0), ("accuracy", 0.5)]);
    let to = weights(&[("accuracy", 0.5), ("consistency", 0.5)]);
    assert_eq!(
        blend(&from, &to, 0.25),
        weights(&[("format", 0.75), ("accuracy", 0.5), ("consistency", 0.125)])
    );
    assert_eq!(blend(&from, &to, 0.0)["format"], 1.0);
    assert_eq!(blend(&from, &to, 1.0)["consistency"], 0.5);
}

#[test]
fn flags_are_off_unless_set() {
    let schedule = from_toml(
        "[[stage]]\nepochs = 0.5\nweights = { format = 1 }\n\
         [[stage]]\nepochs = 1\nweights = { format = 1 }\nrestart_schedule = true\nreset_reference = true",
    )
    .unwrap();
    let flags =
        schedule.stages().iter().map(|stage| (stage.restart_schedule, stage.reset_reference));
    assert_eq!(flags.collect::<Vec<_>>(), [(false, false), (true, true)]);
}

#[test]
fn all_errors_are_reported_at_once() {
    let found = errors(
        "[[stage]]\nepochs = 0\nepoch = 1\nweights = { acuracy = 1.0, format = -1, look = 2 }\n\
         [[stage]]\nweights = { format = 'much', accuracy = 0.0 }\nreset_reference = 1\n\
         [[stage]]\nepochs = nan\nweights = 3",
    );
    assert_eq!(
        found,
        [
            "`stage[0].epoch`: unknown field; did you mean `epochs`?",
            "`stage[0].epochs`: must be more than 0, not 0",
            "`stage[0].weights.acuracy`: unknown reward; did you mean `accuracy`?",
            "`stage[0].weights.format`: must be 0 or more, not -1",
            "`stage[0].weights.look`: unknown reward; available: accuracy, format, consistency, \
             soft_overlong, repetition, cosine, waypoint_distance, embodied_r15, style",
            "`stage[1]`: needs a length; set `epochs` or `steps`",
            "`stage[1].weights.format`: must be a number, not string",
            "`stage[1].weights`: at least one weight must be positive",
            "`stage[1].reset_reference`: must be true or false, not integer",
            "`stage[2].epochs`: must be more than 0, not NaN",
            "`stage[2].weights`: must be a table, not integer",
        ]
    );
}

#[test]
fn all_errors_of_lengths_thresholds_and_blending_are_reported_at_once() {
    let found = errors(
        "[[stage]]\nepochs = 1\nsteps = 2\nweights = { format = 1 }\nblend_steps = 3\n\
         until = { metric = 'rewards/fromat/mean', above = 1, below = 0, window = 0 }\n\
         [[stage]]\nsteps = 10\nweights = { format = 1 }\nblend_steps = 11\n\
         until = { metric = 'rewards/consistency/mean', window = 11, up = 1 }\n\
         [[stage]]\nsteps = 0\nweights = { format = 1 }\n\
         until = { metric = 'eval/accuracy', above = inf, window = -1 }\n\
         [[stage]]\nsteps = 1.5\nweights = { format = 1 }\nblend_steps = 'few'\n\
         until = { metric = 3, above = 'high' }",
    );
    let known = "`stage[2].until.metric`: `eval/accuracy` is not a step metric; available: reward, \
                 reward_std,";
    let (eval, found): (Vec<String>, Vec<String>) =
        found.into_iter().partition(|error| error.starts_with(known));
    assert_eq!(eval.len(), 1);
    assert_eq!(
        found,
        [
            "`stage[0]`: `epochs` and `steps` are mutually exclusive; set one",
            "`stage[0].until`: `above` and `below` are mutually exclusive; set one",
            "`stage[0].until.window`: must be 1 or more, not 0",
            "`stage[0].until.metric`: `rewards/fromat/mean` is not a step metric; did you mean \
             `rewards/format/mean`?",
            "`stage[0].blend_steps`: the first stage has no previous stage to blend from; remove it",
            "`stage[1].until.up`: unknown field; available: metric, above, below, window",
            "`stage[1].until`: needs a threshold; set `above` or `below`",
            "`stage[1].until.window`: is 11, more than the 10 steps of its stage",
            "`stage[1].until.metric`: needs the reward `consistency`, which has no weight in this \
             stage and may not be computed; give it a weight",
            "`stage[1].blend_steps`: is 11, more than the 10 steps of its stage",
            "`stage[2].steps`: must be 1 or more, not 0",
            "`stage[2].until.window`: must be a non-negative integer, not -1",
            "`stage[2].until`: the threshold must be finite",
            "`stage[3].steps`: must be a non-negative integer, not float",
            "`stage[3].until.metric`: must be a string, not integer",
            "`stage[3].until.above`: must be a number, not string",
            "`stage[3].until.window`: is missing",
            "`stage[3].until`: the last stage has no next stage; remove `until`",
            "`stage[3].blend_steps`: must be a non-negative integer, not string",
        ]
    );
}

#[test]
fn until_accepts_the_metrics_of_computed_rewards_only() {
    let with = |metric: &str, weights: &str| {
        from_toml(&format!(
            "[[stage]]\nsteps = 9\nweights = {{ {weights} }}\n\
             until = {{ metric = '{metric}', above = 0, window = 1 }}\n\
             [[stage]]\nsteps = 9\nweights = {{ format = 1 }}"
        ))
    };
    assert!(with("rewards/accuracy/mean", "format = 1").is_ok(), "it is always computed");
    assert!(with("rewards/style/std", "style = 1").is_ok());
    assert!(with("rewards/style/std", "style = 0, format = 1").is_err());
    assert!(STEP_METRICS.iter().all(|metric| with(metric, "format = 1").is_ok()));
}

#[test]
fn a_run_has_at_least_one_stage() {
    assert_eq!(errors("stage = []"), ["`stage`: there must be at least one"]);
    assert_eq!(errors("stage = 3"), ["`stage`: must be a list of tables, `[[stage]]`"]);
    assert!(RewardSchedule::new(Vec::new(), &RewardNames::default()).is_err());
}

#[test]
fn stages_built_in_code_are_validated_too() {
    let mut stages = RewardSchedule::default().stages().to_vec();
    stages[0].until = Some(ExitCondition {
        metric: "reword".into(),
        threshold: Threshold::Above(0.0),
        window: 0,
    });
    stages[1].length = StageLength::Epochs(-1.0);
    stages[2].weights.insert("style".to_owned(), 1.0);
    let errors = RewardSchedule::new(stages, &RewardNames::default()).unwrap_err().0;
    let paths = errors.iter().map(|error| error.split_once("`: ").unwrap().0);
    assert_eq!(
        paths.collect::<Vec<_>>(),
        [
            "`stage[0].until.window",
            "`stage[0].until.metric",
            "`stage[1].epochs",
            "`stage[2].weights.style"
        ]
    );
}

#[test]
fn a_schedule_round_trips_through_toml() {
    let mut stages = RewardSchedule::default().stages().to_vec();
    stages[0].until =
        Some(ExitCondition { metric: "kl".into(), threshold: Threshold::Below(0.5), window: 7 });
    stages[1].length = StageLength::Steps(9);
    stages[1].blend_steps = 4;
    let schedule = RewardSchedule::new(stages, &RewardNames::default()).unwrap();
    for schedule in [RewardSchedule::default(), schedule] {
        let mut table = toml::Table::new();
        table.insert("stage".to_owned(), toml::Value::try_from(&schedule).unwrap());
        assert_eq!(from_toml(&table.to_string()).unwrap(), schedule);
        // A run's settings are deserialized by type after validation.
        assert_eq!(table["stage"].clone().try_into::<Vec<Stage>>().unwrap(), schedule.stages());
    }
}

/// Valid and invalid values of a stage's fields.
fn value() -> impl Strategy<Value = toml::Value> {
    prop_oneof![
        prop::sample::select(vec![-1.0, 0.0, 0.5, f64::NAN, f64::INFINITY]).prop_map(Into::into),
        prop::sample::select(vec![-1_i64, 0, 2]).prop_map(Into::into),
        any::<bool>().prop_map(Into::into),
        Just("much".into()),
        prop::collection::btree_map(
            prop::sample::select(vec!["format", "accuracy", "consistency", "style"]),
            prop::sample::select(vec![-1.0, 0.0, 0.5, f64::NAN]),
            0..3,
        )
        .prop_map(|weights| toml::Table::from_iter(
            weights.into_iter().map(|(name, weight)| (name.to_owned(), weight.into()))
        )
        .into()),
        (prop::sample::select(vec!["reward", "reword"]), 0_i64..3).prop_map(|(metric, window)| {
            let fields =
                [("metric", metric.into()), ("above", 0.5.into()), ("window", window.into())];
            toml::Table::from_iter(fields.map(|(name, value)| (name.to_owned(), value))).into()
        }),
    ]
}

proptest! {
    #[test]
    fn parsed_stages_pass_validation_and_rejected_ones_have_errors(
        tables in prop::collection::vec(
            prop::collection::btree_map(
                prop::sample::select(vec![
                    "epochs", "steps", "weights", "until", "blend_steps", "restart_schedule", "epoch",
                ]),
                value(),
                0..5,
            ),
            0..3,
        )
    ) {
        let list: Vec<toml::Value> = tables
            .into_iter()
            .map(|table| toml::Table::from_iter(
                table.into_iter().map(|(name, value)| (name.to_owned(), value))
            ).into())
            .collect();
        let names = RewardNames::default();
        match RewardSchedule::from_toml(&list.into(), &names) {
            Ok(schedule) => {
                prop_assert_eq!(RewardSchedule::new(schedule.stages().to_vec(), &names), Ok(schedule));
            }
            Err(ValidationErrors(errors)) => prop_assert!(!errors.is_empty()),
        }
    }
}
