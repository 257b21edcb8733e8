use super::*;

#[test]
fn an_official_question_has_images_and_its_video() {
    let files = Files::new();
    let sample = files.sample(json!({
        "Question_id": 7, "question": "<video> Then <image> here?", "answer": "B", "scene_name": "s",
        "images": ["a.png"], "videos": "v.mp4", "note": 3,
    }));
    let expected = [Part::Video, text(" Then "), Part::Image, text(" here?")];
    assert_eq!(sample.messages, user(&expected));
    assert_eq!(sample.media.images, [files.image("a.png")]);
    assert_eq!(sample.media.videos, [Video::File(files.image("v.mp4"))]);
    let question = &sample.question;
    assert_eq!((question.id().as_str(), question.answer.as_str()), ("7", "B"));
    assert_eq!(question.question, "Then  here?");
    assert_eq!(question.videos.as_deref(), Some("v.mp4"));
    assert_eq!(Value::Object(question.extra.clone()), json!({"images": ["a.png"], "note": 3}));
}

#[test]
fn an_official_video_is_found_as_by_perceive() {
    let files = Files::new();
    let video = |record: Value, options: &ReadOptions| {
        let set = files.read_records(&json!([record]), options).unwrap();
        set.samples[0].media.videos.clone()
    };
    let record = |videos: Value| json!({"Question_id": 1, "question": "q", "videos": videos});
    let plain = ReadOptions::default();
    let found = |name: &str| vec![Video::File(files.image(name))];
    assert_eq!(video(record(json!("elsewhere/w.mp4")), &plain), found("videos/w.mp4"));
    assert_eq!(video(record(json!("v")), &plain), found("v.mp4"));
    let by_id = json!({"Question_id": 1, "question": "q", "video_id": "../../w.mp4"});
    assert_eq!(video(by_id, &plain), found("videos/w.mp4"));
    let folder = |path| ReadOptions { video_dir: Some(path), ..ReadOptions::default() };
    assert_eq!(video(record(json!("x/v.mp4")), &folder(files.path(""))), found("v.mp4"));
    let root = ReadOptions { image_dir: Some(files.path("videos")), ..ReadOptions::default() };
    assert_eq!(video(record(json!("w.mp4")), &root), found("videos/w.mp4"));
    // A list is one of paths, as in other formats.
    let listed = video(record(json!(["v.mp4", ["a.png", "b.png"]])), &plain);
    assert_eq!(listed[0], found("v.mp4")[0]);
    let frames = vec![files.image("a.png"), files.image("b.png")];
    assert_eq!(listed[1], Video::Frames { frames, fps: Some(2.0) });
}

#[test]
fn frames_without_a_rate_are_two_per_second() {
    let files = Files::new();
    let frames = || vec![files.image("a.png"), files.image("b.png")];
    for (video, fps) in [
        (json!(["a.png", "b.png"]), 2.0),
        (json!({"frames": ["a.png", "b.png"]}), 2.0),
        (json!({"video": ["a.png", "b.png"], "fps": null}), 2.0),
        (json!({"video": ["a.png", "b.png"], "fps": 0.5}), 0.5),
    ] {
        let messages = json!([{"role": "user", "content": "<video>Which?"}]);
        let sample = files.sample(json!({"messages": messages, "videos": [video]}));
        assert_eq!(sample.media.videos, [Video::Frames { frames: frames(), fps: Some(fps) }]);
    }
}

#[test]
fn of_several_answers_in_a_list_any_counts() {
    let files = Files::new();
    let messages = json!([{"role": "user", "content": "q"}]);
    for record in [
        json!({"problem": "q", "answer": ["4", "<answer>four</answer>"]}),
        json!({"Question_id": 1, "question": "q", "answer": [4, "four"]}),
        json!({"messages": messages, "solution": ["4", "four"]}),
        json!({"prompt": messages, "reward_model": {"ground_truth": ["4", "four"]}}),
    ] {
        let question = files.sample(record.clone()).question;
        assert_eq!(question.answer, "4", "{record}");
        assert_eq!(question.accepted_answers(), ["4", "four"], "{record}");
        // Also after it was written.
        let written = serde_json::to_value(question).unwrap();
        let read: Question = serde_json::from_value(written).unwrap();
        assert_eq!(read.accepted_answers(), ["4", "four"], "{record}");
    }
    let one = files.sample(json!({"problem": "q", "answer": ["A"]})).question;
    assert_eq!((one.accepted_answers(), one.extra.len()), (vec!["A"], 0));
}

#[test]
fn a_benchmarks_question_becomes_a_sample_with_its_video() {
    let files = Files::new();
    let record = json!({"video": "w.mp4", "question": "Next?", "candidates": ["Stop", "Go"], "answer": "Go"});
    std::fs::write(files.path("moves.json"), json!([record]).to_string()).unwrap();
    let set = crate::read_question_set(&files.path("moves.json"), None).unwrap();
    let options = ReadOptions::default();
    let sample = sample_of_question(&set.questions[0], &set.places[0], &options).unwrap();
    assert_eq!(sample.media.videos, [Video::File(files.image("videos/w.mp4"))]);
    assert_eq!(sample.question, set.questions[0]);
    let expected = text("Question: Next?\n\nChoices:\nA. Stop\nB. Go");
    assert_eq!(sample.messages, user(&[Part::Video, expected]));
    std::fs::remove_file(files.path("videos/w.mp4")).unwrap();
    let place = RecordPlace { index: 6, ..set.places[0].clone() };
    let error = sample_of_question(&set.questions[0], &place, &options).unwrap_err();
    assert!(error.to_string().contains("in record 7 of"), "{error}");
}

#[test]
fn the_name_of_a_video_is_no_video_of_a_question_with_images() {
    let files = Files::new();
    let record =
        json!({"Question_id": 1, "question": "q", "video_id": "gone.mp4", "images": ["a.png"]});
    assert_eq!(files.sample(record).media.videos, []);
}

#[test]
fn an_official_question_about_text_is_read_unchanged() {
    let files = Files::new();
    let records =
        json!([{"Question_id": 1, "question": " <image> is a tag\n", "answer": "A", "x": [1]}]);
    let set = files.read_records(&records, &ReadOptions::default()).unwrap();
    let plain = crate::question::read_questions(&set.files[0]).unwrap();
    assert_eq!(set.samples, [Sample::from_text(plain[0].clone())]);
    assert_eq!(set.samples[0].messages, user(&[text(" <image> is a tag\n")]));
}

#[test]
fn a_text_model_ignores_media_and_markers() {
    let files = Files::new();
    let options = ReadOptions { media: MediaUse::Ignored, ..ReadOptions::default() };
    for record in [
        json!({"Question_id": 1, "question": "<image>q", "images": ["gone.png"], "videos": "gone.mp4"}),
        json!({"problem": "<image>q", "images": ["gone.png", 3]}),
        json!({"messages": [{"role": "user", "content": "<image>q"}], "images": "gone.png"}),
        json!({"prompt": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "<image>q"}]}]}),
    ] {
        let set = files.read_records(&json!([record]), &options).unwrap();
        assert_eq!(set.samples[0].messages, user(&[text("<image>q")]));
        assert_eq!(set.samples[0].question.question, "<image>q");
        assert!(set.samples[0].media.is_empty());
    }
}

#[test]
fn a_hugging_face_record_becomes_a_question() {
    let files = Files::new();
    let sample = files.sample(json!({
        "problem": "<image>Left of <image>?", "answer": 4, "images": ["a.png", {"bytes": null, "path": "b.png"}],
        "data_source": "clevr", "solution": "long", "level": 2,
    }));
    assert_eq!(sample.messages, user(&[Part::Image, text("Left of "), Part::Image, text("?")]));
    assert_eq!(sample.media.images, [files.image("a.png"), files.image("b.png")]);
    let question = &sample.question;
    assert_eq!((question.question.as_str(), question.answer.as_str()), ("Left of ?", "4"));
    assert_eq!((question.id().as_str(), question.question_category.as_str()), ("0", "clevr"));
    let extra = json!({
        "data_source": "clevr", "solution": "long", "level": 2,
        "images": ["a.png", {"bytes": null, "path": "b.png"}],
    });
    assert_eq!(Value::Object(question.extra.clone()), extra);
}

#[test]
fn options_are_added_to_a_problem_that_lacks_them() {
    let files = Files::new();
    let problem = |problem: &str, kind: &str| {
        let record = json!({
            "problem": problem, "problem_type": kind, "options": ["A. left", "B. right"], "answer": "A",
        });
        files.sample(record).question.question
    };
    assert_eq!(problem("Where?", "multiple choice"), "Where?\nOptions:\nA. left\nB. right\n");
    assert_eq!(problem("Where?\n", "multiple choice"), "Where?\nOptions:\nA. left\nB. right\n");
    assert_eq!(problem("A. left or B. right?", "multiple choice"), "A. left or B. right?");
    assert_eq!(problem("Where?", "free-form"), "Where?");
}

#[test]
fn an_embodied_r15_record_may_point() {
    let files = Files::new();
    let boxes = json!({"boxes": [10, 20, 300, 400]});
    let record = |key: &str, answer: Value| {
        json!({
            "problem_id": 7, "problem": "<image>Where is the mug?", "problem_type": "spatial grounding",
            "data_type": "image", "data_source": "refspatial", "options": [], "images": ["a.png"], key: answer,
        })
    };
    for key in ["answer", "ground_truth"] {
        for answer in [boxes.clone(), json!(boxes.to_string())] {
            let Sample { question, media, .. } = files.sample(record(key, answer));
            assert_eq!((question.id().as_str(), question.category()), ("7", "refspatial"));
            assert_eq!(question.solution(), r#"{"boxes":[10,20,300,400]}"#);
            assert_eq!(question.extra["problem_type"], "spatial grounding");
            assert_eq!(media.images, [files.image("a.png")]);
        }
    }
    let points = json!([{"point_2d": [1, 2]}, {"point_2d": [3, 4]}]);
    let question = files.sample(record("answer", points.clone())).question;
    assert_eq!(question.accepted_answers(), [points.to_string()]);
}

#[test]
fn a_video_r1_record_has_its_file_in_path() {
    let files = Files::new();
    let record = |kind: &str, path: &str| {
        json!({
            "problem_id": 3, "problem": "How far?", "problem_type": "regression", "data_type": kind, "path": path,
            "options": [], "solution": "<answer> 2.5 </answer>", "process": "<think>far</think>",
        })
    };
    let sample = files.sample(record("video", "./v.mp4"));
    let reply = text("<think>far</think>\n<answer> 2.5 </answer>");
    let expected =
        [message(Role::User, &[Part::Video, text("How far?")]), message(Role::Assistant, &[reply])];
    assert_eq!(sample.messages, expected);
    assert_eq!(sample.prompt(), &expected[..1]);
    assert_eq!(sample.media.videos, [Video::File(files.image("./v.mp4"))]);
    assert_eq!((sample.question.id().as_str(), sample.question.answer.as_str()), ("3", "2.5"));
    assert_eq!(sample.question.videos.as_deref(), Some("./v.mp4"));
    let extra = json!({"problem_type": "regression", "data_type": "video", "options": []});
    assert_eq!(Value::Object(sample.question.extra), extra);
    assert_eq!(files.sample(record("image", "a.png")).media.images, [files.image("a.png")]);
}

#[test]
fn messages_keep_their_turns_and_a_video_may_be_frames() {
    let files = Files::new();
    let sample = files.sample(json!({
        "messages": [
            {"role": "system", "content": "s"},
            {"role": "user", "content": "<video>a"},
            {"role": "assistant", "content": "<image>"},
            {"role": "user", "content": "<image>b"},
        ],
        "images": "a.png",
        "videos": [{"frames": ["a.png", "b.png"], "fps": 2}],
        "solution": "C",
    }));
    let expected = [
        message(Role::System, &[text("s")]),
        message(Role::User, &[Part::Video, text("a")]),
        message(Role::Assistant, &[text("<image>")]),
        message(Role::User, &[Part::Image, text("b")]),
    ];
    assert_eq!(sample.messages, expected);
    assert_eq!(sample.prompt(), expected);
    assert_eq!((sample.question.question.as_str(), sample.question.answer.as_str()), ("b", "C"));
    let frames = vec![files.image("a.png"), files.image("b.png")];
    assert_eq!(sample.media.videos, [Video::Frames { frames, fps: Some(2.0) }]);
    let extra = json!({"images": ["a.png"], "videos": [{"frames": ["a.png", "b.png"], "fps": 2}]});
    assert_eq!(Value::Object(sample.question.extra), extra);
}

#[test]
fn a_verl_record_has_its_answer_in_the_reward_model() {
    let files = Files::new();
    let model = json!({"style": "rule", "ground_truth": 12});
    let sample = files.sample(json!({
        "data_source": "geo3k", "prompt": [{"role": "user", "content": "<image>x?"}],
        "images": [{"image": "a.png"}], "reward_model": model,
    }));
    assert_eq!(sample.messages, user(&[Part::Image, text("x?")]));
    assert_eq!(sample.media.images, [files.image("a.png")]);
    assert_eq!(sample.question.answer, "12");
    assert_eq!(sample.question.extra["reward_model"], model);
}

#[test]
fn trls_prompts_have_texts_or_typed_parts() {
    let files = Files::new();
    let sample = files.sample(json!({
        "prompt": [{"role": "user", "content": [
            {"type": "text", "text": "a <image>"}, {"type": "image"}, {"type": "text", "text": ""},
        ]}],
        "image": "a.png", "solution": "<answer>left</answer>",
        "completion": [{"role": "assistant", "content": "Left."}],
    }));
    // Text in a typed part has no markers.
    let expected = [
        message(Role::User, &[text("a <image>"), Part::Image]),
        message(Role::Assistant, &[text("Left.")]),
    ];
    assert_eq!(sample.messages, expected);
    // A column goes before the last turn.
    assert_eq!(sample.question.answer, "left");
    let plain = files.sample(json!({"prompt": "Where?", "images": ["a.png"], "answer": "A"}));
    assert_eq!(plain.messages, user(&[Part::Image, text("Where?")]));
}

#[test]
fn parts_may_carry_their_media() {
    let files = Files::new();
    let sample = files.sample(json!({"messages": [{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": "file:///a.png".replace("/a.png", files.path("a.png").to_str().unwrap())}},
        {"type": "video", "video": ["b.png", "c.png"], "fps": 0.5},
        {"type": "image", "image": "c.png", "text": null},
    ]}]}));
    assert_eq!(sample.messages, user(&[Part::Image, Part::Video, Part::Image]));
    assert_eq!(sample.media.images, [files.image("a.png"), files.image("c.png")]);
    let frames = vec![files.image("b.png"), files.image("c.png")];
    assert_eq!(sample.media.videos, [Video::Frames { frames, fps: Some(0.5) }]);
}

#[test]
fn llavas_conversations_are_messages() {
    let files = Files::new();
    let turns = json!([
        {"from": "human", "value": "<image>\nWhere?"}, {"from": "gpt", "value": "Left."},
    ]);
    let sample = files.sample(json!({"id": "000-1", "image": "a.png", "conversations": turns}));
    let expected = [
        message(Role::User, &[Part::Image, text("\nWhere?")]),
        message(Role::Assistant, &[text("Left.")]),
    ];
    assert_eq!(sample.messages, expected);
    assert_eq!(sample.prompt(), &expected[..1]);
    assert_eq!(
        (sample.question.id().as_str(), sample.question.answer.as_str()),
        ("000-1", "Left.")
    );
    assert_eq!(sample.question.question, "Where?");
    let two = json!([{"from": "human", "value": "Which?"}]);
    let sample = files.sample(json!({"image": ["a.png", "b.png"], "conversations": two}));
    assert_eq!(sample.messages, user(&[Part::Image, Part::Image, text("Which?")]));
    // LLaVA-Video marks a video by `<image>`.
    let sample = files.sample(json!({"video": "v.mp4", "conversations": turns}));
    assert_eq!(sample.messages[0].content, [Part::Video, text("\nWhere?")]);
}

#[test]
fn relative_paths_are_in_the_image_folder_if_there_is_one() {
    let files = Files::new();
    let elsewhere = tempfile::tempdir().unwrap();
    std::fs::write(elsewhere.path().join("d.png"), "d").unwrap();
    let options =
        ReadOptions { image_dir: Some(elsewhere.path().into()), ..ReadOptions::default() };
    let absolute = files.path("a.png");
    let record = json!({"problem": "q", "images": ["d.png", absolute]});
    let set = files.read_records(&json!([record]), &options).unwrap();
    let found = [MediaFile::Path(elsewhere.path().join("d.png")), files.image("a.png")];
    assert_eq!(set.samples[0].media.images, found);
}

#[test]
fn data_uris_are_bytes() {
    let files = Files::new();
    let sample = files.sample(json!({"problem": "q", "images": ["data:image/png;base64,aGk="]}));
    let bytes = MediaFile::Bytes { bytes: Arc::from(*b"hi"), name: "images[0]".to_owned() };
    assert_eq!(sample.media.images, [bytes]);
    assert_eq!(sample.media.image_names(), ["images[0]"]);
}

#[test]
fn columns_are_renamed_before_the_format_is_detected() {
    let files = Files::new();
    let columns = "question=ask,images=pics,answer=label".parse().unwrap();
    let options = ReadOptions { columns, ..ReadOptions::default() };
    let records =
        json!([{"ask": "<image>q", "pics": ["a.png"], "label": "A"}, {"ask": "q", "label": "B"}]);
    let set = files.read_records(&records, &options).unwrap();
    assert_eq!(set.format, SampleFormat::HuggingFace);
    assert_eq!(set.samples[0].messages, user(&[Part::Image, text("q")]));
    let answers: Vec<_> = set.questions().map(|question| question.answer.as_str()).collect();
    assert_eq!(answers, ["A", "B"]);
}

#[test]
fn a_list_and_lines_give_the_same_samples() {
    let files = Files::new();
    let record = |text: &str| json!({"problem": text, "answer": "A"}).to_string();
    let (one, two) = (record("one"), record("two"));
    let list = format!("\u{feff}\n [{one},\r\n {two}]\n");
    let lines = format!("\u{feff}{one}\r\n\r\n{two}\r\n");
    let options = ReadOptions::default();
    let list = files.read_text(list.as_bytes(), &options).unwrap();
    let lines = files.read_text(lines.as_bytes(), &options).unwrap();
    assert_eq!(indices(&list), [0, 1]);
    // The index in JSON lines is that of the line.
    assert_eq!(indices(&lines), [0, 2]);
    let texts = |set: &SampleSet| -> Vec<String> {
        set.questions().map(|question| question.question.clone()).collect()
    };
    assert_eq!(texts(&list), ["one", "two"]);
    assert_eq!(texts(&list), texts(&lines));
}
