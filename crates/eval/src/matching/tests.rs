use serde_json::json;

use super::*;
use crate::protocol::named;
use crate::{score, score_samples};

fn question(id: u32, video: Option<&str>, category: &str) -> Question {
    serde_json::from_value(json!({"Question_id": id, "video_id": video, "question": "q",
        "question_category": category, "answer": "B"}))
    .unwrap()
}

/// The right answer to [`question`].
fn right(id: u32, video: Option<&str>, category: &str) -> Prediction {
    let output = PredictionOutput::Answer("B".to_owned());
    Prediction { output, ..Prediction::unanswered(&question(id, video, category)) }
}

const CAUSAL: &str = "Counterfactual";
const ROUTE: &str = "route_planning";

#[test]
fn a_question_without_a_record_counts_as_wrong_under_every_protocol() {
    for (protocol, category) in [
        (named("embodied-r"), CAUSAL),
        (named("vsi-bench"), ROUTE),
        (named("urbanvideo-bench"), CAUSAL),
    ] {
        let questions = [1, 2, 3, 4].map(|id| question(id, Some("a.mp4"), category));
        let null =
            Prediction { output: PredictionOutput::Missing, ..right(3, Some("a.mp4"), category) };
        let matched =
            match_questions(&questions, vec![null, right(2, Some("a.mp4"), category)]).unwrap();
        let report = score(protocol, &matched.outputs).unwrap();
        assert_eq!((report.n, report.overall, report.coverage.unanswered), (4, 25.0, 3));
        assert!(
            report.warnings().contains(&"3 questions without an answer: counted as wrong".into())
        );
    }
}

#[test]
fn an_identifier_of_both_benchmarks_is_told_apart_by_video_or_category() {
    let questions = [question(1, Some("a.mp4"), CAUSAL), question(1, Some("b.mp4"), ROUTE)];
    for (video, category, expected) in [
        (Some("b.mp4"), CAUSAL, [false, true]),
        (None, CAUSAL, [true, false]),
        (None, ROUTE, [false, true]),
    ] {
        let matched = match_questions(&questions, vec![right(1, video, category)]).unwrap();
        let is_answered = |of: &Prediction| of.output != PredictionOutput::Unanswered;
        let answered: Vec<bool> = matched.outputs.iter().map(is_answered).collect();
        assert_eq!(answered, expected);
        // The question set's own category and video.
        assert_eq!(matched.outputs[1].category, ROUTE);
        assert_eq!(matched.outputs[1].video.as_deref(), Some("b.mp4"));
    }
    let same = [question(1, Some("a.mp4"), ROUTE), question(1, Some("b.mp4"), ROUTE)];
    let error = match_questions(&same, vec![right(1, None, ROUTE)]).unwrap_err().to_string();
    assert!(error.contains("question `1` is about several videos"), "{error}");
}

#[test]
fn the_reference_answers_are_those_of_the_question_set() {
    let questions = [question(1, None, CAUSAL), question(2, None, CAUSAL)];
    let forged = Prediction {
        solution: "A".to_owned(),
        output: PredictionOutput::Answer("A".to_owned()),
        ..right(1, None, CAUSAL)
    };
    let matched = match_questions(&questions, vec![forged, right(2, None, CAUSAL)]).unwrap();
    assert_eq!(matched.other_solutions, 1);
    assert_eq!(score(named("embodied-r"), &matched.outputs).unwrap().overall, 50.0);
}

#[test]
fn records_of_other_questions_are_counted_and_none_alone_is_an_error() {
    let questions = [question(1, None, CAUSAL)];
    let records = vec![right(1, None, CAUSAL), right(9, None, CAUSAL)];
    let matched = match_questions(&questions, records).unwrap();
    assert_eq!((matched.outputs.len(), matched.others), (1, 1));
    let error = match_questions(&questions, vec![right(9, None, CAUSAL)]).unwrap_err();
    assert_eq!(error.to_string(), "none of the 1 records is of a question in the question set");
}

#[test]
fn two_records_of_one_question_are_refused() {
    let questions = [question(1, Some("a.mp4"), CAUSAL)];
    let records = vec![right(1, Some("a.mp4"), CAUSAL), right(1, None, CAUSAL)];
    let error = match_questions(&questions, records).unwrap_err().to_string();
    assert!(error.starts_with("question `1` about `a.mp4` is in one record"), "{error}");
}

#[test]
fn a_question_without_samples_has_none_correct() {
    let questions = [1, 2].map(|id| question(id, None, CAUSAL));
    let samples = vec!["<answer>B</answer>".to_owned(), "<answer>A</answer>".to_owned()];
    let matched =
        match_questions(&questions, vec![SampledQuestion::new(&questions[1], samples)]).unwrap();
    let report = score_samples(named("embodied-r"), &matched.outputs, &[1, 2], None).unwrap();
    assert_eq!((report.n, report.overall, report.coverage.unanswered), (2, 25.0, 1));
    assert_eq!(report.pass_at.unwrap().overall[&2], 50.0);
}
