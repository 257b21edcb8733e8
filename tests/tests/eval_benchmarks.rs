//! `eval --benchmark`, and other commands, on published benchmarks in their own layout.

use std::fs;
use std::path::Path;
use std::process::Command;

use embodied_r_test_server::{Response, Server};
use embodied_r_tests::{stderr_of, stdout_of};
use serde_json::{Value, json};

use crate::direct::{embodied_r, read, workspace, write_lines};
use crate::images::test_image::test_image;
use crate::perceive::workspace::{Workspace, question as video_question};

/// Five questions of MindCube-tiny, the first three with their images.
fn write_mindcube(folder: &Path) {
    fs::create_dir_all(folder.join("views")).unwrap();
    for index in 0..3 {
        test_image((56, 56), index).save(folder.join(format!("views/{index}.png"))).unwrap();
    }
    let record = |index: usize| {
        let id = ["among_0", "around_1", "rotation_2", "translation_3", "around_4"][index];
        json!({"id": id, "images": [format!("views/{index}.png")], "gt_answer": "B",
            "input_prompt": "<image>\nWhere? A. left B. right", "category": ["x"]})
    };
    let records: Vec<Value> = (0..5).map(record).collect();
    write_lines(&folder.join("MindCube_tinybench.jsonl"), &records);
}

fn scores(dir: &Path, words: &[&str]) -> Value {
    let all =
        [&["eval", "--benchmark", "mindcube-tiny", "--data", "data", "--json"], words].concat();
    let mut command = embodied_r(dir, &all);
    serde_json::from_str(&stdout_of(&mut command)).unwrap()
}

fn predict(dir: &Path, records: &[Value]) {
    write_lines(&dir.join("predictions.jsonl"), records);
}

const PREDICTIONS: [&str; 2] = ["--predictions", "predictions.jsonl"];

#[test]
fn predictions_are_matched_by_id_and_questions_without_one_are_wrong() {
    let dir = tempfile::tempdir().unwrap();
    write_mindcube(&dir.path().join("data"));
    predict(
        dir.path(),
        &[
            json!({"id": "rotation_2", "prediction": "B. right"}),
            json!({"id": "among_0", "prediction": "I do not know"}),
            json!({"id": "translation_3", "prediction": "B."}),
            json!({"id": "around_1", "prediction": null}),
        ],
    );
    let found = scores(dir.path(), &PREDICTIONS);
    for (key, expected) in [
        ("benchmark", json!("mindcube-tiny")),
        ("scorer", json!("official")),
        ("prompt", Value::Null),
        ("frames", Value::Null),
        ("n", json!(5)),
        ("answered", json!(3)),
        ("missing", json!(2)),
        ("unparsed", json!(1)),
        ("partial", json!(false)),
        // Without `translation`.
        ("overall", json!(25.0)),
    ] {
        assert_eq!(found[key], expected, "{key}");
    }
    assert_eq!(found["data_sha256"].as_str().unwrap().len(), 64);
    assert_eq!(found["by_category"]["translation"], json!({"score": 100.0, "n": 1}));
    assert_eq!(found["questions"][2], json!({"id": "rotation_2", "extracted": "B", "score": 1.0}));
    assert_eq!(found["questions"][4], json!({"id": "around_4", "extracted": null, "score": 0.0}));
}

#[test]
fn a_limit_marks_the_score_as_partial() {
    let dir = tempfile::tempdir().unwrap();
    write_mindcube(&dir.path().join("data"));
    predict(dir.path(), &[json!({"id": "among_0", "prediction": "B."})]);
    let found = scores(dir.path(), &[&PREDICTIONS[..], &["--limit", "2"]].concat());
    assert_eq!((&found["n"], &found["partial"]), (&json!(2), &json!(true)));
    assert_eq!(found["overall"], json!(50.0));
}

#[test]
fn samples_of_lmms_eval_and_tables_of_vlmevalkit_are_read() {
    let dir = tempfile::tempdir().unwrap();
    write_mindcube(&dir.path().join("data"));
    predict(
        dir.path(),
        &[
            json!({"doc_id": 2, "resps": [["<think>A</think>B."]], "filtered_resps": ["A."]}),
            json!({"doc_id": 0, "filtered_resps": ["B."]}),
        ],
    );
    let of_samples = scores(dir.path(), &PREDICTIONS);
    assert_eq!((&of_samples["answered"], &of_samples["overall"]), (&json!(2), &json!(50.0)));
    let table =
        "index\tid\tprediction\n0\tamong_0\t\"B.\nBecause\"\n1\taround_1\tA.\n2\trotation_2\t\n";
    fs::write(dir.path().join("table.tsv"), table).unwrap();
    let of_table = scores(dir.path(), &["--predictions", "table.tsv"]);
    assert_eq!((&of_table["answered"], &of_table["overall"]), (&json!(2), &json!(25.0)));
}

#[test]
fn every_scorers_score_is_in_one_table() {
    let dir = tempfile::tempdir().unwrap();
    write_mindcube(&dir.path().join("data"));
    // Matcher A looks at the last lines, the authors' code at the last letter before a full stop.
    predict(dir.path(), &[json!({"id": "among_0", "prediction": "B. is wrong.\nC"})]);
    let found = scores(dir.path(), &[&PREDICTIONS[..], &["--scorer", "all"]].concat());
    let overall = |scorer: &str| found["scorers"][scorer]["overall"].clone();
    assert_eq!((overall("official"), overall("easi")), (json!(25.0), json!(0.0)));
    let words = ["eval", "--benchmark", "mindcube-tiny", "--data", "data", "--scorer", "all"];
    let mut command = embodied_r(dir.path(), &[&words[..], &PREDICTIONS].concat());
    let text = stdout_of(&mut command);
    assert!(text.contains("| category    | questions | official | easi |"), "{text}");
}

#[test]
fn bad_input_is_one_line_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    write_mindcube(&dir.path().join("data"));
    let cases: [(&[Value], &[&str], &str); 5] = [
        (
            &[
                json!({"id": "among_0", "prediction": "B"}),
                json!({"id": "among_0", "prediction": "A"}),
            ],
            &[],
            "question `among_0` is in line 1 of `predictions.jsonl` and again in line 2",
        ),
        (&[json!({"prediction": "B"})], &[], "`id` in line 1 of `predictions.jsonl` is missing"),
        (&[json!({"doc_id": 7, "resps": [["B"]]})], &[], "the predictions are of row 7"),
        (
            &[json!({"id": "among_0", "prediction": "B"})],
            &["--scorer", "lmms"],
            "has no scorer `lmms`",
        ),
        (
            &[json!({"id": "among_0", "prediction": "B"})],
            &["--prompt", "lmms"],
            "has no prompt `lmms`",
        ),
    ];
    for (records, options, expected) in cases {
        predict(dir.path(), records);
        let words = ["eval", "--benchmark", "mindcube-tiny", "--data", "data"];
        let words = [&words[..], &PREDICTIONS, options].concat();
        let code = if options.is_empty() { 1 } else { 2 };
        let message = stderr_of(&mut embodied_r(dir.path(), &words), code);
        assert!(message.contains(expected), "{message}");
    }
    let annotations = dir.path().join("data/MindCube_tinybench.jsonl");
    let record = fs::read_to_string(&annotations).unwrap().lines().next().unwrap().to_owned();
    fs::write(&annotations, format!("{record}\n{record}")).unwrap();
    let words = ["eval", "--benchmark", "mindcube-tiny", "--data", "data"];
    let words = [&words[..], &PREDICTIONS].concat();
    let message = stderr_of(&mut embodied_r(dir.path(), &words), 1);
    let expected = "record 2 of `data/MindCube_tinybench.jsonl` repeats record 1";
    assert!(message.contains(expected) && message.contains("`among_0`"), "{message}");
    let wrong = r#"{"id": "a", "images": [], "input_prompt": "q", "gt_answer": "left"}"#;
    fs::write(&annotations, wrong).unwrap();
    let message = stderr_of(&mut embodied_r(dir.path(), &words), 1);
    let expected =
        "`gt_answer` in record 1 of `data/MindCube_tinybench.jsonl`: must be an option letter";
    assert!(message.contains(expected), "{message}");
}

#[test]
fn a_model_answers_the_official_prompt_and_a_missing_image_is_a_wrong_answer() {
    let dir = workspace();
    write_mindcube(&dir.path().join("data"));
    let words = ["--direct", "--model", "model", "--max-new-tokens", "4", "--output", "out"];
    let found = scores(dir.path(), &words);
    assert_eq!((&found["n"], &found["answered"]), (&json!(5), &json!(3)));
    assert_eq!((&found["missing"], &found["prompt"]), (&json!(2), &json!("official")));
    let answers = read(&dir.path().join("out/answers.json"));
    assert_eq!(answers.len(), 3);
    assert_eq!(answers[0]["prompt"], "official");
    assert_eq!(answers[0]["question"], "<image>Where? A. left B. right");
    // The whole reply is the answer, also when it is read again.
    let again = scores(dir.path(), &["--predictions", "out/answers.json"]);
    assert_eq!((&again["questions"], &again["overall"]), (&found["questions"], &found["overall"]));
}

const DIRECT: [&str; 7] =
    ["--direct", "--model", "model", "--max-new-tokens", "4", "--output", "out"];

fn eval(dir: &Path, words: &[&str]) -> Command {
    let all = [&["eval", "--benchmark", "mindcube-tiny", "--data", "data"], words].concat();
    embodied_r(dir, &all)
}

#[test]
fn an_interrupted_run_resumes_with_the_same_scores() {
    let dir = workspace();
    write_mindcube(&dir.path().join("data"));
    let found = scores(dir.path(), &DIRECT);
    let answers = dir.path().join("out/answers.json");
    let whole = fs::read(&answers).unwrap();
    // An output that cannot be written leaves the journal, which is cut in its second answer.
    fs::remove_file(&answers).unwrap();
    fs::create_dir(&answers).unwrap();
    stderr_of(&mut eval(dir.path(), &DIRECT), 1);
    fs::remove_dir(&answers).unwrap();
    let journal = dir.path().join("out/answers.json.partial.jsonl");
    let text = fs::read_to_string(&journal).unwrap();
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    assert_eq!(lines.len(), 4, "settings and three answers: {text}");
    fs::write(&journal, format!("{}{}", lines[..2].concat(), &lines[2][..9])).unwrap();
    let message = stderr_of(&mut eval(dir.path(), &DIRECT), 0);
    assert!(message.contains("resuming: 1 of 3 questions"), "{message}");
    assert_eq!(fs::read(&answers).unwrap(), whole);
    assert_eq!(
        scores(dir.path(), &["--predictions", "out/answers.json"])["questions"],
        found["questions"]
    );
}

#[test]
fn images_that_cannot_be_shown_are_named_and_the_first_frame_of_an_animation_is_shown() {
    let dir = workspace();
    let (data, views) = (dir.path().join("data"), dir.path().join("data/views"));
    write_mindcube(&data);
    let frame =
        |level| image::RgbaImage::from_pixel(56, 56, image::Rgba([level, level, level, 255]));
    frame(200).save(views.join("0.png")).unwrap();
    let animation = fs::File::create(views.join("1.png")).unwrap();
    let frames = [200, 10].map(|level| image::Frame::new(frame(level)));
    image::codecs::gif::GifEncoder::new(animation).encode_frames(frames).unwrap();
    let whole = fs::read(views.join("2.png")).unwrap();
    fs::write(views.join("2.png"), &whole[..whole.len() / 2]).unwrap();
    // A header of 65,535 x 65,535 pixels.
    fs::write(views.join("3.png"), b"GIF89a\xff\xff\xff\xff\0\0\0;").unwrap();
    let message = stderr_of(&mut eval(dir.path(), &DIRECT), 0);
    for (record, file) in [(3, "2.png"), (4, "3.png"), (5, "4.png")] {
        let line = message.lines().find(|line| line.contains(&format!("record {record} ")));
        assert!(line.is_some_and(|line| line.contains(file)), "{record} {file}: {message}");
    }
    let found = scores(dir.path(), &["--predictions", "out/answers.json"]);
    assert_eq!((&found["n"], &found["missing"]), (&json!(5), &json!(3)));
    let answers = read(&dir.path().join("out/answers.json"));
    assert_eq!(answers[0]["content"], answers[1]["content"]);
}

#[test]
fn a_server_gets_the_official_prompt_with_its_images() {
    let dir = tempfile::tempdir().unwrap();
    write_mindcube(&dir.path().join("data"));
    let server = Server::chat(|_| Response::completion("B."));
    let url = server.base_url();
    let words = ["--direct", "--base-url", &url, "--model", "any", "--output", "out"];
    let found = scores(dir.path(), &words);
    // Three of five have their images; `translation` is apart.
    assert_eq!((&found["answered"], &found["overall"]), (&json!(3), &json!(75.0)));
    let requests = server.bodies();
    assert_eq!(requests.len(), 3);
    for request in requests {
        let messages = request["messages"].as_array().unwrap();
        assert_eq!(messages.len(), 1, "no system message: {request}");
        let parts = messages[0]["content"].as_array().unwrap();
        assert_eq!((&parts[0]["type"], parts.len()), (&json!("image_url"), 2));
        assert_eq!(parts[1], json!({"type": "text", "text": "Where? A. left B. right"}));
    }
}

#[test]
fn infer_and_filter_ask_the_questions_of_a_benchmark() {
    let dir = workspace();
    write_mindcube(&dir.path().join("data"));
    let benchmark = ["--benchmark", "mindcube-tiny", "--data", "data", "--output", "out.json"];
    for command in ["infer", "filter"] {
        let words = [&[command][..], &benchmark, &DIRECT[..5]].concat();
        let message = stderr_of(&mut embodied_r(dir.path(), &words), 1);
        assert!(message.contains("record 4 of `data/MindCube_tinybench.jsonl`"), "{message}");
        let message = stderr_of(embodied_r(dir.path(), &words).arg("--skip-bad-records"), 0);
        assert!(message.contains("left out 2 bad records"), "{message}");
        let asked = read(&dir.path().join("out.json"));
        assert_eq!(asked.len(), 3, "the random model names no option");
        assert_eq!(asked[0]["question"], "<image>Where? A. left B. right");
    }
}

#[test]
fn perceive_captions_the_videos_of_a_benchmark_and_refuses_one_of_images() {
    let workspace = Workspace::new(&[video_question(1, "one")]);
    workspace.add_scene();
    let (dir, data) = (workspace.path(""), workspace.path("data"));
    write_mindcube(&data);
    fs::create_dir_all(data.join("scannet")).unwrap();
    fs::rename(workspace.path("complete/videos/room.mp4"), data.join("scannet/room.mp4")).unwrap();
    let question = json!({"id": 7, "dataset": "scannet", "scene_name": "room", "options": null,
        "question_type": "object_counting", "question": "How many lamps?", "ground_truth": "1"});
    write_lines(&data.join("test.jsonl"), &[question]);
    let perceive = |benchmark: &str| {
        let words = [
            "perceive",
            "--backend",
            "scene",
            "--scenes",
            "scenes",
            "--data",
            "data",
            "--output",
            "inter",
        ];
        embodied_r(&dir, &[&words[..], &["--benchmark", benchmark]].concat())
    };
    stdout_of(&mut perceive("vsi-bench"));
    let captioned = read(&dir.join("inter/vsi-bench.json"));
    let prompt = captioned[0]["question"].as_str().unwrap();
    assert!(prompt.contains("red lamp") && prompt.contains("How many lamps?"), "{prompt}");
    assert_eq!((&captioned[0]["answer"], captioned.len()), (&json!("1"), 1));
    let message = stderr_of(&mut perceive("mindcube-tiny"), 2);
    assert!(message.contains("has images, which are not captioned"), "{message}");
}

#[test]
fn a_benchmark_is_recognized_by_doctor_and_refused_by_sft() {
    let dir = workspace();
    write_mindcube(&dir.path().join("data"));
    let mut command = embodied_r(dir.path(), &["doctor", "--data", "data", "--json"]);
    let found: Value = serde_json::from_str(&stdout_of(&mut command)).unwrap();
    let check = |name: &str| {
        let checks = found["checks"].as_array().unwrap();
        checks.iter().find(|check| check["name"] == name).unwrap().clone()
    };
    assert_eq!(check("mindcube-tiny questions")["found"], "5");
    let media = check("mindcube-tiny images and videos").to_string();
    assert!(
        media.contains("missing of 2 of 5 questions") && media.contains("views/3.png"),
        "{media}"
    );
    for data in ["data", "data/MindCube_tinybench.jsonl", "nyu-visionx/VSI-Bench"] {
        let words = ["sft", "--model", "model", "--data", data, "--output", "run"];
        let message = stderr_of(&mut embodied_r(dir.path(), &words), 2);
        assert!(message.contains("is the benchmark `"), "{message}");
    }
}

#[test]
fn the_list_has_every_benchmark_with_its_files_and_scorers() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = embodied_r(dir.path(), &["benchmarks", "--json"]);
    let all: Vec<Value> = serde_json::from_str(&stdout_of(&mut command)).unwrap();
    let find = |name: &str| all.iter().find(|it| it["name"] == name).unwrap();
    for name in [
        "vsi-bench",
        "vsi-bench-debiased",
        "mindcube-tiny",
        "mmsi-bench",
        "viewspatial",
        "embspatial",
        "erqa",
        "sat",
        "blink",
        "3dsrbench",
        "revsi",
        "sti-bench",
        "where2place",
        "refspatial",
        "robospatial-home",
    ] {
        let found = find(name);
        assert!(!found["files"].as_array().unwrap().is_empty(), "{name}");
        assert_eq!(found["scorers"][0], "official");
    }
    assert_eq!(find("vsi-bench")["scorers"], json!(["official", "lmms-2026", "easi"]));
    assert_eq!(find("vsi-bench")["frames"][0], "linspace=32");
    let rows = find("mmsi-bench")["published"]["rows"].as_array().unwrap();
    assert!(rows.iter().any(|row| row["harness"] == "VLMEvalKit"), "{rows:?}");
}
