use serde_json::json;

use super::*;

#[test]
fn a_type_is_read_by_its_name() {
    for name in
        ["multiple choice", "numerical", "regression", "OCR", "free-form", "text", "position"]
    {
        let answer_type = AnswerType::parse(name).unwrap();
        assert_eq!(answer_type.name(), name);
        assert_eq!(serde_json::to_value(answer_type).unwrap(), json!(name));
    }
}

fn of(columns: Value) -> Option<AnswerType> {
    AnswerType::of_columns(columns.as_object().unwrap())
}

#[test]
fn video_r1s_names_are_known() {
    for (name, expected) in [
        ("multiple choice", AnswerType::Choice),
        ("numerical", AnswerType::Number),
        ("regression", AnswerType::Regression),
        ("OCR", AnswerType::Ocr),
        ("free-form", AnswerType::FreeForm),
        (" Exact_Match", AnswerType::Text),
        ("position", AnswerType::Position),
    ] {
        assert_eq!(of(json!({"problem_type": name})), Some(expected), "{name}");
    }
}

#[test]
fn an_answer_shows_its_type_where_it_is_sure() {
    for (answer, expected) in [
        ("B", Some(AnswerType::Choice)),
        ("(C) the lamp", Some(AnswerType::Choice)),
        ("4", Some(AnswerType::Number)),
        ("12,000", Some(AnswerType::Number)),
        ("−2.5", Some(AnswerType::Number)),
        ("5 cm", Some(AnswerType::Number)),
        ("Yes", Some(AnswerType::Text)),
        ("false.", Some(AnswerType::Text)),
        (r#"["yes", "true"]"#, Some(AnswerType::Text)),
        (r#"["3", "three"]"#, Some(AnswerType::Number)),
        ("[0.25, 0, -0.75]", Some(AnswerType::Position)),
        ("[0.25, 0]", None),
        ("1/2", None),
        (r"$\frac{1}{2}$", None),
        ("5 or 6", None),
        ("10^3", None),
        ("the red lamp", None),
        ("", None),
    ] {
        assert_eq!(AnswerType::of_solution(answer), expected, "`{answer}`");
    }
    assert_eq!(
        AnswerType::of_question(json!({"problem_type": "OCR"}).as_object().unwrap(), "4"),
        Some(AnswerType::Ocr)
    );
}

#[test]
fn an_unknown_type_is_none() {
    for columns in [json!({}), json!({"problem_type": "grounding"}), json!({"problem_type": 3})] {
        assert_eq!(of(columns), None);
    }
}

#[test]
fn answer_type_goes_before_problem_type() {
    let columns = json!({"problem_type": "OCR", "answer_type": "text"});
    assert_eq!(of(columns), Some(AnswerType::Text));
}
