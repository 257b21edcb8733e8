use super::*;

#[test]
fn a_run_that_learns_nothing_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Train { stage: vec![stage(3.0, 0.5, 0.5)], ..settings(dir.path()) };
    // It never ends its turn, so that all of its completions are cut off.
    run_from(Bigram::endless(6), &settings, None).unwrap();
    let warnings = of_kind(&events(dir.path()), "warning");
    let told = |concern: &str| warnings.iter().find(|warning| warning["concern"] == concern);
    let truncation = told("truncation").unwrap();
    assert_eq!(truncation["step"], 10);
    let message = truncation["message"].as_str().unwrap();
    assert!(message.starts_with("100 % of the completions of the last 10 steps"), "{message}");
    let format = told("no_format").unwrap()["message"].as_str().unwrap();
    assert!(format.contains("100 % of them are cut off"), "{format}");
    assert!(format.contains("% of the last ones `"), "the reason that the reward gives: {format}");
}

#[test]
fn a_loss_of_nearly_0_is_explained_at_the_first_step() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Train { beta: 0.0, ..settings(dir.path()) };
    run_from(Bigram::thinking(6), &settings, None).unwrap();
    let warnings = of_kind(&events(dir.path()), "warning");
    let found: Vec<_> = warnings.iter().map(|warning| warning["concern"].clone()).collect();
    assert_eq!(found, ["loss_near_zero"]);
}
