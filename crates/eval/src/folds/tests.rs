use serde_json::json;

use super::*;
use crate::predictions::{Prediction, PredictionOutput};
use crate::protocol::named;
use crate::{Protocol, SampledQuestion, score, score_samples};

/// A report on questions whose answer is B.
fn report(protocol: Protocol, answers: &[(&str, &str)]) -> Report {
    let predictions: Vec<Prediction> = answers
        .iter()
        .map(|(category, answer)| Prediction {
            id: "1".to_owned(),
            category: (*category).to_owned(),
            solution: "B".to_owned(),
            output: PredictionOutput::Answer((*answer).to_owned()),
            ..Prediction::default()
        })
        .collect();
    score(protocol, &predictions).unwrap()
}

const CAUSAL: &str = "Counterfactual";
const ROUTE: &str = "route_planning";

#[test]
fn means_are_over_folds_and_not_over_questions() {
    let one = report(named("embodied-r"), &[(CAUSAL, "B")]);
    let three = report(named("embodied-r"), &[(CAUSAL, "A"), (CAUSAL, "A"), (CAUSAL, "B")]);
    let folded = FoldedReport::new(vec![one, three]).unwrap();
    let third = 100.0 / 3.0;
    assert_eq!(folded.mean.n, 4);
    assert!((folded.mean.overall - (100.0 + third) / 2.0).abs() < 1e-9);
    // |a - b| / sqrt(2) for two values.
    assert!((folded.std.overall - (100.0 - third) / 2.0_f64.sqrt()).abs() < 1e-9);
}

#[test]
fn a_category_is_averaged_over_the_folds_that_have_it() {
    let folded = FoldedReport::new(vec![
        report(named("embodied-r"), &[(CAUSAL, "B"), (ROUTE, "B")]),
        report(named("embodied-r"), &[(CAUSAL, "A")]),
        report(named("embodied-r"), &[(CAUSAL, "A")]),
    ])
    .unwrap();
    let (causal, route) = (folded.mean.category(CAUSAL), folded.mean.category(ROUTE));
    assert!((causal.unwrap().score - 100.0 / 3.0).abs() < 1e-9);
    assert_eq!((route.unwrap().score, route.unwrap().n), (100.0, 1));
    assert_eq!(folded.std.by_category[ROUTE], None);
    assert!((folded.std.by_category[CAUSAL].unwrap() - 100.0 / 3.0_f64.sqrt()).abs() < 1e-9);
    let warnings = folded.warnings();
    let expected = "the mean of route_planning is over the 1 of 3 folds that have it";
    assert!(warnings.iter().any(|warning| warning == expected), "{warnings:?}");
}

#[test]
fn the_json_has_the_fields_of_a_report_then_the_spread_and_the_folds() {
    let folds = ["B", "A"].map(|answer| report(named("embodied-r"), &[(CAUSAL, answer)]));
    let one = serde_json::to_value(&folds[0]).unwrap();
    let json = serde_json::to_value(FoldedReport::new(folds.to_vec()).unwrap()).unwrap();
    assert_eq!(json["by_category"], json!({CAUSAL: {"score": 50.0, "n": 2}}));
    assert_eq!((&json["overall"], &json["n"]), (&json!(50.0), &json!(2)));
    let std = json["std"]["by_category"][CAUSAL].as_f64().unwrap();
    assert!((std - 5000.0_f64.sqrt()).abs() < 1e-9, "{std}");
    assert_eq!(json["folds"][0], one);
    let of = |value: &serde_json::Value| -> Vec<String> {
        value.as_object().unwrap().keys().cloned().collect()
    };
    // Means over folds have no single questions.
    let mut expected: Vec<String> = of(&one).into_iter().filter(|key| key != "questions").collect();
    expected.extend(["std".to_owned(), "folds".to_owned()]);
    let mut found = of(&json);
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
}

#[test]
fn pass_at_k_is_averaged_too() {
    let fold = |answers: [&str; 2]| {
        let samples = answers.map(|answer| format!("<answer>{answer}</answer>")).to_vec();
        let question = SampledQuestion {
            id: "1".to_owned(),
            video: None,
            category: CAUSAL.to_owned(),
            solution: "B".to_owned(),
            answer_type: None,
            columns: Default::default(),
            prompt: None,
            question: String::new(),
            samples,
        };
        score_samples(named("embodied-r"), &[question], &[1, 2], Some(1.0)).unwrap()
    };
    let folded = FoldedReport::new(vec![fold(["A", "B"]), fold(["A", "A"])]).unwrap();
    let pass_at = folded.mean.pass_at.as_ref().unwrap();
    assert_eq!(pass_at.overall, BTreeMap::from([(1, 25.0), (2, 50.0)]));
    assert_eq!(folded.mean.by_category[0].pass_at, pass_at.overall);
    assert_eq!((pass_at.samples, pass_at.temperature), (2, Some(1.0)));
    assert!((folded.std.pass_at[&2] - 5000.0_f64.sqrt()).abs() < 1e-9);
}

#[test]
fn folds_of_different_kinds_are_refused_with_the_fold() {
    let vsi = report(named("vsi-bench"), &[(ROUTE, "B")]);
    let own = report(named("embodied-r"), &[(ROUTE, "B")]);
    let error = FoldedReport::new(vec![own.clone(), own.clone(), vsi]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the protocol of fold 2 is vsi-bench, but that of fold 0 is embodied-r"
    );
    assert!(matches!(FoldedReport::new(vec![own]), Err(Error::TooFewFolds { found: 1 })));
}

#[test]
fn the_coverage_is_summed() {
    let folds = [("B", "other"), ("A", "other"), ("A", "more")]
        .map(|(answer, other)| report(named("embodied-r"), &[(CAUSAL, answer), (other, "B")]));
    let coverage = FoldedReport::new(folds.to_vec()).unwrap().mean.coverage;
    let expected = BTreeMap::from([("more".to_owned(), 1), ("other".to_owned(), 2)]);
    assert_eq!(coverage.unscored_categories, expected);
    assert_eq!(
        coverage.empty_categories.len(),
        named("embodied-r").benchmark.category_names().len() - 1
    );
}
