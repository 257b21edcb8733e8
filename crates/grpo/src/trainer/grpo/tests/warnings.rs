use super::*;

#[test]
fn a_run_that_learns_nothing_is_warned_about() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path()).with(|s| s.stages.stage = vec![stage(3.0, 0.5, 0.5)]);
    // The model never stops, so all of its completions are truncated.
    run_from(Bigram::endless(6), &settings, None).unwrap();
    let warnings = of_kind(&events(dir.path()), "warning");
    let warning = |concern: &str| warnings.iter().find(|event| event["concern"] == concern);
    let truncation = warning("truncation").unwrap();
    assert_eq!(truncation["step"], 10);
    let message = truncation["message"].as_str().unwrap();
    assert!(message.starts_with("100 % of the completions of the last 10 steps"), "{message}");
    let format = warning("no_format").unwrap()["message"].as_str().unwrap();
    assert!(format.contains("100 % of them are truncated"), "{format}");
    assert!(
        format.contains(" steps: `") && format.contains("% of the last step's completions"),
        "the reason that the reward gives: {format}"
    );
}

#[test]
fn a_loss_near_0_is_explained_at_the_first_step() {
    let dir = tempfile::tempdir().unwrap();
    let settings = settings(dir.path()).with(|s| s.loss.beta = 0.0);
    run_from(Bigram::thinking(6), &settings, None).unwrap();
    let warnings = of_kind(&events(dir.path()), "warning");
    let found: Vec<_> = warnings.iter().map(|warning| warning["concern"].clone()).collect();
    assert_eq!(found, ["loss_near_zero"]);
}
