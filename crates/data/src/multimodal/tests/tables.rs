use super::*;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/multimodal").join(name)
}

fn read(name: &str) -> SampleSet {
    read_samples(&fixture(name), &ReadOptions::default()).unwrap()
}

fn bytes(file: &MediaFile) -> &Arc<[u8]> {
    match file {
        MediaFile::Bytes { bytes, .. } => bytes,
        MediaFile::Path(path) => panic!("{}", path.display()),
    }
}

#[test]
fn images_in_a_table_of_datasets_are_bytes() {
    let set = read("easyr1.parquet");
    assert_eq!(set.format, SampleFormat::HuggingFace);
    let [first, second, third] = &set.samples[..] else { panic!("{}", set.samples.len()) };
    let expected = text("\nWhich is red?\nOptions:\nA. left\nB. right\n");
    assert_eq!(first.messages, user(&[Part::Image, Part::Image, expected]));
    assert_eq!((first.question.id().as_str(), first.question.answer.as_str()), ("7", "A"));
    assert_eq!(first.media.image_names(), ["images[0]", "red.png"]);
    let images: Vec<_> = first.media.images.iter().map(bytes).collect();
    assert!(images[0].starts_with(b"\x89PNG\r\n") && images[0].ends_with(b"IEND\xaeB`\x82"));
    // Equal images are in memory once.
    assert!(Arc::ptr_eq(images[0], images[1]));
    assert_eq!(second.media.image_names(), ["b.png"]);
    assert_ne!(bytes(&second.media.images[0]), images[0]);
    assert!(third.media.is_empty());
    assert_eq!(second.question.extra["problem_type"], json!("regression"));
    assert_eq!(third.question.question, "What is 1 + 1?");
}

#[test]
fn verls_and_trls_tables_have_nested_prompts() {
    let set = read("verl.parquet");
    assert_eq!(set.format, SampleFormat::Verl);
    let expected = [
        message(Role::System, &[text("Think.")]),
        message(Role::User, &[Part::Image, text("Find x.")]),
    ];
    assert_eq!(set.samples[0].messages, expected);
    assert_eq!(set.samples[0].question.answer, "3");
    assert_eq!(set.samples[0].question.question_category, "geo3k");
    assert_eq!(set.samples[0].question.extra["extra_info"], json!({"index": 0, "split": "train"}));
    assert!(bytes(&set.samples[0].media.images[0]).starts_with(b"\x89PNG"));
    assert!(set.samples[1].media.is_empty());
    let set = read("trl.parquet");
    assert_eq!(set.format, SampleFormat::Trl);
    let expected = [
        message(Role::System, &[text("Think.")]),
        message(Role::User, &[text("Look:"), Part::Image, text("Where?")]),
    ];
    assert_eq!(set.samples[0].messages, expected);
    assert_eq!(set.samples[0].question.answer, "left");
    assert_eq!(set.samples[0].media.image_names(), ["w.png"]);
    assert_eq!(set.samples[0].question.extra["level"], json!(2.5));
}

#[test]
fn columns_of_a_table_are_renamed_with_their_bytes() {
    let columns = "videos=images".parse().unwrap();
    let options = ReadOptions { columns, skip_bad_records: true, ..ReadOptions::default() };
    let set = read_samples(&fixture("easyr1.parquet"), &options).unwrap();
    // The records with `<image>` have videos now, and no image.
    assert_eq!((indices(&set), set.skipped.len()), (vec![2], 2));
    assert!(set.skipped[0].1.contains("2 `<image>` markers but 0 images"), "{:?}", set.skipped);
}

/// The extra columns of the only record of a fixture.
fn extra(name: &str) -> serde_json::Map<String, Value> {
    read(name).samples[0].question.extra.clone()
}

#[test]
fn columns_of_every_type_are_extra() {
    assert_eq!(
        Value::Object(extra("types.parquet")),
        json!({
            "int8": 1, "int16": -2, "int32": 3, "uint8": 4, "uint16": 5, "uint32": 6,
            "uint64": 9223372036854775808_u64, "float16": 1.5, "float32": 2.5, "float64": null, "bool": true,
            "null": null, "large_string": "ü", "large_binary": null, "fixed_binary": null,
            "date32": "2026-01-02", "timestamp": "2026-01-02T03:04:05",
            "timestamp_tz": "2026-01-02T03:04:05+00:00", "time": "03:04:05", "duration": 1000, "decimal": 1.25,
            "dictionary": "a", "fixed_list": [1, 2], "map": [{"key": "k", "value": 1}],
            "nested": [[{"a": [{"b": 1}]}]], "large_list": ["a"], "empty_struct_list": [],
        })
    );
    let columns = "images=nested".parse().unwrap();
    let options = ReadOptions { columns, ..ReadOptions::default() };
    let error = read_samples(&fixture("types.parquet"), &options).unwrap_err().to_string();
    assert!(error.starts_with("`images[0]` in record 1 of"), "{error}");
}

#[test]
fn columns_of_arrows_other_types_have_their_values() {
    let mut extra = extra("variants.parquet");
    for image in ["in_list", "in_large_list", "in_fixed_list", "in_list_view", "alone", "bare"] {
        extra.remove(image).unwrap();
    }
    assert_eq!(
        Value::Object(extra),
        json!({
            "bbox": [1.0, 2.0, 30.0, 40.5], "halves": [0.5, -2.0], "boxes": [[1, 2], [3, 4]], "fixed_null": null,
            "unsigned": [255], "unsigned32": [4294967295_u32], "tags": ["a", "b", "a"], "codes": 7,
            "in_struct": {"a": "x", "b": 3}, "prices": [-1.25, null], "whole": 12, "wide": -0.1, "small": 1.5,
            "days": ["2026-01-02", "1969-12-31", "2024-02-29"],
            "times": {
                "at": "2026-01-02T03:04:05.600", "zoned": "2026-01-02T03:04:05.600",
                "time": "03:04:05.600",
            },
            "uuid": "00010203-0405-0607-0809-0a0b0c0d0e0f", "json": "{\"a\": 1}", "bool8": 1,
            "tensor": [0.0, 1.0, 2.0, 3.0], "empty": [], "nothing": {"a": null, "b": 1},
        })
    );
}

#[test]
fn images_are_read_from_every_kind_of_column() {
    for (column, name) in [
        ("in_list", "red.png"),
        ("in_large_list", "red.png"),
        ("in_fixed_list", "red.png"),
        ("in_list_view", "red.png"),
        ("alone", "red.png"),
        ("bare", "images"),
    ] {
        let columns = format!("images={column}").parse().unwrap();
        let options = ReadOptions { columns, ..ReadOptions::default() };
        let set = read_samples(&fixture("variants.parquet"), &options).unwrap();
        let media = &set.samples[0].media;
        assert_eq!(media.image_names(), [name], "{column}");
        assert!(bytes(&media.images[0]).starts_with(b"\x89PNG\r\n"), "{column}");
    }
}

#[test]
fn columns_that_rewards_do_not_get_are_named() {
    let left_out = |name: &str, columns: &str| {
        let columns = columns.parse().unwrap_or_default();
        left_out_columns(&fixture(name), &columns).unwrap()
    };
    assert_eq!(left_out("types.parquet", ""), ["large_binary", "fixed_binary"]);
    assert_eq!(left_out("types.parquet", "image=large_binary"), ["fixed_binary"]);
    assert_eq!(left_out("easyr1.parquet", ""), Vec::<String>::new());
    let images = ["in_list", "in_large_list", "in_fixed_list", "in_list_view", "alone", "bare"];
    assert_eq!(left_out("variants.parquet", ""), images);
    let files = Files::new();
    std::fs::write(files.path("q.jsonl"), "{}").unwrap();
    let none = left_out_columns(&files.path("q.jsonl"), &Columns::default()).unwrap();
    assert_eq!(none, Vec::<String>::new());
}

#[test]
fn a_binary_column_is_one_image_but_no_text() {
    let columns = "image=large_binary".parse().unwrap();
    let options = ReadOptions { columns, ..ReadOptions::default() };
    let set = read_samples(&fixture("types.parquet"), &options).unwrap();
    assert_eq!(set.samples[0].media.image_names(), ["image"]);
    assert_eq!(bytes(&set.samples[0].media.images[0]).as_ref(), b"x");
    let columns = "problem_type=large_binary,options=null".parse().unwrap();
    let options = ReadOptions { columns, ..ReadOptions::default() };
    assert!(read_samples(&fixture("types.parquet"), &options).is_ok());
}

#[test]
fn deeply_nested_columns_are_refused_without_reading_them() {
    let error = read_samples(&fixture("deep.parquet"), &ReadOptions::default()).unwrap_err();
    let error = error.to_string();
    assert!(error.contains("its columns are nested"), "{error}");
    assert!(error.ends_with("more than 48"), "{error}");
    assert!(crate::parquet::Table::read(&fixture("deep.parquet")).is_err());
}

#[test]
fn rows_of_all_row_groups_are_read_in_order() {
    let set = read("groups.parquet");
    let answers: Vec<_> = set.questions().map(|question| question.answer.as_str()).collect();
    assert_eq!(answers, ["0", "1", "2", "3", "4"]);
    assert_eq!(indices(&set), [0, 1, 2, 3, 4]);
    let names: Vec<_> = set.samples.iter().flat_map(|s| s.media.image_names()).collect();
    assert_eq!(names, ["0.png", "1.png", "2.png", "3.png", "4.png"]);
}

#[test]
fn a_damaged_table_is_reported_by_name() {
    let whole = std::fs::read(fixture("easyr1.parquet")).unwrap();
    let files = Files::new();
    for length in (4..whole.len()).step_by(97) {
        let error = files.read_text(&whole[..length], &ReadOptions::default()).unwrap_err();
        assert!(matches!(error, Error::Parquet { .. }), "{error}");
    }
    // Damaged values are errors, or other values.
    for position in (4..whole.len() - 8).step_by(13) {
        let mut damaged = whole.clone();
        damaged[position] ^= 0x55;
        let _ = files.read_text(&damaged, &ReadOptions::default());
    }
}
