use serde_json::json;

use super::*;

/// A folder with these files.
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

/// EgoSchema's two files, read.
fn read_ego(questions: Value, answers: Value) -> Result<QuestionSet> {
    let folder = folder(&[("questions.json", questions), ("subset_answers.json", answers)]);
    read_question_set(&folder.path().join("questions.json"), None)
}

fn read_navigation(questions: Value) -> Result<QuestionSet> {
    let folder = folder(&[("moves.json", questions)]);
    read_question_set(&folder.path().join("moves.json"), None)
}

/// The message, with the folders of its paths left out.
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
    assert_eq!(set.form, Form::EgoSchema);
    assert!(set.is_unperceived());
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
fn questions_without_a_published_answer_are_left_out_and_counted() {
    let questions = json!([ego("a"), ego("b"), ego("c")]);
    let set = read_ego(questions, json!({"c": 0, "b": 4, "elsewhere": 1})).unwrap();
    let answers: Vec<_> = set.questions.iter().map(|q| (q.id(), q.answer.clone())).collect();
    assert_eq!(answers, [("b".into(), "E".into()), ("c".into(), "A".into())]);
    assert_eq!((set.unanswered, set.places), (1, vec![1, 2]));
}

#[test]
fn answers_may_lie_elsewhere_and_must_lie_somewhere() {
    let folder =
        folder(&[("q/questions.json", json!([ego("a")])), ("right.json", json!({"a": 3}))]);
    let questions = folder.path().join("q");
    let set = read_question_set(&questions, Some(&folder.path().join("right.json"))).unwrap();
    assert_eq!(set.questions[0].answer, "D");
    assert_eq!(
        message(read_question_set(&questions, None)),
        "`questions.json` holds no answers; put `subset_answers.json` beside it, or name that file \
         with `--answers`"
    );
}

#[test]
fn wrong_records_of_egoschema_are_named_with_their_field() {
    let changed = |field: &str, value: Value| {
        let mut second = ego("b");
        second[field] = value;
        json!([ego("a"), second])
    };
    let mut missing = ego("b");
    missing.as_object_mut().unwrap().remove("option 3");
    for (questions, told) in [
        (json!([ego("a"), missing]), "`option 3` in record 2 of `questions.json`: is missing"),
        (
            changed("option 3", json!(7)),
            "`option 3` in record 2 of `questions.json`: should be text, but is a number",
        ),
        (changed("option 0", json!(" ")), "`option 0` in record 2 of `questions.json`: is empty"),
        (
            changed("question", Value::Null),
            "`question` in record 2 of `questions.json`: should be text, but is null",
        ),
        (
            changed("q_uid", json!("a")),
            "`q_uid` in record 2 of `questions.json`: `a` is that of record 1 too",
        ),
        (
            changed("q_uid", json!("../secret")),
            "`q_uid` in record 2 of `questions.json`: `../secret` should be the name of a video \
             file",
        ),
        (json!([ego("a"), 3]), "record 2 of `questions.json` is a number, should be an object"),
    ] {
        assert_eq!(message(read_ego(questions, json!({"a": 0}))), told);
    }
}

#[test]
fn wrong_answers_of_egoschema_are_named_with_their_question() {
    for (answers, told) in [
        (json!({"a": 5}), "is 5, should be an index from 0 to 4"),
        (json!({"a": -1}), "is -1, should be an index from 0 to 4"),
        (json!({"a": "2"}), "is text, should be an index from 0 to 4"),
        (json!({"a": 1.5}), "is 1.5, should be an index from 0 to 4"),
        (json!({"a": null}), "is null, should be an index from 0 to 4"),
    ] {
        let told = format!("the answer to `a` in `subset_answers.json` {told}");
        assert_eq!(message(read_ego(json!([ego("a")]), answers)), told);
    }
    assert_eq!(
        message(read_ego(json!([ego("a")]), json!({"other": 1}))),
        "`subset_answers.json` answers none of the questions in `questions.json`"
    );
    assert!(message(read_ego(json!([ego("a")]), json!([1]))).contains("an object of question ids"));
}

#[test]
fn an_answer_that_is_given_twice_is_refused() {
    let folder = folder(&[("questions.json", json!([ego("a")]))]);
    let text = "{\"a\": 1, \"a\": 2}";
    std::fs::write(folder.path().join("subset_answers.json"), text).unwrap();
    assert_eq!(
        message(read_question_set(folder.path(), None)),
        "the answer to `a` in `subset_answers.json` is given twice"
    );
}

#[test]
fn mvbench_becomes_lettered_questions_about_videos() {
    let set = read_navigation(json!([navigation()])).unwrap();
    let question = &set.questions[0];
    assert_eq!(set.form, Form::MvBench);
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
fn a_video_of_mvbench_may_lie_in_a_folder_and_not_outside() {
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
fn wrong_records_of_mvbench_are_named_with_their_field() {
    let changed = |field: &str, value: Value| {
        let mut second = navigation();
        second[field] = value;
        message(read_navigation(json!([navigation(), second])))
    };
    for (field, value, told) in [
        (
            "answer",
            json!("Fly"),
            "`answer` in record 2 of `moves.json`: `Fly` is none of the \
             candidates: Turn left, Stop, Go on",
        ),
        (
            "answer",
            json!(1),
            "`answer` in record 2 of `moves.json`: should be text, but is a \
             number",
        ),
        (
            "candidates",
            json!(["Stop", "Stop"]),
            "`answer` in record 2 of `moves.json`: `Stop` is a \
             candidate twice",
        ),
        (
            "candidates",
            json!(["Stop", 4]),
            "`candidates[1]` in record 2 of `moves.json`: should be \
             text, but is a number",
        ),
        (
            "candidates",
            json!("Stop"),
            "`candidates` in record 2 of `moves.json`: should be a list, \
             but is text",
        ),
        (
            "candidates",
            json!(["Stop"]),
            "`candidates` in record 2 of `moves.json`: should be 2 to 8 \
             options, but there are 1",
        ),
    ] {
        assert_eq!(changed(field, value), told);
    }
}

#[test]
fn a_benchmarks_folder_stands_for_its_file() {
    let ego_answers = ("subset_answers.json", json!({"a": 0}));
    for (files, form) in [
        (vec![("questions.json", json!([ego("a")])), ego_answers], Form::EgoSchema),
        (vec![("egocentric_navigation.json", json!([navigation()]))], Form::MvBench),
        (vec![("json/egocentric_navigation.json", json!([navigation()]))], Form::MvBench),
    ] {
        let folder = folder(&files);
        assert_eq!(read_question_set(folder.path(), None).unwrap().form, form);
    }
    let empty = folder(&[]);
    assert!(matches!(read_question_set(empty.path(), None), Err(Error::NoQuestions { .. })));
}

#[test]
fn the_official_form_is_read_as_ever() {
    let official = json!([{"Question_id": 1, "question": "q", "candidates": ["mine"]}]);
    let folder = folder(&[("q.json", official), ("bad.json", json!([{"Question_id": 1}]))]);
    let set = read_question_set(&folder.path().join("q.json"), None).unwrap();
    assert_eq!((set.form, set.is_unperceived()), (Form::Official, false));
    assert_eq!(set.questions[0].extra["candidates"], json!(["mine"]));
    let bad = message(read_question_set(&folder.path().join("bad.json"), None));
    assert!(bad.contains("missing field `question`"), "{bad}");
    let answers = folder.path().join("a.json");
    let unused = read_question_set(&folder.path().join("q.json"), Some(&answers));
    assert!(matches!(unused, Err(Error::AnswersUnused { .. })));
}
