use proptest::prelude::*;

use super::*;
use crate::protocol::named;

/// The fraction of the `k`-subsets of `n` samples with one of the first `c` among them.
fn by_definition(n: usize, c: usize, k: usize) -> f64 {
    let subsets = (0u32..1 << n).filter(|subset| subset.count_ones() as usize == k);
    let (mut all, mut passed) = (0, 0);
    for subset in subsets {
        all += 1;
        passed += u32::from(subset & ((1 << c) - 1) != 0);
    }
    f64::from(passed) / f64::from(all)
}

/// One question in `category` with the answer B and these samples.
fn question(category: &str, answers: &[&str]) -> SampledQuestion {
    SampledQuestion {
        id: "7".to_owned(),
        video: None,
        category: category.to_owned(),
        solution: "B".to_owned(),
        answer_type: None,
        columns: Default::default(),
        prompt: None,
        question: "q".to_owned(),
        samples: answers.iter().map(|answer| format!("<answer>{answer}</answer>")).collect(),
    }
}

fn close(found: &BTreeMap<usize, f64>, expected: &[(usize, f64)]) -> bool {
    let pairs = found.iter().zip(expected);
    found.len() == expected.len()
        && pairs.into_iter().all(|((k, x), (l, y))| k == l && (x - y).abs() < 1e-9)
}

proptest! {
    #[test]
    fn the_estimate_is_the_share_of_subsets_with_a_correct_sample(
        (n, c, k) in (1usize..=12).prop_flat_map(|n| (Just(n), 0..=n, 1..=n))
    ) {
        prop_assert!((pass_at(n, c, k).unwrap() - by_definition(n, c, k)).abs() < 1e-12);
    }

    #[test]
    fn the_estimate_grows_with_k_and_with_the_correct_samples(
        (n, c, k) in (2usize..=300).prop_flat_map(|n| (Just(n), 0..n, 1..n))
    ) {
        let at = |c, k| pass_at(n, c, k).unwrap();
        prop_assert!((0.0..=1.0).contains(&at(c, k)));
        prop_assert!(at(c, k) <= at(c, k + 1) + 1e-12 && at(c, k) <= at(c + 1, k) + 1e-12);
        prop_assert!((at(c, 1) - c as f64 / n as f64).abs() < 1e-12);
    }
}

#[test]
fn known_values_hold_where_binomials_overflow() {
    for (n, c, k, expected) in [
        (10, 3, 5, 1.0 - 21.0 / 252.0),
        (5, 0, 5, 0.0),
        (5, 5, 1, 1.0),
        (5, 1, 5, 1.0),
        (200, 1, 100, 0.5),
        // (100000 - 1000) * (99999 - 1000) / (100000 * 99999) of the pairs are wrong.
        (100_000, 1_000, 2, 1.0 - 0.99 * (98_999.0 / 99_999.0)),
    ] {
        assert!((pass_at(n, c, k).unwrap() - expected).abs() < 1e-9, "{n} {c} {k}");
    }
}

#[test]
fn more_than_all_samples_are_an_error() {
    let message = pass_at(4, 1, 8).unwrap_err().to_string();
    assert_eq!(message, "pass@8 needs at least 8 samples per question, not 4");
    assert_eq!(pass_at(4, 5, 1).unwrap_err().to_string(), "5 of 4 samples cannot be correct");
}

#[test]
fn pass_at_k_is_the_mean_over_scored_questions() {
    let questions = [
        question("Counterfactual", &["B", "A", "A", "A"]),
        question("Counterfactual", &["A", "A", "A", "A"]),
        question("route_planning", &["B", "B", "A", "A"]),
        question("Causal", &["B", "B", "B", "B"]),
    ];
    let report = score_samples(named("embodied-r"), &questions, &[4, 1, 2, 1], Some(0.7)).unwrap();
    let pass_at = report.pass_at.as_ref().unwrap();
    assert_eq!((report.n, pass_at.samples, pass_at.temperature), (3, 4, Some(0.7)));
    // Pairs with a correct sample: 3, 0 and 5 of 6.
    let overall = [(1, 25.0), (2, 100.0 * (8.0 / 18.0)), (4, 200.0 / 3.0)];
    assert!(close(&pass_at.overall, &overall), "{pass_at:?}");
    let category = report.category("Counterfactual").unwrap();
    assert!(close(&category.pass_at, &[(1, 12.5), (2, 25.0), (4, 50.0)]), "{category:?}");
    assert_eq!(report.coverage.unscored_categories["Causal"], 1);
}

#[test]
fn the_scores_are_means_over_samples() {
    let questions =
        [question("Counterfactual", &["B", "A"]), question("route_planning", &["B", "B"])];
    let report = score_samples(named("embodied-r"), &questions, &[1], None).unwrap();
    assert_eq!((report.n, report.overall, report.macro_), (2, 75.0, 75.0));
    assert_eq!(report.by_category.iter().map(|category| category.n).collect::<Vec<_>>(), [1, 1]);
}

#[test]
fn a_numeric_sample_is_correct_within_five_per_cent() {
    let numeric = SampledQuestion {
        solution: "10".to_owned(),
        answer_type: None,
        ..question("room_size_estimation", &["10.5", "9", "x"])
    };
    let report = score_samples(named("vsi-bench"), &[numeric], &[1, 3], None).unwrap();
    assert!(close(&report.pass_at.unwrap().overall, &[(1, 100.0 / 3.0), (3, 100.0)]));
    assert!((report.overall - 100.0 * 1.9 / 3.0).abs() < 1e-9, "{}", report.overall);
}

#[test]
fn the_json_adds_pass_at_k_for_all_and_by_category() {
    let questions = [question("Counterfactual", &["B", "A"])];
    let report = score_samples(named("embodied-r"), &questions, &[1, 2], Some(1.0)).unwrap();
    assert_eq!(
        serde_json::to_string(&report).unwrap(),
        r#"{"benchmark":"embodied-r","protocol":"embodied-r","scorer":"official","prompt":null,"frames":null,"data_sha256":null,"n":1,"answered":1,"missing":0,"unparsed":0,"partial":true,"overall":50.0,"micro":50.0,"macro":50.0,"by_category":{"Counterfactual":{"score":50.0,"n":1,"pass_at":{"1":50.0,"2":100.0}}},"pass_at":{"1":50.0,"2":100.0},"samples":2,"temperature":1.0}"#
    );
}

#[test]
fn samples_without_an_answer_tag_are_counted_as_samples() {
    let mut sampled = question("Counterfactual", &["B", "A", "A"]);
    sampled.samples[1] = "B".to_owned();
    let report = score_samples(named("embodied-r"), &[sampled], &[1], None).unwrap();
    let warning = "1 of 3 samples without a closed `<answer>` tag: counted as wrong";
    assert_eq!(report.warnings()[0], warning);
}

#[test]
fn a_question_with_another_number_of_samples_is_an_error() {
    let questions = [question("route_planning", &["B", "B"]), question("route_planning", &["B"])];
    let error = score_samples(named("embodied-r"), &questions, &[1], None).unwrap_err();
    assert_eq!(error.to_string(), "question `7` has 1 samples, the first question has 2");
    let error = score_samples(named("embodied-r"), &questions[..1], &[1, 4], None).unwrap_err();
    assert_eq!(error.to_string(), "pass@4 needs at least 4 samples per question, not 2");
}
