use serde_json::{Value, json};

use super::*;

/// A temporary folder with these files.
fn folder(files: &[(&str, Value)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, value) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, value.to_string()).unwrap();
    }
    folder
}

fn ego(id: &str) -> Value {
    json!({"q_uid": id, "google_drive_id": "drive-1", "question": "What does the wearer do?",
        "option 0": "washes\n a cup", "option 1": "reads", "option 2": "C. walks",
        "option 3": "sleeps", "option 4": "cooks"})
}

fn navigation() -> Value {
    json!({"video": "walk-1.mp4", "question": "Which move comes next?",
        "candidates": ["Turn left", "Stop", "Go on"], "answer": "Stop", "note": 3})
}

/// Reads EgoSchema's two files.
fn read_ego(questions: Value, answers: Value) -> Result<QuestionSet> {
    let folder = folder(&[("questions.json", questions), ("subset_answers.json", answers)]);
    read_question_set(&folder.path().join("questions.json"), None)
}

fn read_navigation(questions: Value) -> Result<QuestionSet> {
    let folder = folder(&[("moves.json", questions)]);
    read_question_set(&folder.path().join("moves.json"), None)
}

/// The indices of the records.
fn indices(set: &QuestionSet) -> Vec<usize> {
    set.places.iter().map(|place| place.index).collect()
}

/// The error message, with paths reduced to file names.
fn message(result: Result<QuestionSet>) -> String {
    let text = result.unwrap_err().to_string();
    let parts: Vec<&str> = text
        .split('`')
        .map(|part| if part.starts_with('/') { part.rsplit('/').next().unwrap() } else { part })
        .collect();
    parts.join("`")
}

#[test]
fn egoschema_becomes_lettered_questions_about_videos() {
    let set = read_ego(json!([ego("a-1")]), json!({"a-1": 2})).unwrap();
    let question = &set.questions[0];
    assert_eq!(set.format, QuestionFormat::EgoSchema);
    assert!(set.is_raw());
    assert_eq!(
        question.question,
        "Question: What does the wearer do?\n\nChoices:\nA. washes a cup\nB. reads\nC. C. walks\n\
         D. sleeps\nE. cooks"
    );
    assert_eq!((question.id().as_str(), question.answer.as_str()), ("a-1", "C"));
    assert_eq!(question.video_id.as_deref(), Some("a-1.mp4"));
    assert_eq!(question.scene_name.as_deref(), Some("a-1"));
    assert_eq!(question.question_category, "egoschema");
    assert_eq!(Value::from(question.extra.clone()), json!({"google_drive_id": "drive-1"}));
}

#[test]
fn questions_without_a_published_answer_are_skipped_and_counted() {
    let questions = json!([ego("a"), ego("b"), ego("c")]);
    let set = read_ego(questions, json!({"c": 0, "b": 4, "elsewhere": 1})).unwrap();
    let answers: Vec<_> = set.questions.iter().map(|q| (q.id(), q.answer.clone())).collect();
    assert_eq!(answers, [("b".into(), "E".into()), ("c".into(), "A".into())]);
    assert_eq!((set.unanswered, indices(&set)), (1, vec![1, 2]));
}

#[test]
fn the_answer_file_may_be_elsewhere_but_must_exist() {
    let folder =
        folder(&[("q/questions.json", json!([ego("a")])), ("right.json", json!({"a": 3}))]);
    let questions = folder.path().join("q/questions.json");
    let set = read_question_set(&questions, Some(&folder.path().join("right.json"))).unwrap();
    assert_eq!(set.questions[0].answer, "D");
    assert_eq!(
        message(read_question_set(&questions, None)),
        "`questions.json` has no answers; put `subset_answers.json` next to it, or pass that file \
         with `--answers`"
    );
}

#[test]
fn invalid_records_of_egoschema_are_reported_with_their_field() {
    let changed = |field: &str, value: Value| {
        let mut second = ego("b");
        second[field] = value;
        json!([ego("a"), second])
    };
    let mut missing = ego("b");
    missing.as_object_mut().unwrap().remove("option 3");
    for (questions, expected) in [
        (json!([ego("a"), missing]), "`option 3` in record 2 of `questions.json`: is missing"),
        (
            changed("option 3", json!(7)),
            "`option 3` in record 2 of `questions.json`: must be a string, not a number",
        ),
        (changed("option 0", json!(" ")), "`option 0` in record 2 of `questions.json`: is empty"),
        (
            changed("question", Value::Null),
            "`question` in record 2 of `questions.json`: must be a string, not null",
        ),
        (
            changed("q_uid", json!("a")),
            "`q_uid` in record 2 of `questions.json`: `a` is a duplicate of record 1",
        ),
        (
            changed("q_uid", json!("../secret")),
            "`q_uid` in record 2 of `questions.json`: `../secret` must be the name of a video \
             file",
        ),
        (json!([ego("a"), 3]), "record 2 of `questions.json` must be an object, not a number"),
    ] {
        assert_eq!(message(read_ego(questions, json!({"a": 0}))), expected);
    }
}

#[test]
fn invalid_answers_of_egoschema_are_reported_with_their_question() {
    for (answers, expected) in [
        (json!({"a": 5}), "must be an index from 0 to 4, not 5"),
        (json!({"a": -1}), "must be an index from 0 to 4, not -1"),
        (json!({"a": "2"}), "must be an index from 0 to 4, not a string"),
        (json!({"a": 1.5}), "must be an index from 0 to 4, not 1.5"),
        (json!({"a": null}), "must be an index from 0 to 4, not null"),
    ] {
        let expected = format!("the answer to `a` in `subset_answers.json` {expected}");
        assert_eq!(message(read_ego(json!([ego("a")]), answers)), expected);
    }
    assert_eq!(
        message(read_ego(json!([ego("a")]), json!({"other": 1}))),
        "`subset_answers.json` answers none of the questions in `questions.json`"
    );
    assert!(message(read_ego(json!([ego("a")]), json!([1]))).contains("an object of question ids"));
}

#[test]
fn a_duplicate_answer_is_an_error() {
    let folder = folder(&[("questions.json", json!([ego("a")]))]);
    let text = "{\"a\": 1, \"a\": 2}";
    std::fs::write(folder.path().join("subset_answers.json"), text).unwrap();
    assert_eq!(
        message(read_question_set(&folder.path().join("questions.json"), None)),
        "the answer to `a` in `subset_answers.json` is duplicated"
    );
}

#[test]
fn mvbench_becomes_lettered_questions_about_videos() {
    let set = read_navigation(json!([navigation()])).unwrap();
    let question = &set.questions[0];
    assert_eq!(set.format, QuestionFormat::MvBench);
    assert_eq!(
        question.question,
        "Question: Which move comes next?\n\nChoices:\nA. Turn left\nB. Stop\nC. Go on"
    );
    assert_eq!((question.id().as_str(), question.answer.as_str()), ("0", "B"));
    assert_eq!(question.video_id.as_deref(), Some("walk-1.mp4"));
    assert_eq!(question.question_category, "egocentric_navigation");
    assert_eq!(question.extra["note"], json!(3));
}

#[test]
fn a_video_of_mvbench_may_be_in_a_subfolder_but_not_outside() {
    let with = |video: &str| {
        let mut record = navigation();
        record["video"] = json!(video);
        read_navigation(json!([record]))
    };
    let question = with("part/walk.mp4").unwrap().questions.remove(0);
    assert_eq!(question.video_id.as_deref(), Some("walk.mp4"));
    assert_eq!(question.videos.as_deref(), Some("part/walk.mp4"));
    for hostile in ["../walk.mp4", "/etc/passwd", "a/../../b.mp4", "a\\b.mp4", ".."] {
        assert!(message(with(hostile)).starts_with("`video` in record 1"), "{hostile}");
    }
}

#[test]
fn invalid_records_of_mvbench_are_reported_with_their_field() {
    let changed = |field: &str, value: Value| {
        let mut second = navigation();
        second[field] = value;
        message(read_navigation(json!([navigation(), second])))
    };
    for (field, value, expected) in [
        (
            "answer",
            json!("Fly"),
            "`answer` in record 2 of `moves.json`: `Fly` is not one of the \
             candidates: Turn left, Stop, Go on",
        ),
        (
            "answer",
            json!(1),
            "`answer` in record 2 of `moves.json`: must be a string, not a \
             number",
        ),
        (
            "candidates",
            json!(["Stop", "Stop"]),
            "`answer` in record 2 of `moves.json`: `Stop` matches \
             several candidates",
        ),
        (
            "candidates",
            json!(["Stop", 4]),
            "`candidates[1]` in record 2 of `moves.json`: must be a \
             string, not a number",
        ),
        (
            "candidates",
            json!("Stop"),
            "`candidates` in record 2 of `moves.json`: must be an array, \
             not a string",
        ),
        (
            "candidates",
            json!(["Stop"]),
            "`candidates` in record 2 of `moves.json`: must have 2 to 8 \
             options, not 1",
        ),
    ] {
        assert_eq!(changed(field, value), expected);
    }
}

#[test]
fn a_benchmarks_folder_resolves_to_its_question_file() {
    let ego_answers = ("subset_answers.json", json!({"a": 0}));
    for (files, format) in [
        (vec![("questions.json", json!([ego("a")])), ego_answers], QuestionFormat::EgoSchema),
        (vec![("egocentric_navigation.json", json!([navigation()]))], QuestionFormat::MvBench),
        (vec![("json/egocentric_navigation.json", json!([navigation()]))], QuestionFormat::MvBench),
    ] {
        let folder = folder(&files);
        assert_eq!(QuestionSet::read(&folder.path().into(), None).unwrap().format, format);
    }
    let empty = folder(&[]);
    let read = QuestionSet::read(&empty.path().into(), None);
    assert!(matches!(read, Err(Error::NoDataFiles { .. })));
}

#[test]
fn several_files_are_one_set_with_the_places_of_their_records() {
    let official = |id: u32| json!([{"Question_id": id, "question": "q"}]);
    let folder = folder(&[
        ("a.json", official(1)),
        ("b.json", official(2)),
        ("moves.json", json!([navigation()])),
    ]);
    let data = |names: &[&str]| {
        DataFiles::new(names.iter().map(|name| folder.path().join(name)).collect())
    };
    let set = QuestionSet::read(&data(&["b.json", "a.json"]), None).unwrap();
    assert_eq!(set.questions.iter().map(Question::id).collect::<Vec<_>>(), ["2", "1"]);
    let place = |name: &str| RecordPlace { path: folder.path().join(name).into(), index: 0 };
    assert_eq!(set.places, [place("b.json"), place("a.json")]);
    set.reject_duplicates().unwrap();
    let twice = QuestionSet::read(&data(&["a.json", "a.json"]), None).unwrap();
    assert!(matches!(twice.reject_duplicates(), Err(Error::DuplicateQuestion { .. })));
    let mixed = QuestionSet::read(&data(&["a.json", "moves.json"]), None);
    assert!(matches!(mixed, Err(Error::DifferentFormats { .. })), "{mixed:?}");
}

#[test]
fn the_official_format_is_read_unchanged() {
    let official = json!([{"Question_id": 1, "question": "q", "candidates": ["mine"]}]);
    let folder = folder(&[("q.json", official), ("bad.json", json!([{"Question_id": 1}]))]);
    let set = read_question_set(&folder.path().join("q.json"), None).unwrap();
    assert_eq!((set.format, set.is_raw()), (QuestionFormat::Official, false));
    assert_eq!(set.questions[0].extra["candidates"], json!(["mine"]));
    let bad = message(read_question_set(&folder.path().join("bad.json"), None));
    assert_eq!(bad, "`question` in record 1 of `bad.json`: is missing (`Question_id` `1`)");
    let answers = folder.path().join("a.json");
    let unused = read_question_set(&folder.path().join("q.json"), Some(&answers));
    assert!(matches!(unused, Err(Error::AnswersUnused { .. })));
}

#[test]
fn an_unknown_format_is_named_with_its_columns() {
    let folder = folder(&[("q.json", json!([{"problem": "q", "answer": "A"}]))]);
    assert_eq!(
        message(read_question_set(&folder.path().join("q.json"), None)),
        "`q.json` is in no known format: a record needs `Question_id` and `question`, EgoSchema's `q_uid` or MVBench's \
         `candidates`; it has: `problem`, `answer`"
    );
}

#[test]
fn json_lines_are_read_with_the_numbers_of_their_lines() {
    let folder = folder(&[]);
    let path = folder.path().join("q.jsonl");
    let record = |id: u32| json!({"Question_id": id, "question": "q", "answer": id});
    std::fs::write(&path, format!("{}\n\n{}\n", record(1), record(2))).unwrap();
    let set = read_question_set(&path, None).unwrap();
    assert_eq!((set.questions.len(), indices(&set)), (2, vec![0, 2]));
    assert_eq!(set.questions[1].answer, "2");
    let records = read_records(&path).unwrap();
    assert_eq!(records[1], (2, record(2).as_object().unwrap().clone()));
    std::fs::write(&path, format!("{}\n{}\n", navigation(), navigation())).unwrap();
    let set = read_question_set(&path, None).unwrap();
    assert_eq!((set.format, indices(&set)), (QuestionFormat::MvBench, vec![0, 1]));
}

#[test]
fn a_byte_order_mark_is_skipped() {
    let folder = folder(&[]);
    let file = |name: &str, value: Value| {
        let path = folder.path().join(name);
        std::fs::write(&path, format!("\u{feff}{value}")).unwrap();
        path
    };
    let official = file("official.json", json!([{"Question_id": 7, "question": "q"}]));
    assert_eq!(read_question_set(&official, None).unwrap().questions.len(), 1);
    let moves = file("moves.json", json!([navigation()]));
    assert_eq!(read_question_set(&moves, None).unwrap().questions.len(), 1);
    let ego = file("questions.json", json!([ego("a")]));
    file("subset_answers.json", json!({"a": 1}));
    assert_eq!(read_question_set(&ego, None).unwrap().questions.len(), 1);
}
