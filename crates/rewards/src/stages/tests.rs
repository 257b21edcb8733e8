use proptest::prelude::*;

use super::*;

fn from_toml(text: &str) -> Result<Schedule, Faults> {
    let table: toml::Table = text.parse().unwrap();
    Schedule::from_toml(&table["stage"])
}

fn faults(text: &str) -> Vec<String> {
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
    assert_eq!(from_toml(PAPER).unwrap(), Schedule::default());
    assert_eq!(Schedule::default().epochs(), 12.0);
}

#[test]
fn a_stage_begins_where_the_one_before_ends() {
    let schedule = Schedule::default();
    let at = [0.0, 1.999, 2.0, 3.999, 4.0, 11.999].map(|epoch| schedule.index_at(epoch));
    assert_eq!(at, [0, 0, 1, 1, 2, 2]);
}

#[test]
fn past_the_end_the_last_stage_stays() {
    assert_eq!(Schedule::default().index_at(12.0), 2);
    assert_eq!(Schedule::default().index_at(f64::NAN), 2);
}

#[test]
fn a_reward_that_is_left_out_weighs_nothing() {
    let schedule = from_toml("[[stage]]\nepochs = 1\nweights = { accuracy = 1 }").unwrap();
    assert_eq!(schedule.stage_at(0.0).weight("format"), 0.0);
    assert_eq!(schedule.rewards(), ["accuracy"]);
}

#[test]
fn the_total_weighs_scores_and_passes_over_absent_ones() {
    let schedule = Schedule::default();
    let scores = [("format", Some(1.0)), ("accuracy", Some(0.5)), ("consistency", None)];
    assert!((schedule.stage_at(5.0).total(scores) - 0.45).abs() < 1e-12);
}

#[test]
fn switches_are_off_unless_set() {
    let schedule = from_toml(
        "[[stage]]\nepochs = 0.5\nweights = { format = 1 }\n\
         [[stage]]\nepochs = 1\nweights = { format = 1 }\nrestart_schedule = true\nreset_reference = true",
    )
    .unwrap();
    let switches =
        schedule.stages().iter().map(|stage| (stage.restart_schedule, stage.reset_reference));
    assert_eq!(switches.collect::<Vec<_>>(), [(false, false), (true, true)]);
}

#[test]
fn all_faults_are_named_at_once() {
    let found = faults(
        "[[stage]]\nepochs = 0\nepoch = 1\nweights = { acuracy = 1.0, format = -1, style = 2 }\n\
         [[stage]]\nweights = { format = 'much', accuracy = 0.0 }\nreset_reference = 1\n\
         [[stage]]\nepochs = nan\nweights = 3",
    );
    assert_eq!(
        found,
        [
            "`stage[0].epoch`: there is no such field; did you mean `epochs`?",
            "`stage[0].epochs`: must be more than 0, not 0",
            "`stage[0].weights.acuracy`: there is no such reward; did you mean `accuracy`?",
            "`stage[0].weights.format`: must be 0 or more, not -1",
            "`stage[0].weights.style`: there is no such reward; known are accuracy, format, consistency",
            "`stage[1].epochs`: is missing",
            "`stage[1].weights.format`: must be a number, not string",
            "`stage[1].weights`: some reward must weigh more than 0",
            "`stage[1].reset_reference`: must be true or false, not integer",
            "`stage[2].epochs`: must be more than 0, not NaN",
            "`stage[2].weights`: must be a table, not integer",
        ]
    );
}

#[test]
fn a_run_has_at_least_one_stage() {
    assert_eq!(faults("stage = []"), ["`stage`: there must be at least one"]);
    assert_eq!(faults("stage = 3"), ["`stage`: must be a list of tables, `[[stage]]`"]);
    assert!(Schedule::new(Vec::new()).is_err());
}

#[test]
fn stages_built_in_code_are_checked_alike() {
    let mut stages = Schedule::default().stages().to_vec();
    stages[1].epochs = -1.0;
    stages[2].weights.insert("style".to_owned(), 1.0);
    let faults = Schedule::new(stages).unwrap_err().0;
    assert_eq!(faults.len(), 2);
    assert!(faults[0].contains("stage[1].epochs"));
    assert!(faults[1].contains("stage[2].weights.style"));
}

#[test]
fn a_schedule_is_written_in_the_form_it_is_read_in() {
    let mut table = toml::Table::new();
    table.insert("stage".to_owned(), toml::Value::try_from(Schedule::default()).unwrap());
    assert_eq!(from_toml(&table.to_string()).unwrap(), Schedule::default());
}

/// Values that a field of a stage may hold by right or by mistake.
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
    ]
}

proptest! {
    #[test]
    fn what_is_read_passes_the_check_of_stages_built_in_code_and_the_rest_has_faults(
        tables in prop::collection::vec(
            prop::collection::btree_map(
                prop::sample::select(vec!["epochs", "weights", "restart_schedule", "epoch"]),
                value(),
                0..4,
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
        match Schedule::from_toml(&list.into()) {
            Ok(schedule) => {
                prop_assert_eq!(Schedule::new(schedule.stages().to_vec()), Ok(schedule));
            }
            Err(Faults(faults)) => prop_assert!(!faults.is_empty()),
        }
    }
}
