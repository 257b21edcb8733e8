//! Prompts are those of the harnesses, image for image (`scripts/parity/make_benchmark_prompts.py`).

#![allow(clippy::unwrap_used, clippy::panic)]

use embodied_r_data::multimodal::{Part, ReadOptions};
use embodied_r_eval::benchmarks;
use embodied_r_eval::layout::AnnotationFiles;
use serde_json::{Map, Value, json};

/// The benchmark and the prompt of a case; `None` where this program has no such prompt, or reads another layout.
fn prompt_of(case: &Value) -> Option<(&'static str, &'static str)> {
    let text = |name: &str| case[name].as_str().unwrap_or_default();
    let is_json = text("variant").contains("_json");
    Some(match (text("harness"), text("benchmark")) {
        ("lmms-eval", "mindcube") => ("mindcube-tiny", "official"),
        ("lmms-eval", "mmsi_bench") => ("mmsi-bench", "official"),
        ("lmms-eval", "viewspatial") => ("viewspatial", "lmms"),
        ("lmms-eval", "embspatial") => ("embspatial", "official"),
        ("lmms-eval", "blink") => ("blink", "official"),
        ("lmms-eval", "3dsrbench") => ("3dsrbench", "official"),
        ("lmms-eval", "erqa") => ("erqa", "official"),
        ("lmms-eval", "sat") => ("sat", "official"),
        ("lmms-eval", "vsibench") => ("vsi-bench", "official"),
        ("lmms-eval", "revsi") => ("revsi", "official"),
        ("lmms-eval", "where2place") => ("where2place", if is_json { "json" } else { "official" }),
        ("lmms-eval", "refspatial") => ("refspatial", if is_json { "json" } else { "official" }),
        ("lmms-eval", "robo_spatial") => ("robospatial-home", "official"),
        ("VLMEvalKit", "MindCubeBench") => ("mindcube-tiny", "easi"),
        ("VLMEvalKit", "ViewSpatialBench") => ("viewspatial", "easi"),
        ("VLMEvalKit", "EmbSpatialBench") => ("embspatial", "easi"),
        ("VLMEvalKit", "_3DSRBench") => ("3dsrbench", "easi"),
        ("VLMEvalKit", "VsiBench") => ("vsi-bench", "easi"),
        ("VLMEvalKit", "RefSpatialBench") => ("refspatial", "easi"),
        ("VLMEvalKit", "RoboSpatialBench") => ("robospatial-home", "easi"),
        _ => return None,
    })
}

/// The same question in the official layout: columns that VLMEvalKit's tables call otherwise or lack, and images as files.
fn official_row(case: &Value, benchmark: &str) -> Map<String, Value> {
    let mut row = case["row"].as_object().unwrap().clone();
    if case["harness"] == "VLMEvalKit" {
        adapt(&mut row, benchmark);
    }
    for value in row.values_mut() {
        number_to_path(value);
    }
    row
}

fn adapt(row: &mut Map<String, Value>, benchmark: &str) {
    let count = row.remove("images").and_then(|count| count.as_u64()).unwrap_or(0);
    let images: Vec<Value> = (0..count).map(|index| json!({"image": index})).collect();
    let list = |text: &Value| -> Value {
        let text = text.as_str().unwrap_or("[]").replace("''", "").replace('\'', "\"");
        serde_json::from_str(&text).unwrap()
    };
    let mut set = |name: &str, value: Value| {
        row.insert(name.to_owned(), value);
    };
    match benchmark {
        "mindcube-tiny" => {
            set("images", images.into());
            set("gt_answer", "A".into());
        }
        "viewspatial" => {
            set("images", images.into());
            set("answer", "A. right".into());
            set("question_type", "Person perspective - Relative Direction".into());
            let choices = row.remove("candidates").unwrap();
            row.insert("choices".to_owned(), choices);
        }
        "embspatial" => {
            set("image", images[0].clone());
            set("answer", 0.into());
            set("data_source", "mp3d".into());
            let options = row.remove("options").unwrap();
            row.insert("answer_options".to_owned(), list(&options));
        }
        "3dsrbench" => {
            set("image", images[0].clone());
            set("answer", "A".into());
            set("category", "height_higher".into());
        }
        "vsi-bench" => {
            set("dataset", "scannet".into());
            set("scene_name", "scene0011_00".into());
            set("ground_truth", "A".into());
            let options = row.remove("candidates").unwrap();
            let options = if options.is_null() { Value::Null } else { list(&options) };
            row.insert("options".to_owned(), options);
        }
        "refspatial" => {
            set("id", 1.into());
            set("image", images[0].clone());
            let prompt = row.remove("question").unwrap();
            row.insert("prompt".to_owned(), prompt);
        }
        "robospatial-home" => {
            set("img", images[0].clone());
            set("answer", "yes".into());
        }
        other => panic!("{other}"),
    }
}

/// `{"image": 0}` as the name of a file.
fn number_to_path(value: &mut Value) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(number_to_path),
        Value::Object(fields) if fields.contains_key("image") => {
            *value = format!("{}.png", fields["image"]).into();
        }
        _ => {}
    }
}

/// A message as pieces of text, images (by their order) and videos.
fn expected(case: &Value) -> Vec<Part> {
    let pieces = case["message"].as_array().unwrap().iter();
    let is_video = case["row"].get("scene_name").or(case["row"].get("scene_id")).is_some()
        || case["row"].get("video").is_some();
    let mut parts: Vec<Part> = Vec::new();
    for piece in pieces {
        let part = match (piece.get("text"), is_video) {
            (Some(text), _) => Part::Text(text.as_str().unwrap().to_owned()),
            (None, true) => Part::Video,
            (None, false) => Part::Image,
        };
        // Frames as images are a video here.
        if part != Part::Video || parts.last() != Some(&Part::Video) {
            parts.push(part);
        }
    }
    parts
}

/// A table with the row, whose mask and images are bytes: pointing benchmarks have them in the table.
fn write(folder: &std::path::Path, row: &Map<String, Value>) -> std::path::PathBuf {
    let path = folder.join("location-0.jsonl");
    std::fs::write(&path, Value::Object(row.clone()).to_string()).unwrap();
    path
}

#[test]
fn prompts_are_those_of_the_harnesses() {
    let cases: Vec<Value> =
        serde_json::from_str(include_str!("fixtures/harness_prompts.json")).unwrap();
    let mut compared = 0;
    for case in &cases {
        let Some((name, prompt)) = prompt_of(case) else { continue };
        let layout = benchmarks::find(name).unwrap().layout.unwrap();
        assert!(layout.prompts.contains(&prompt), "{name} {prompt}");
        // Their masks are in parquet tables only.
        if matches!(name, "where2place" | "refspatial") {
            continue;
        }
        let folder = tempfile::tempdir().unwrap();
        for image in ["0.png", "1.png"] {
            std::fs::write(folder.path().join(image), b"image").unwrap();
        }
        let videos = folder.path().join("videos");
        std::fs::create_dir(&videos).unwrap();
        std::fs::write(videos.join("scene0011_00.mp4"), b"video").unwrap();
        let file = write(folder.path(), &official_row(case, name));
        let files = AnnotationFiles { folder: folder.path().to_owned(), files: vec![file] };
        let set = files.read(layout, prompt, &ReadOptions::default(), 1).unwrap();
        let message = &set.samples[0].messages[0];
        assert_eq!(message.content, expected(case), "{case}");
        compared += 1;
    }
    assert!(compared > 25, "{compared}");
}
