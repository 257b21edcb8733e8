use super::*;

/// The sample of the record that `sample` is written as.
fn reread(files: &Files, sample: &Sample) -> Sample {
    let record = serde_json::to_value(sample.to_record()).unwrap();
    files.sample(record)
}

#[test]
fn a_written_question_gives_the_same_prompt_and_media() {
    let files = Files::new();
    for record in [
        json!({"Question_id": 1, "question": "a <image> b", "images": ["a.png"], "videos": "v.mp4"}),
        json!({"problem": "<image>q<video>", "images": [{"path": "a.png"}], "videos": [["a.png"]], "answer": "A"}),
        json!({"problem": "q", "videos": ["v.mp4"], "images": "b.png"}),
        json!({"problem": "q <image>", "images": ["data:;base64,aGk="]}),
        json!({"problem": "q", "videos": [{"frames": ["data:;base64,aGk=", "a.png"], "fps": 2.5}]}),
        json!({"problem": "q", "answer": "A", "level": 3}),
    ] {
        let sample = files.sample(record);
        let again = reread(&files, &sample);
        assert_eq!(again.messages, sample.messages);
        assert_eq!(again.media, sample.media);
        assert_eq!(again.question.question, sample.question.question);
        assert_eq!(again.question.extra.get("level"), sample.question.extra.get("level"));
    }
}

#[test]
fn media_of_earlier_turns_are_written_with_the_last_message() {
    let files = Files::new();
    let sample = files.sample(json!({"images": ["a.png", "b.png"], "messages": [
        {"role": "user", "content": "<image>one"}, {"role": "assistant", "content": "1"},
        {"role": "user", "content": "two<image>"},
    ]}));
    let again = reread(&files, &sample);
    assert_eq!(again.messages, user(&[Part::Image, Part::Image, text("two")]));
    assert_eq!(again.media, sample.media);
}

#[test]
fn a_question_that_is_written_as_it_is_keeps_its_media_fields() {
    let files = Files::new();
    let images = json!(["a.png", {"path": "b.png"}]);
    let videos = json!(["v.mp4", ["a.png"]]);
    let sample = files.sample(json!({"problem": "q", "images": images, "videos": videos}));
    let written = serde_json::to_value(&sample.question).unwrap();
    assert_eq!((&written["images"], &written["videos"]), (&images, &videos));
}

#[test]
fn bytes_of_a_table_are_written_as_data_uris() {
    let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/multimodal/easyr1.parquet");
    let set = read_samples(Path::new(fixture), &ReadOptions::default()).unwrap();
    let files = Files::new();
    let again = reread(&files, &set.samples[0]);
    assert_eq!(again.messages, set.samples[0].messages);
    let bytes = |sample: &Sample| -> Vec<Arc<[u8]>> {
        let bytes = sample.media.images.iter().map(|image| match image {
            MediaFile::Bytes { bytes, .. } => bytes.clone(),
            MediaFile::Path(path) => panic!("{}", path.display()),
        });
        bytes.collect()
    };
    assert_eq!(bytes(&again), bytes(&set.samples[0]));
}

#[test]
fn a_captioned_question_is_shown_alone_and_written_with_its_captions() {
    let files = Files::new();
    let prompt = "Video content:\n<\nFrame 0: Observe: a lamp\n>\nQuestion: Where?";
    for original in [json!("<video>Question: Where?"), Value::Null] {
        let record = json!({"Question_id": 1, "question_category": "", "question": prompt, "answer": "A",
            "videos": "v.mp4", "original_question": original});
        let sample = files.sample(record.clone());
        assert_eq!(sample.messages, user(&[Part::Video, text("Question: Where?")]));
        assert_eq!(sample.question.question, "Question: Where?");
        assert_eq!(serde_json::to_value(sample.to_record()).unwrap(), record);
        assert_eq!(reread(&files, &sample).messages, sample.messages);
    }
}
