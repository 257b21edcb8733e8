use super::*;

fn read_text(text: &str) -> Result<Vec<Prediction>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("predictions");
    std::fs::write(&path, text).unwrap();
    read(&path)
}

#[test]
fn several_reference_answers_are_a_list() {
    let text = r#"{"id": 1, "category": "c", "solution": ["4", "four"], "prediction": 4}"#;
    assert_eq!(read_text(text).unwrap()[0].solution, r#"["4","four"]"#);
}

#[test]
fn official_records_have_full_completions() {
    let text = r#"[{"Question_id": 7, "video_id": "a.mp4", "question_category": "Causal",
        "question": "q", "answer": "B", "content": "<answer> b </answer>", "response": null}]"#;
    assert_eq!(
        read_text(text).unwrap(),
        [Prediction {
            id: "7".to_owned(),
            video: Some("a.mp4".to_owned()),
            category: "Causal".to_owned(),
            solution: "B".to_owned(),
            question: "q".to_owned(),
            answer_type: None,
            row: None,
            columns: serde_json::from_str::<Vec<_>>(text).unwrap().remove(0),
            output: PredictionOutput::Completion("<answer> b </answer>".to_owned()),
        }]
    );
}

#[test]
fn a_record_without_a_video_id_is_named_by_the_path_of_its_video() {
    let of = |videos: &str| {
        read_text(&format!(
            r#"[{{"Question_id": 7, "question_category": "c", "videos": {videos}, "answer": "B",
                "content": "x"}}]"#
        ))
    };
    for (videos, expected) in [("\"a.mp4\"", Some("a.mp4")), ("[\"a.mp4\"]", None), ("null", None)]
    {
        assert_eq!(of(videos).unwrap()[0].video.as_deref(), expected, "{videos}");
    }
    assert!(of("5").unwrap_err().to_string().starts_with("`videos` in record 1"));
}

#[test]
fn the_kind_of_a_record_without_a_category_is_its_category() {
    let of = |fields: &str| {
        let record = format!(r#"[{{"Question_id": 7, {fields} "answer": "B", "content": "x"}}]"#);
        read_text(&record).map(|found| found[0].category.clone())
    };
    assert_eq!(of(r#""kind": "waypoint","#).unwrap(), "waypoint");
    assert_eq!(of(r#""question_category": "", "kind": "state","#).unwrap(), "state");
    assert_eq!(of(r#""question_category": "Causal", "kind": "state","#).unwrap(), "Causal");
    assert!(of("").unwrap_err().to_string().starts_with("`question_category` in record 1"));
}

#[test]
fn plain_records_have_verbatim_answers() {
    let text = "{\"id\": \"a\", \"category\": \"object_counting\", \"solution\": 4, \"prediction\": \" 4\"}\n\
                {\"id\": 2, \"category\": \"c\", \"solution\": \"B\", \"prediction\": 3}";
    let predictions = read_text(text).unwrap();
    assert_eq!(predictions[0].solution, "4");
    assert_eq!(predictions[0].output, PredictionOutput::Answer(" 4".to_owned()));
    assert_eq!(predictions[1].output, PredictionOutput::Answer("3".to_owned()));
}

#[test]
fn null_and_absent_predictions_are_missing() {
    let text = "{\"id\": 1, \"category\": \"c\", \"solution\": \"B\", \"prediction\": null}\n\
                {\"id\": 2, \"category\": \"c\", \"solution\": \"B\"}\n\
                {\"id\": 3, \"category\": \"c\", \"solution\": \"B\", \"prediction\": \"\"}";
    let outputs: Vec<_> = read_text(text).unwrap().into_iter().map(|p| p.output).collect();
    assert_eq!(
        outputs,
        [
            PredictionOutput::Missing,
            PredictionOutput::Missing,
            PredictionOutput::Answer(String::new())
        ]
    );
}

#[test]
fn a_file_without_any_prediction_is_an_error() {
    let text =
        r#"[{"Question_id": 7, "question_category": "Causal", "question": "q", "answer": "B"}]"#;
    assert_eq!(
        read_text(text).unwrap_err().to_string(),
        "none of the 1 records has a `content` or a `prediction`"
    );
}

#[test]
fn a_repeated_question_is_refused_with_both_records() {
    let line = |id: u32, video: &str, category: &str| {
        format!(
            "{{\"id\": {id}, {video}\"category\": \"{category}\", \"solution\": \"B\", \"prediction\": \"B\"}}\n"
        )
    };
    let (a, b) = ("\"video_id\": \"a.mp4\", ", "\"video_id\": \"b.mp4\", ");
    // Identifiers repeat across the benchmarks.
    assert_eq!(read_text(&[line(1, a, "c"), line(1, b, "c")].concat()).unwrap().len(), 2);
    assert_eq!(read_text(&[line(1, "", "c"), line(1, "", "d")].concat()).unwrap().len(), 2);
    for (text, of) in [
        ([line(1, a, "c"), line(2, a, "c"), line(1, a, "d")].concat(), " about `a.mp4`"),
        ([line(1, "", "c"), line(2, "", "c"), line(1, "", "c")].concat(), ""),
    ] {
        let message = read_text(&text).unwrap_err().to_string();
        let start = format!("question `1`{of} is in line 1 of `");
        assert!(message.starts_with(&start), "{message}");
        assert!(message.contains("` and again in line 3 of `"), "{message}");
    }
}

#[test]
fn a_missing_field_is_reported_with_its_line() {
    let text = "{\"id\": 1, \"category\": \"c\", \"solution\": \"B\", \"prediction\": \"B\"}\n\
                {\"id\": 2, \"solution\": \"B\", \"prediction\": \"B\"}";
    let message = read_text(text).unwrap_err().to_string();
    assert!(message.starts_with("`category` in line 2 of `"), "{message}");
}

#[test]
fn the_answer_of_a_completion_is_the_trimmed_text_of_its_tag() {
    let completion = |text: &str| PredictionOutput::Completion(text.to_owned());
    assert_eq!(completion("<think>A</think><answer>\n B. x </answer>").answer(), Some("B. x"));
    assert_eq!(completion("<think>A</think> B").answer(), None);
    assert_eq!(PredictionOutput::Answer(" B ".to_owned()).answer(), Some(" B "));
    assert_eq!(PredictionOutput::Missing.answer(), None);
}
