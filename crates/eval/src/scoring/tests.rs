use proptest::prelude::*;

use super::*;
use crate::protocol::{all_protocols, named};

fn prediction(category: &str, solution: &str, output: PredictionOutput) -> Prediction {
    Prediction {
        id: "1".to_owned(),
        category: category.to_owned(),
        solution: solution.to_owned(),
        output,
        ..Prediction::default()
    }
}

/// Correct and wrong multiple-choice answers of one category.
fn answers(category: &str, right: usize, wrong: usize) -> Vec<Prediction> {
    let answer = |text: &str| prediction(category, "B", PredictionOutput::Answer(text.to_owned()));
    [vec![answer("B"); right], vec![answer("A"); wrong]].concat()
}

fn close(left: f64, right: f64) -> bool {
    (left - right).abs() < 1e-9
}

#[test]
fn micro_is_over_questions_and_macro_over_categories() {
    let predictions = [answers("Causal", 3, 0), answers("Duration", 0, 1)].concat();
    let report = score(named("urbanvideo-bench"), &predictions).unwrap();
    assert_eq!((report.n, report.micro, report.macro_, report.overall), (4, 75.0, 50.0, 75.0));
}

#[test]
fn answers_that_the_accuracy_reward_cannot_score_are_left_out_and_named() {
    let of = |id: &str, solution: &str, answer: &str| Prediction {
        id: id.to_owned(),
        ..prediction("c", solution, PredictionOutput::Answer(answer.to_owned()))
    };
    let unscored = [of("2", "the red lamp", "the red lamp"), of("3", "1/2", "1/2")];
    let scored = [
        of("1", "B", "B"),
        of("4", "12,000", "12000"),
        of("5", "5 cm", "5"),
        of("6", "yes", "No"),
        of("7", r#"["4", "four"]"#, "4"),
    ];
    let report = score(named("accuracy"), &[&scored[..], &unscored].concat()).unwrap();
    assert_eq!((report.n, report.micro), (5, 80.0));
    let warning = report.warnings().into_iter().find(|it| it.contains("`answer_type`")).unwrap();
    assert!(warning.starts_with("2 questions ") && warning.contains("`2`, `3`"), "{warning}");
    let error = score(named("accuracy"), &unscored).unwrap_err().to_string();
    assert!(error.contains("`the red lamp` of question `2`"), "{error}");
}

#[test]
fn overall_is_macro_for_vsi_bench_and_micro_for_the_others() {
    let predictions =
        [answers("route_planning", 3, 0), answers("obj_appearance_order", 0, 1)].concat();
    assert_eq!(score(named("vsi-bench"), &predictions).unwrap().overall, 50.0);
    assert_eq!(score(named("embodied-r"), &predictions).unwrap().overall, 75.0);
}

#[test]
fn direction_levels_are_averaged_in_vsi_bench_and_pooled_in_embodied_r() {
    let predictions = [
        answers("object_rel_direction_easy", 8, 0),
        answers("object_rel_direction_medium", 0, 1),
        answers("object_rel_direction_hard", 0, 1),
    ]
    .concat();
    let category = |protocol| {
        let report = score(protocol, &predictions).unwrap();
        assert_eq!(report.by_category.len(), 1);
        report.category("object_rel_direction").unwrap().clone()
    };
    let (vsi, embodied) = (category(named("vsi-bench")), category(named("embodied-r")));
    assert!(close(vsi.score, 100.0 / 3.0) && close(embodied.score, 80.0));
    assert_eq!((vsi.n, embodied.n), (10, 10));
}

#[test]
fn a_level_without_questions_is_not_averaged() {
    let predictions =
        [answers("object_rel_direction_easy", 1, 0), answers("object_rel_direction_hard", 0, 3)]
            .concat();
    assert_eq!(score(named("vsi-bench"), &predictions).unwrap().overall, 50.0);
}

#[test]
fn a_missing_prediction_is_wrong_except_in_urbanvideo_bench() {
    let missing = |category: &str| vec![prediction(category, "B", PredictionOutput::Missing)];
    let vsi = [answers("route_planning", 1, 0), missing("route_planning")].concat();
    for protocol in [named("vsi-bench"), named("embodied-r")] {
        let report = score(protocol, &vsi).unwrap();
        assert_eq!((report.n, report.overall, report.coverage.missing), (2, 50.0, 1));
    }
    let urban = [answers("Causal", 1, 0), missing("Causal")].concat();
    let report = score(named("urbanvideo-bench"), &urban).unwrap();
    assert_eq!((report.n, report.overall, report.coverage.missing), (1, 100.0, 1));
}

#[test]
fn other_benchmarks_categories_are_skipped_and_counted() {
    let predictions = [
        answers("route_planning", 1, 0),
        answers("Causal", 0, 2),
        answers("object_counting", 0, 1),
    ]
    .concat();
    let report = score(named("embodied-r"), &predictions).unwrap();
    assert_eq!((report.n, report.overall), (1, 100.0));
    let unscored_categories: Vec<_> = report.coverage.unscored_categories.into_iter().collect();
    assert_eq!(unscored_categories, [("Causal".to_owned(), 2), ("object_counting".to_owned(), 1)]);
}

#[test]
fn a_completion_without_the_tag_is_wrong_and_counted() {
    let predictions = [prediction(
        "route_planning",
        "B",
        PredictionOutput::Completion("<think>B</think> B".to_owned()),
    )];
    let report = score(named("embodied-r"), &predictions).unwrap();
    assert_eq!((report.n, report.overall, report.coverage.without_answer_tag), (1, 0.0, 1));
}

#[test]
fn categories_come_in_the_protocols_order() {
    let predictions = [
        answers("obj_appearance_order", 1, 0),
        answers("route_planning", 1, 0),
        answers("Counterfactual", 1, 0),
    ]
    .concat();
    let report = score(named("embodied-r"), &predictions).unwrap();
    let names: Vec<_> = report.by_category.iter().map(|category| &*category.name).collect();
    assert_eq!(names, ["Counterfactual", "route_planning", "obj_appearance_order"]);
    assert_eq!(report.coverage.empty_categories.len(), 5);
}

#[test]
fn nothing_to_score_is_an_error_that_names_the_categories_found() {
    let error = score(named("embodied-r"), &answers("Causal", 1, 0)).unwrap_err();
    assert_eq!(error.to_string(), "`embodied-r` scores none of the records' categories: Causal");
    let error = score(named("embodied-r"), &answers("", 1, 0)).unwrap_err();
    assert_eq!(error.to_string(), "`embodied-r` scores none of the records' categories: (none)");
    let missing = [prediction("Causal", "B", PredictionOutput::Missing)];
    let error = score(named("urbanvideo-bench"), &missing).unwrap_err();
    assert!(matches!(error, Error::NoPredictions { records: 1 }));
}

#[test]
fn the_json_has_exactly_the_documented_fields() {
    let predictions =
        [answers("route_planning", 1, 1), answers("object_rel_direction_easy", 1, 0)].concat();
    let report = score(named("vsi-bench"), &predictions).unwrap();
    assert_eq!(
        serde_json::to_string(&report).unwrap(),
        r#"{"benchmark":"vsi-bench","protocol":"vsi-bench","scorer":"official","prompt":null,"frames":null,"data_sha256":null,"n":3,"answered":3,"missing":0,"unparsed":0,"partial":true,"overall":75.0,"micro":66.66666666666667,"macro":75.0,"by_category":{"object_rel_direction":{"score":100.0,"n":1},"route_planning":{"score":50.0,"n":2}},"questions":[{"id":"1","extracted":"B","score":1.0},{"id":"1","extracted":"A","score":0.0},{"id":"1","extracted":"B","score":1.0}]}"#
    );
}

#[test]
fn warnings_cover_all_missing_and_skipped_questions() {
    let predictions = [
        answers("route_planning", 1, 0),
        answers("Causal", 0, 2),
        vec![
            prediction("route_planning", "B", PredictionOutput::Missing),
            prediction("route_planning", "B", PredictionOutput::Completion("B".to_owned())),
        ],
    ]
    .concat();
    let report = score(named("vsi-bench"), &predictions).unwrap();
    assert_eq!(
        report.warnings(),
        [
            "1 question without a prediction: counted as wrong",
            "1 question whose completion has no closed `<answer>` tag: counted as wrong",
            "2 questions of categories that `vsi-bench` does not score, skipped: `Causal` (2)",
            "the macro mean is over 1 of 8 categories; without questions: object_counting, \
             object_abs_distance, object_size_estimation, room_size_estimation, \
             object_rel_distance, object_rel_direction, obj_appearance_order",
        ]
    );
}

proptest! {
    #[test]
    fn means_are_between_the_extremes_and_every_question_counts_once(
        answers in prop::collection::vec(
            (
                prop::sample::select(vec![
                    "object_counting", "object_rel_direction_easy", "object_rel_direction_hard",
                    "route_planning", "Causal", "Counterfactual", "odd",
                ]),
                prop::option::of("[AB4]|Option: [AB]|.{0,4}"),
            ),
            1..30,
        )
    ) {
        let predictions: Vec<Prediction> = answers
            .into_iter()
            .map(|(category, answer)| {
                let solution = if category == "object_counting" { "4" } else { "B" };
                prediction(category, solution, answer.map_or(PredictionOutput::Missing, PredictionOutput::Answer))
            })
            .collect();
        for protocol in all_protocols() {
            let Ok(report) = score(protocol, &predictions) else { continue };
            let unscored_categories: usize = report.coverage.unscored_categories.values().sum();
            let skips_missing = protocol.benchmark.missing == Missing::Skipped;
            let skipped = if skips_missing { report.coverage.missing } else { 0 };
            prop_assert_eq!(report.n + unscored_categories + skipped, predictions.len());
            prop_assert_eq!(report.by_category.iter().map(|c| c.n).sum::<usize>(), report.n);
            let scores = report.by_category.iter().map(|category| category.score);
            let lowest = scores.clone().fold(f64::INFINITY, f64::min);
            let highest = scores.fold(0.0, f64::max);
            prop_assert!(lowest >= 0.0 && highest <= 100.0);
            prop_assert!((lowest - 1e-9..=highest + 1e-9).contains(&report.macro_));
            if protocol.scorer.level_aggregation == LevelAggregation::Pooled {
                prop_assert!((lowest - 1e-9..=highest + 1e-9).contains(&report.micro));
            }
        }
    }
}

#[test]
fn the_categories_of_any_questions_are_sorted_and_their_mean_is_over_questions() {
    let predictions = [answers("b", 3, 1), answers("a", 1, 1), answers("", 1, 0)].concat();
    let report = score(named("accuracy"), &predictions).unwrap();
    let names: Vec<_> = report.by_category.iter().map(|category| &*category.name).collect();
    assert_eq!(names, ["(none)", "a", "b"]);
    assert_eq!((report.n, report.overall), (predictions.len(), report.micro));
    assert!(!report.is_partial() && report.warnings().is_empty());
    let other = score(named("accuracy"), &answers("c", 1, 1)).unwrap();
    let folds = crate::FoldedReport::new(vec![report, other]).unwrap();
    let names: Vec<_> = folds.mean.by_category.iter().map(|category| &*category.name).collect();
    assert_eq!(names, ["(none)", "a", "b", "c"]);
}

#[test]
fn a_question_counts_only_if_all_of_its_rotations_are_right() {
    let of = |qid: &str, category: &str, answer: &str| Prediction {
        id: qid.to_owned(),
        columns: serde_json::json!({"qid": qid}).as_object().unwrap().clone(),
        ..prediction(category, "B", PredictionOutput::Answer(answer.to_owned()))
    };
    let predictions = [
        of("VIN6MS3J", "height_higher", "B"),
        of("VIN6MS3J-1", "height_higher", "B"),
        of("VIN6MS3J-flip", "height_higher", "B"),
        of("VIN6MS3J-flip-1", "height_higher", "A"),
        of("AAAAAAAA", "location_above", "B"),
    ];
    let report = score(named("3dsrbench"), &predictions).unwrap();
    // Two of the three groups; categories are means over questions.
    assert!(close(report.overall, 200.0 / 3.0), "{}", report.overall);
    assert!(close(report.category("height").unwrap().score, 75.0));
    assert_eq!((report.n, report.micro), (5, 80.0));
}

#[test]
fn a_category_apart_does_not_count_in_the_overall_score_of_one_scorer() {
    let full_stop = |category: &str, answer: &str| {
        prediction(category, "B", PredictionOutput::Answer(answer.to_owned()))
    };
    let predictions = [
        full_stop("around", "B."),
        full_stop("around", "A."),
        full_stop("translation", "B."),
        full_stop("translation", "B."),
    ];
    let overall = |scorer: &str| {
        let mut all = Protocol::all(named("mindcube-tiny").benchmark);
        let protocol = all.find(|of| of.scorer.name == scorer).unwrap();
        score(protocol, &predictions).unwrap().overall
    };
    assert_eq!((overall("official"), overall("easi")), (50.0, 75.0));
}
