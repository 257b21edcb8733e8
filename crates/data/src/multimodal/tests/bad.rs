use proptest::prelude::*;

use super::*;

#[test]
fn bad_media_are_named_with_their_field() {
    let files = Files::new();
    let images = |images: Value| files.message(json!({"problem": "q", "images": images}));
    for (value, expected) in [
        (
            json!(["a.png", "gone.png"]),
            "`images[1]` in record 1 of `DIR/questions`: `gone.png` does not exist in `DIR`; pass the folder of its \
             files with `--image-dir`",
        ),
        (
            json!(["/gone.png"]),
            "`images[0]` in record 1 of `DIR/questions`: `/gone.png` does not exist",
        ),
        (json!(["videos"]), "`images[0]` in record 1 of `DIR/questions`: `videos` is a directory"),
        (
            json!(["a\u{0}b"]),
            "`images[0]` in record 1 of `DIR/questions`: `a\u{0}b` contains a NUL character",
        ),
        (json!([""]), "`images[0]` in record 1 of `DIR/questions`: is empty"),
        (
            json!([3]),
            "`images[0]` in record 1 of `DIR/questions`: must be a path, or an object with `bytes` or `path`, not a \
             number",
        ),
        (
            json!([null]),
            "`images[0]` in record 1 of `DIR/questions`: must be a path, or an object with `bytes` or `path`, not null",
        ),
        (
            json!({"path": null}),
            "`images` in record 1 of `DIR/questions`: has neither `bytes` nor `path`",
        ),
        (
            json!([{"path": ["a.png"]}]),
            "`images[0].path` in record 1 of `DIR/questions`: must be a path, not an array",
        ),
        (
            json!([{"bytes": "aGk="}]),
            "`images[0].bytes` in record 1 of `DIR/questions`: must be binary, as in parquet, or in a data URI in place \
             of the path, not a string",
        ),
        (
            json!(["https://x/a.png"]),
            "`images[0]` in record 1 of `DIR/questions`: `https://x/a.png` is a URL, and nothing is downloaded; give a \
             path",
        ),
        (
            json!(["data:image/png;base64,%"]),
            "`images[0]` in record 1 of `DIR/questions`: is not base64: Invalid symbol 37, offset 0.",
        ),
        (
            json!(["data:image/png,x"]),
            "`images[0]` in record 1 of `DIR/questions`: is a data URI without `;base64,`",
        ),
        (
            json!(vec!["a.png"; 10_000]),
            "record 1 of `DIR/questions` has 10000 images, more than 4096",
        ),
    ] {
        assert_eq!(images(value), expected);
    }
    let videos = |videos: Value| files.message(json!({"problem": "q", "videos": videos}));
    for (value, expected) in [
        (json!([[]]), "`videos[0]` in record 1 of `DIR/questions`: is a video without frames"),
        (
            json!([["a.png", "gone.png"]]),
            "`videos[0][1]` in record 1 of `DIR/questions`: `gone.png` does not exist in `DIR`; pass the folder of its \
             files with `--image-dir`",
        ),
        (
            json!([{"frames": ["a.png"], "fps": 0}]),
            "`videos[0].fps` in record 1 of `DIR/questions`: must be a number above 0",
        ),
        (
            json!([vec!["a.png"; 5000]]),
            "record 1 of `DIR/questions` has 5000 frames in a video, more than 4096",
        ),
    ] {
        assert_eq!(videos(value), expected);
    }
}

#[test]
fn a_missing_official_video_is_named() {
    let files = Files::new();
    let found = files.message(json!({"Question_id": 1, "question": "q", "videos": "x/gone.mp4"}));
    assert_eq!(
        found,
        "`videos` in record 1 of `DIR/questions`: the video `x/gone.mp4` does not exist; pass the folder of the videos \
         with `--video-dir` (`Question_id` `1`)"
    );
}

#[test]
fn bad_texts_and_roles_are_named() {
    let files = Files::new();
    let user = |content: Value| json!({"messages": [{"role": "user", "content": content}]});
    for (record, expected) in [
        (
            json!({"problem": "<image>a<image>", "images": ["a.png"]}),
            "record 1 of `DIR/questions` has 2 `<image>` markers but 1 image",
        ),
        (
            json!({"problem": "<image>q"}),
            "record 1 of `DIR/questions` has 1 `<image>` marker but 0 images",
        ),
        (
            json!({"Question_id": 1, "question": "<video><video>", "videos": "v.mp4"}),
            "record 1 of `DIR/questions` has 2 `<video>` markers but 1 video",
        ),
        (
            json!({"problem": 3}),
            "`problem` in record 1 of `DIR/questions`: must be a string, not a number",
        ),
        (
            json!({"problem": "q", "question": "q"}),
            "`problem` in record 1 of `DIR/questions`: `question` is there too; keep one of them",
        ),
        (
            json!({"problem": "q", "image": "a.png", "images": ["a.png"]}),
            "`images` in record 1 of `DIR/questions`: `image` is there too; keep one of them",
        ),
        (
            json!({"problem": "q", "answer": ["1", [2]]}),
            "`answer[1]` in record 1 of `DIR/questions`: must be a string or a number, not an array",
        ),
        (
            json!({"problem": "q", "options": ["a", 1]}),
            "`options[1]` in record 1 of `DIR/questions`: must be a string, not a number",
        ),
        (
            json!({"problem": "q", "path": "a.png", "data_type": "audio"}),
            "`data_type` in record 1 of `DIR/questions`: must be `image` or `video`, not `audio`",
        ),
        (
            json!({"Question_id": 1, "question": 3}),
            "`question` in record 1 of `DIR/questions`: must be a string, not a number (`Question_id` `1`)",
        ),
        (
            json!({"messages": [{"role": "tool", "content": "q"}]}),
            "`messages[0].role` in record 1 of `DIR/questions`: `tool` is not `system`, `user` (`human`) or `assistant` \
             (`gpt`, `bot`)",
        ),
        (
            json!({"messages": [{"content": "q"}]}),
            "`messages[0]` in record 1 of `DIR/questions`: has no `role` or `from`",
        ),
        (
            json!({"messages": [{"role": "user"}]}),
            "`messages[0]` in record 1 of `DIR/questions`: has no `content` or `value`",
        ),
        (
            json!({"messages": "q"}),
            "`messages` in record 1 of `DIR/questions`: must be a list of messages, not a string",
        ),
        (
            json!({"messages": []}),
            "`messages` in record 1 of `DIR/questions`: has no message of the user",
        ),
        (
            user(json!([{"type": "audio"}])),
            "`messages[0].content[0].type` in record 1 of `DIR/questions`: must be `text`, `image` or `video`",
        ),
        (
            user(json!([{"type": "text"}])),
            "`messages[0].content[0].text` in record 1 of `DIR/questions`: must be a string, not missing",
        ),
        (
            json!({"prompt": [{"role": "user", "content": [{"type": "image", "image": "a.png"}]}], "image": "b.png"}),
            "`images` in record 1 of `DIR/questions`: are also in the messages (`prompt[0].content[0].image`); keep one \
             of them",
        ),
        (
            json!({"messages": [
                {"role": "user", "content": "q"}, {"role": "assistant", "content": [{"type": "image"}]},
            ]}),
            "`messages[1].content[0]` in record 1 of `DIR/questions`: is not text; messages of the assistant cannot show \
             images",
        ),
        (json!(3), "record 1 of `DIR/questions` must be an object, not a number"),
        (
            json!({"text": "q"}),
            "`DIR/questions` is in no known format: a record needs `Question_id` and `question`, `problem`, `messages`, \
             `prompt` or `conversations`, maybe under another name (`--columns question=NAME`); it has: `text`",
        ),
        (
            json!({"question": "q", "candidates": ["a"], "answer": "a"}),
            "`DIR/questions` is in no known format: a record needs `Question_id` and `question`, `problem`, `messages`, \
             `prompt` or `conversations`, maybe under another name (`--columns question=NAME`); it has: `question`, `candidates`, `answer`",
        ),
    ] {
        assert_eq!(files.message(record), expected);
    }
}

#[test]
fn later_records_are_read_as_the_first_one() {
    let files = Files::new();
    let records = json!([{"problem": "q"}, {"messages": [{"role": "user", "content": "q"}]}]);
    assert_eq!(
        files.records_message(&records),
        "`question` in record 2 of `DIR/questions`: is missing; is it under another name? `--columns question=NAME`"
    );
}

#[test]
fn bad_records_are_skipped_and_counted_on_request() {
    let files = Files::new();
    let lines = "{\"problem\": \"one\"}\n{\"problem\": \"<image>\"}\n{\"problem\n\n3\n{\"problem\": \"two\"}";
    let options = ReadOptions { skip_bad_records: true, ..ReadOptions::default() };
    let set = files.read_text(lines.as_bytes(), &options).unwrap();
    assert_eq!(indices(&set), [0, 5]);
    let skipped: Vec<_> = set.skipped.iter().map(|(place, _)| place.index).collect();
    assert_eq!(skipped, [1, 2, 4]);
    assert!(set.skipped[0].1.ends_with("has 1 `<image>` marker but 0 images"), "{:?}", set.skipped);
    assert!(set.skipped[1].1.contains("record 3 of"), "{:?}", set.skipped);
    assert!(set.skipped[1].1.contains("is not JSON: EOF"), "{:?}", set.skipped);
    // Without any good record, the first error is the result.
    let error = files.read_text(b"[{\"problem\": 3}, 4]", &options).unwrap_err().to_string();
    assert!(error.contains("`problem` in record 1"), "{error}");
}

#[test]
fn files_without_records_or_in_no_format_are_refused() {
    let files = Files::new();
    let error = |text: &[u8]| {
        let error = files.read_text(text, &ReadOptions::default()).unwrap_err().to_string();
        error.replace(files.0.path().to_str().unwrap(), "DIR")
    };
    for empty in ["", "\n \r\n", "[]", "\u{feff}"] {
        assert_eq!(error(empty.as_bytes()), "`DIR/questions` has no questions", "{empty:?}");
    }
    assert!(error(b"[{\"problem\": \"q\"}").starts_with("cannot parse `DIR/questions`: EOF"));
    assert!(error(b"[{\"problem\": \"q\"}] 3").contains("trailing characters"));
    assert!(error(b"{\n\"problem\": \"q\"").starts_with("record 1 of `DIR/questions` is not JSON"));
    for (text, start) in
        [("id,question,answer\n1,Where?,A\n", "id,question,answer"), ("\n  \"a\"\n", "\"a\"")]
    {
        let expected = format!(
            "`DIR/questions` is not a question file: it starts with `{start}`; a JSON list of records, JSON lines or a \
             parquet table is needed"
        );
        assert_eq!(error(text.as_bytes()), expected);
    }
    let folder = read_samples(files.0.path(), &ReadOptions::default()).unwrap_err().to_string();
    assert!(folder.ends_with("is a directory; pass a question file in it"), "{folder}");
    assert!(error(b"{\"problem\": \"\xff\"}").contains("valid UTF-8"));
    let deep = "[".repeat(100_000);
    assert!(error(deep.as_bytes()).contains("recursion limit exceeded"));
    assert!(
        error(format!("{{\"problem\": {deep}").as_bytes()).contains("recursion limit exceeded")
    );
}

#[test]
fn one_object_over_several_lines_is_a_record() {
    let files = Files::new();
    let set = files.read_text(b"{\n\"problem\": \"q\"}", &ReadOptions::default()).unwrap();
    assert_eq!((set.samples.len(), indices(&set)), (1, vec![0]));
    let error = files.read_text(b"{\n\"data\": []}", &ReadOptions::default()).unwrap_err();
    assert!(error.to_string().ends_with("it has: `data`"), "{error}");
}

#[test]
fn a_column_that_no_record_has_cannot_be_renamed() {
    let files = Files::new();
    let columns = "images=pics".parse().unwrap();
    let options = ReadOptions { columns, ..ReadOptions::default() };
    let error = files.read_records(&json!([{"problem": "q"}]), &options).unwrap_err().to_string();
    assert!(error.ends_with("has no column `pics`; it has: `problem`"), "{error}");
}

#[test]
fn a_repeated_question_is_reported_by_record() {
    let files = Files::new();
    let lines = "{\"problem\": \"q\", \"id\": 4}\n\n{\"problem\": \"r\", \"id\": 4}";
    let set = files.read_text(lines.as_bytes(), &ReadOptions::default()).unwrap();
    let error = set.reject_duplicates().unwrap_err().to_string();
    assert!(error.contains("record 3 of") && error.contains("repeats record 1"), "{error}");
}

#[test]
fn several_files_may_have_different_formats() {
    let files = Files::new();
    let messages = json!([{"messages": [{"role": "user", "content": "one"}], "solution": "A"}]);
    for (name, records) in
        [("m.json", messages), ("h.json", json!([{"problem": "<image>"}, {"problem": "two"}]))]
    {
        std::fs::write(files.path(name), records.to_string()).unwrap();
    }
    let data = DataFiles::new(vec![files.path("m.json"), files.path("h.json")]);
    let options = ReadOptions { skip_bad_records: true, ..ReadOptions::default() };
    let set = SampleSet::read(&data, &options).unwrap();
    let texts: Vec<&str> = set.questions().map(|question| question.question.as_str()).collect();
    assert_eq!(texts, ["one", "two"]);
    let place = |name: &str, index| RecordPlace { path: files.path(name).into(), index };
    assert_eq!(set.places, [place("m.json", 0), place("h.json", 1)]);
    assert_eq!(set.skipped[0].0, place("h.json", 0));
}

/// JSON with the fields of question files.
fn arbitrary_json() -> impl Strategy<Value = Value> {
    let names = "Question_id|question|problem|prompt|messages|conversations|answer|solution|images|image|videos|video\
                 |path|data_type|options|role|from|content|value|type|text|bytes|fps|frames|reward_model|ground_truth|id";
    let texts = "user|human|gpt|system|image|video|text|a.png|v.mp4|videos|<image>|<video>q|data:;base64,aGk=|\u{0}|";
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        texts.prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 40, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((names, inner), 0..6)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_json_is_read_or_refused(records in prop::collection::vec(arbitrary_json(), 0..4), skip: bool) {
        let files = Files::new();
        let options = ReadOptions { skip_bad_records: skip, ..ReadOptions::default() };
        let count = records.len();
        if let Ok(set) = files.read_records(&Value::Array(records), &options) {
            prop_assert_eq!(set.samples.len() + set.skipped.len(), count);
            for sample in &set.samples {
                let places = |part: Part| {
                    sample.messages.iter().flat_map(|m| &m.content).filter(|other| **other == part).count()
                };
                prop_assert_eq!(places(Part::Image), sample.media.images.len());
                prop_assert_eq!(places(Part::Video), sample.media.videos.len());
            }
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), table: bool) {
        let files = Files::new();
        let bytes = if table { [b"PAR1".as_slice(), &bytes, b"PAR1"].concat() } else { bytes };
        let _ = files.read_text(&bytes, &ReadOptions::default());
    }
}

#[test]
fn captions_that_would_be_shown_or_that_nothing_replaces_are_errors() {
    let files = Files::new();
    let captions =
        json!({"Question_id": 1, "question": "Frame 0: Observe: a lamp", "videos": "v.mp4"});
    assert_eq!(
        files.message(captions),
        "record 1 of `DIR/questions` contains captions but neither `original_question` nor a final `Question:`, so a \
         model that sees would read the captions"
    );
    let unseen =
        json!({"Question_id": 1, "question": "Frame 0: a lamp", "original_question": "Where?"});
    assert_eq!(
        files.message(unseen),
        "record 1 of `DIR/questions` has captions, which a model that sees is not given, but no image or video"
    );
}

#[test]
fn a_text_alone_is_shown_whatever_it_looks_like() {
    let question = "Frame 0:\nFrame 1:\nQuestion: Where?";
    let sample = Files::new().sample(json!({"Question_id": 1, "question": question}));
    assert_eq!(sample.question.question, question);
    assert_eq!(sample.messages, user(&[text(question)]));
}
