use super::*;
use crate::predictions::Output;

fn score(protocol: Protocol, category: &str, solution: &str, output: Output) -> Result<f64> {
    protocol.score_one(&Prediction {
        id: "7".to_owned(),
        category: category.to_owned(),
        solution: solution.to_owned(),
        output,
    })
}

fn answer(protocol: Protocol, category: &str, solution: &str, text: &str) -> f64 {
    score(protocol, category, solution, Output::Answer(text.to_owned())).unwrap()
}

#[test]
fn a_protocol_is_found_by_its_name() {
    for protocol in Protocol::ALL {
        assert_eq!(Protocol::from_name(protocol.name()), Some(protocol));
    }
    assert_eq!(Protocol::from_name("VSI"), None);
}

#[test]
fn the_levels_of_direction_questions_count_under_one_name() {
    for level in ["easy", "medium", "hard"] {
        let category = format!("object_rel_direction_{level}");
        assert_eq!(Protocol::VsiBench.counted_under(&category), Some(DIRECTION));
        assert_eq!(Protocol::EmbodiedR.counted_under(&category), Some(DIRECTION));
        assert_eq!(Protocol::UrbanVideoBench.counted_under(&category), None);
    }
    assert_eq!(Protocol::VsiBench.counted_under(DIRECTION), Some(DIRECTION));
    assert_eq!(Protocol::VsiBench.counted_under("object_rel_direction_odd"), None);
}

#[test]
fn each_protocol_scores_its_own_categories() {
    assert_eq!(Protocol::EmbodiedR.counted_under("object_counting"), None);
    assert_eq!(Protocol::EmbodiedR.counted_under("Object Recall"), None);
    assert_eq!(Protocol::VsiBench.counted_under("Causal"), None);
    assert_eq!(Protocol::UrbanVideoBench.counted_under("Causal"), Some("Causal"));
}

#[test]
fn sets_out_of_domain_are_scored_by_letters_and_by_no_other_protocol() {
    for (protocol, category) in
        [(Protocol::EgoSchema, "egoschema"), (Protocol::MvBench, "egocentric_navigation")]
    {
        assert_eq!(answer(protocol, category, "E", "The answer is E"), 1.0);
        assert_eq!(answer(protocol, category, "E", "D"), 0.0);
        for other in Protocol::ALL {
            assert_eq!(other.counted_under(category).is_some(), other == protocol);
        }
    }
}

#[test]
fn predictions_of_one_set_out_of_domain_name_their_protocol() {
    let of = |categories: &[&str]| {
        let prediction = |category: &&str| Prediction {
            id: "1".to_owned(),
            category: (*category).to_owned(),
            solution: "A".to_owned(),
            output: Output::Missing,
        };
        Protocol::out_of_domain(&categories.iter().map(prediction).collect::<Vec<_>>())
    };
    assert_eq!(of(&["egoschema", "egoschema"]), Some(Protocol::EgoSchema));
    assert_eq!(of(&["egocentric_navigation"]), Some(Protocol::MvBench));
    for mixed in [&["egoschema", "egocentric_navigation"][..], &["egoschema", "Causal"], &[]] {
        assert_eq!(of(mixed), None);
    }
}

#[test]
fn embodied_r_reads_letters_by_the_projects_rules() {
    for text in ["B", "(b)", "B. A tree", "The answer is B"] {
        assert_eq!(answer(Protocol::EmbodiedR, "route_planning", "B", text), 1.0, "`{text}`");
    }
    for text in ["A or B", "", "a tree"] {
        assert_eq!(answer(Protocol::EmbodiedR, "route_planning", "B", text), 0.0, "`{text}`");
    }
}

#[test]
fn vsi_bench_reads_the_first_piece_alone() {
    assert_eq!(answer(Protocol::VsiBench, "route_planning", "B", "b. left"), 1.0);
    assert_eq!(answer(Protocol::VsiBench, "route_planning", "B", "(B)"), 0.0);
    assert_eq!(answer(Protocol::VsiBench, "route_planning", "B", "The answer is B"), 0.0);
}

#[test]
fn vsi_bench_scores_numbers_by_mean_relative_accuracy() {
    assert_eq!(answer(Protocol::VsiBench, "object_counting", "10", "9 chairs"), 0.9);
    assert_eq!(answer(Protocol::VsiBench, "room_size_estimation", "10.0", "ten"), 0.0);
}

#[test]
fn urbanvideo_bench_reads_the_option_line_and_its_case() {
    assert_eq!(answer(Protocol::UrbanVideoBench, "Causal", "B", "Option: [B]; Reason: []"), 1.0);
    assert_eq!(answer(Protocol::UrbanVideoBench, "Causal", "B", "Option: b"), 0.0);
    assert_eq!(answer(Protocol::UrbanVideoBench, "Causal", "B", "b"), 1.0);
}

#[test]
fn only_the_tag_of_a_whole_output_is_read() {
    for (protocol, category) in [
        (Protocol::EmbodiedR, "route_planning"),
        (Protocol::VsiBench, "route_planning"),
        (Protocol::UrbanVideoBench, "Causal"),
    ] {
        let output = |text: &str| Output::Completion(text.to_owned());
        let tagged = output("<think>A, surely</think>\n<answer> B. left </answer>");
        assert_eq!(score(protocol, category, "B", tagged).unwrap(), 1.0);
        assert_eq!(score(protocol, category, "B", output("B")).unwrap(), 0.0);
        assert_eq!(score(protocol, category, "B", Output::Missing).unwrap(), 0.0);
    }
}

#[test]
fn a_solution_of_the_wrong_kind_is_an_error() {
    for (protocol, category, solution, wanted) in [
        (Protocol::EmbodiedR, "route_planning", "left", "an option letter"),
        (Protocol::EmbodiedR, "route_planning", "3", "an option letter"),
        (Protocol::VsiBench, "object_counting", "four", "a number"),
        (Protocol::VsiBench, "object_counting", "nan", "a number"),
        (Protocol::VsiBench, "route_planning", " ", "an option letter"),
        (Protocol::UrbanVideoBench, "Causal", "", "an option letter"),
    ] {
        let error = score(protocol, category, solution, Output::Missing).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("the solution `{solution}` of question `7` in `{category}` is not {wanted}")
        );
    }
}
