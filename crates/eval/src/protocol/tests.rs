use embodied_r_rewards::AnswerType;

use super::*;
use crate::benchmark::Categories;
use crate::benchmarks::{BENCHMARKS, find, of_categories};
use crate::predictions::PredictionOutput;

const DIRECTION: &str = "object_rel_direction";

/// The category that the benchmark called `name` scores questions of `category` as.
fn scored<'a>(name: &str, category: &'a str) -> Option<&'a str> {
    find(name).unwrap().scored_category(category)
}

fn score(
    protocol: Protocol,
    category: &str,
    solution: &str,
    output: PredictionOutput,
) -> Result<f64> {
    let prediction = Prediction {
        id: "7".to_owned(),
        category: category.to_owned(),
        solution: solution.to_owned(),
        output,
        ..Prediction::default()
    };
    protocol.score_prediction(&prediction).map(|scored| scored.score)
}

fn answer(protocol: Protocol, category: &str, solution: &str, text: &str) -> f64 {
    score(protocol, category, solution, PredictionOutput::Answer(text.to_owned())).unwrap()
}

#[test]
fn names_of_benchmarks_and_of_their_scorers_are_unique() {
    for benchmark in BENCHMARKS {
        assert_eq!(find(benchmark.name), Some(benchmark));
        let names: Vec<_> = benchmark.scorers().map(|scorer| scorer.name).collect();
        let unique: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(unique.len(), names.len(), "{}", benchmark.name);
    }
    assert_eq!(find("VSI"), None);
}

#[test]
fn every_level_is_of_a_listed_category() {
    for benchmark in BENCHMARKS {
        let Categories::Listed { names, levels } = benchmark.categories else { continue };
        assert!(levels.iter().all(|(_, name)| names.contains(name)), "{}", benchmark.name);
    }
}

#[test]
fn the_levels_of_direction_questions_share_one_category() {
    for level in ["easy", "medium", "hard"] {
        let category = format!("object_rel_direction_{level}");
        assert_eq!(scored("vsi-bench", &category), Some(DIRECTION));
        assert_eq!(scored("embodied-r", &category), Some(DIRECTION));
        assert_eq!(scored("urbanvideo-bench", &category), None);
    }
    assert_eq!(scored("vsi-bench", DIRECTION), Some(DIRECTION));
    assert_eq!(scored("vsi-bench", "object_rel_direction_odd"), None);
}

#[test]
fn each_protocol_scores_its_own_categories() {
    assert_eq!(scored("embodied-r", "object_counting"), None);
    assert_eq!(scored("embodied-r", "Object Recall"), None);
    assert_eq!(scored("vsi-bench", "Causal"), None);
    assert_eq!(scored("urbanvideo-bench", "Causal"), Some("Causal"));
}

#[test]
fn questions_of_one_protocol_are_scored_by_letter_and_by_no_other() {
    for (protocol, category) in [
        (named("egoschema"), "egoschema"),
        (named("mvbench"), "egocentric_navigation"),
        (named("robot-r1"), "waypoint"),
        (named("robot-r1"), "state"),
        (named("robot-r1"), "movement"),
    ] {
        assert_eq!(answer(protocol, category, "E", "The answer is E"), 1.0);
        assert_eq!(answer(protocol, category, "E", "D"), 0.0);
        for other in all_protocols() {
            let has_any = other.benchmark.categories == Categories::Any;
            let is_scored = other == protocol || has_any;
            assert_eq!(other.benchmark.scored_category(category).is_some(), is_scored);
        }
    }
}

#[test]
fn predictions_of_one_protocol_determine_it() {
    let of = |categories: &[&str]| {
        of_categories(categories.iter().copied()).map(|benchmark| benchmark.name)
    };
    assert_eq!(of(&["movement", "waypoint"]), Some("robot-r1"));
    assert_eq!(of(&["egoschema", "egoschema"]), Some("egoschema"));
    assert_eq!(of(&["egocentric_navigation"]), Some("mvbench"));
    assert_eq!(of(&["Colors", ""]), Some("accuracy"));
    assert_eq!(of(&["Colors", "Causal"]), None);
    for mixed in [&["egoschema", "egocentric_navigation"][..], &["egoschema", "Causal"], &[]] {
        assert_eq!(of(mixed), None);
    }
}

#[test]
fn any_category_is_scored_by_the_accuracy_reward() {
    let of = |solution: &str, answer_type: Option<AnswerType>, output: PredictionOutput| {
        named("accuracy").score_prediction(&Prediction {
            id: "7".to_owned(),
            video: None,
            category: "Colors".to_owned(),
            solution: solution.to_owned(),
            answer_type,
            output,
            ..Prediction::default()
        })
    };
    let answer = |text: &str| PredictionOutput::Answer(text.to_owned());
    let completion = |text: &str| PredictionOutput::Completion(text.to_owned());
    for (solution, answer_type, output, expected) in [
        ("B", None, answer("B"), 1.0),
        ("B", None, completion("<answer>b</answer>"), 1.0),
        ("B", None, completion("B"), 0.0),
        ("B", None, PredictionOutput::Missing, 0.0),
        ("B", None, PredictionOutput::Unanswered, 0.0),
        ("B", None, answer("选项Ｂ"), 1.0),
        ("−4", None, answer("–4 m"), 1.0),
        ("4", None, answer("−4"), 0.0),
        ("10", None, answer("10^3"), 0.0),
        (r#"["4", "four"]"#, None, answer("4"), 1.0),
        ("4", None, answer("5"), 0.6),
        ("4", Some(AnswerType::Regression), answer("5"), 0.75),
        ("a cup", Some(AnswerType::Text), answer("A cup."), 1.0),
        ("B", Some(AnswerType::Text), answer("b) lamp"), 0.0),
    ] {
        let found = of(solution, answer_type, output.clone()).unwrap();
        assert_eq!(found.score, expected, "{solution}, {answer_type:?}, {output:?}");
    }
    for (answer_type, expected) in
        [(None, "an option letter or a number"), (Some(AnswerType::Number), "of its `answer_type`")]
    {
        let error = of("a cup", answer_type, PredictionOutput::Unanswered).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
    assert_eq!(scored("accuracy", "Colors"), Some("Colors"));
    assert_eq!(scored("accuracy", ""), Some("(none)"));
}

#[test]
fn embodied_r_parses_letters_by_the_projects_rules() {
    for text in ["B", "(b)", "B. A tree", "The answer is B", "答案是B", "Ｂ．灯"] {
        assert_eq!(answer(named("embodied-r"), "route_planning", "B", text), 1.0, "`{text}`");
    }
    for text in ["A or B", "", "a tree"] {
        assert_eq!(answer(named("embodied-r"), "route_planning", "B", text), 0.0, "`{text}`");
    }
}

#[test]
fn vsi_bench_parses_only_the_first_word() {
    assert_eq!(answer(named("vsi-bench"), "route_planning", "B", "b. left"), 1.0);
    assert_eq!(answer(named("vsi-bench"), "route_planning", "B", "(B)"), 0.0);
    assert_eq!(answer(named("vsi-bench"), "route_planning", "B", "The answer is B"), 0.0);
}

#[test]
fn vsi_bench_scores_numbers_by_mean_relative_accuracy() {
    assert_eq!(answer(named("vsi-bench"), "object_counting", "10", "9 chairs"), 0.9);
    assert_eq!(answer(named("vsi-bench"), "room_size_estimation", "10.0", "ten"), 0.0);
    // As Python's `float`.
    assert_eq!(answer(named("vsi-bench"), "object_counting", "10", "１０"), 1.0);
    assert_eq!(answer(named("vsi-bench"), "object_counting", "-10", "−10"), 0.0);
    assert_eq!(answer(named("vsi-bench"), "object_counting", "10", "10个"), 0.0);
}

#[test]
fn urbanvideo_bench_parses_the_option_line_case_sensitively() {
    assert_eq!(answer(named("urbanvideo-bench"), "Causal", "B", "Option: [B]; Reason: []"), 1.0);
    assert_eq!(answer(named("urbanvideo-bench"), "Causal", "B", "Option: b"), 0.0);
    assert_eq!(answer(named("urbanvideo-bench"), "Causal", "B", "b"), 1.0);
}

#[test]
fn only_the_answer_tag_of_a_completion_is_parsed() {
    for (protocol, category) in [
        (named("embodied-r"), "route_planning"),
        (named("vsi-bench"), "route_planning"),
        (named("urbanvideo-bench"), "Causal"),
    ] {
        let output = |text: &str| PredictionOutput::Completion(text.to_owned());
        let tagged = output("<think>A, surely</think>\n<answer> B. left </answer>");
        assert_eq!(score(protocol, category, "B", tagged).unwrap(), 1.0);
        assert_eq!(score(protocol, category, "B", output("B")).unwrap(), 0.0);
        assert_eq!(score(protocol, category, "B", PredictionOutput::Missing).unwrap(), 0.0);
    }
}

#[test]
fn a_solution_of_the_wrong_kind_is_an_error() {
    for (protocol, category, solution, expected) in [
        (named("embodied-r"), "route_planning", "left", "an option letter"),
        (named("embodied-r"), "route_planning", "3", "an option letter"),
        (named("vsi-bench"), "object_counting", "four", "a number"),
        (named("vsi-bench"), "object_counting", "nan", "a number"),
        (named("vsi-bench"), "route_planning", " ", "an option letter"),
        (named("urbanvideo-bench"), "Causal", "", "an option letter"),
    ] {
        let error = score(protocol, category, solution, PredictionOutput::Missing).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("the solution `{solution}` of question `7` in `{category}` is not {expected}")
        );
    }
}
