use super::*;

fn scores(kind: ProblemType, solution: &str, completion: &str) -> (Option<f64>, Option<f64>) {
    let found = kind.scores(completion, solution, &PointingRewards::default());
    (found.accuracy.value, found.format.value)
}

#[test]
fn every_name_is_read() {
    for (name, kind) in ProblemType::NAMES {
        assert_eq!(ProblemType::parse(name), Some(kind));
        assert_eq!(ProblemType::parse(&name.to_uppercase().replace(' ', "_")), Some(kind));
    }
    assert_eq!(ProblemType::parse("segmentation"), None);
}

#[test]
fn only_the_first_answer_counts_and_has_to_have_its_structure() {
    let truth = r#"[{"point_2d": [500, 500]}]"#;
    let right = r#"[{"point_2d": [500, 500]}]"#;
    for (completion, expected) in [
        (format!("<answer>{right}</answer>"), 1.0),
        (format!("<answer>```json\n{right}\n```</answer>"), 1.0),
        (format!("<answer>'''{}'''</answer>", right.replace('"', "\\\"")), 1.0),
        (format!("<answer>[]</answer><answer>{right}</answer>"), 0.0),
        (format!("<answer> </answer><answer>{right}</answer>"), 0.0),
        (format!("<answer>{right}"), 0.0),
        (format!("<Answer>{right}</Answer>"), 0.0),
        (r#"<answer>[{"point_2d": [500, 500, 1]}]</answer>"#.to_owned(), 0.0),
        (r#"<answer>[{"point": [500, 500]}]</answer>"#.to_owned(), 0.0),
        ("<answer>[500, 500]</answer>".to_owned(), 0.0),
        (r#"<answer>[{"point_2d": [NaN, 500]}]</answer>"#.to_owned(), 0.0),
    ] {
        let found = scores(ProblemType::Point, truth, &completion);
        assert_eq!(found, (Some(expected), Some(expected)), "{completion}");
    }
    // Outside of the image is far away.
    let far = scores(ProblemType::Point, truth, r#"<answer>{"point_2d": [5000, 500]}</answer>"#);
    assert_eq!(far, (Some(0.0), Some(1.0)));
}

#[test]
fn a_list_of_true_boxes_scores_nothing() {
    let answer = r#"<answer>[{"boxes": [0, 0, 10, 10]}, {"boxes": [5, 5, 9, 9]}]</answer>"#;
    let of = |solution: &str| scores(ProblemType::SpatialGrounding, solution, answer);
    assert_eq!(of(r#"{"boxes": [0, 0, 10, 20]}"#), (Some(0.5), Some(1.0)));
    assert_eq!(of(r#"[{"boxes": [0, 0, 10, 20]}]"#), (Some(0.0), Some(1.0)));
}

#[test]
fn numbers_are_rounded_as_python_does() {
    for (answer, solution, expected) in [
        ("0.25", "0.2", 1.0),
        ("0.35", "0.3", 1.0),
        ("42.05", "42.0", 1.0),
        ("1,200.04", "1200", 1.0),
        ("-0.04", "0", 1.0),
        ("3 m", "3", 0.0),
        ("inf", "3", 0.0),
        ("3.1", "3", 0.0),
    ] {
        let completion = format!("<answer>{answer}</answer>");
        let found = scores(ProblemType::Numerical, solution, &completion);
        assert_eq!(found, (Some(expected), Some(1.0)), "{answer}");
    }
}

#[test]
fn a_choice_is_its_letter_or_the_same_text() {
    for (answer, solution, expected) in [
        ("b", "B", 1.0),
        ("B. the mug", "B", 1.0),
        ("B) x", "B", 1.0),
        ("B\nx", "B", 0.0),
        ("Best", "B", 0.0),
        ("the Mug", "The mug", 1.0),
        ("1-3-2", "1-3-2", 1.0),
        ("1-2-3", "1-3-2", 0.0),
    ] {
        let completion = format!("<answer>{answer}</answer>");
        let found = scores(ProblemType::MultipleChoice, solution, &completion);
        assert_eq!(found, (Some(expected), Some(1.0)), "{answer}");
    }
}

#[test]
fn what_is_not_built_has_no_accuracy_but_a_reason() {
    for kind in [ProblemType::OpenEnded, ProblemType::Math] {
        let found = kind.scores("<answer>x</answer>", "y", &PointingRewards::default());
        assert_eq!((found.accuracy.value, found.overall()), (None, None));
        assert!(found.accuracy.reason.unwrap().ends_with("not here"));
    }
}
