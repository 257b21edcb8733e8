//! `infer`, `eval` and `filter` with `--direct`: a vision-language model answers from images and video frames.

use std::fs;
use std::path::Path;
use std::process::Command;

use assert_cmd::assert::OutputAssertExt as _;
use embodied_r_policy::tokenizer::{SpecialTokens, Tokenizer};
use embodied_r_tests::{VisionModel, binary, stderr, stderr_of, stdout_of, tiny_model, write_clip};
use image::{Rgb, RgbImage};
use serde_json::{Value, json};

use crate::images::test_image::test_image;
use crate::images::{case_of, write_images};

pub(crate) fn embodied_r(dir: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.current_dir(dir).env_remove("OPENAI_API_KEY").env("NO_PROXY", "127.0.0.1").args(words);
    command
}

/// A folder with the model in `model`, whose chat template leaves out the system message, as in the reference.
pub(crate) fn workspace() -> tempfile::TempDir {
    workspace_of(VisionModel::Nested)
}

fn workspace_of(model: VisionModel) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    model.write(&dir.path().join("model"));
    let path = dir.path().join("model/chat_template.json");
    let mut template: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let text = template["chat_template"].as_str().unwrap();
    let loop_start = "{% for message in messages %}";
    assert!(
        text.starts_with(loop_start) && text.contains("{% endfor %}{% if add_generation_prompt")
    );
    let text =
        text.replacen(loop_start, &format!("{loop_start}{{% if message.role != 'system' %}}"), 1);
    let end = "{% endfor %}{% if add_generation_prompt";
    template["chat_template"] = text.replacen(end, &format!("{{% endif %}}{end}"), 1).into();
    fs::write(&path, template.to_string()).unwrap();
    dir
}

pub(crate) fn write_lines(path: &Path, records: &[Value]) {
    let lines: Vec<String> = records.iter().map(Value::to_string).collect();
    fs::write(path, lines.join("\n")).unwrap();
}

pub(crate) fn read(path: &Path) -> Vec<Value> {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

const INFER: [&str; 10] = [
    "infer",
    "--direct",
    "--model",
    "model",
    "--data",
    "data.jsonl",
    "--output",
    "out.json",
    "--max-new-tokens",
    "6",
];

/// A question in EasyR1's format about images of `names`.
fn question(names: &[String]) -> Value {
    let marks = "<image>".repeat(names.len());
    json!({"problem": format!("{marks}What is there?"), "answer": "A", "images": names,
        "question_category": "Landmark Position", "note": [1]})
}

/// Writes one image and returns a question about it.
fn question_about(dir: &Path, name: &str, size: (u32, u32), seed: u32) -> Value {
    test_image(size, seed).save(dir.join(name)).unwrap();
    question(&[name.to_owned()])
}

#[test]
fn answers_from_images_and_videos_are_those_of_the_reference() {
    let dir = workspace();
    let tokenizer = Tokenizer::from_dir(&dir.path().join("model")).unwrap();
    let names =
        ["least", "enlarged", "ribbon", "tall", "reduced", "windows", "two sizes", "many", "video"];
    let (mut records, mut expected) = (Vec::new(), Vec::new());
    for (index, name) in names.into_iter().enumerate() {
        let case = case_of(VisionModel::Nested, name);
        let folder = dir.path().join(index.to_string());
        fs::create_dir(&folder).unwrap();
        let files = write_images(&folder, &case);
        let files: Vec<String> = files.iter().map(|file| format!("{index}/{file}")).collect();
        records.push(match case["kind"].as_str().unwrap() {
            "video" => json!({"problem": "<video>What is there?", "answer": "A",
                "videos": [{"frames": files, "fps": 2.0}],
                "question_category": "Landmark Position"}),
            _ => question(&files),
        });
        let greedy: Vec<u32> = serde_json::from_value(case["greedy"].clone()).unwrap();
        expected.push(tokenizer.decode(&greedy, SpecialTokens::Skip).unwrap());
    }
    write_lines(&dir.path().join("data.jsonl"), &records);
    embodied_r(dir.path(), &INFER).assert().code(0);
    let answers = read(&dir.path().join("out.json"));
    let found: Vec<&str> = answers.iter().map(|it| it["content"].as_str().unwrap()).collect();
    assert_eq!(found, expected);
    assert!(!dir.path().join("out.json.partial.jsonl").exists());
    // The records keep what is shown, and their own fields.
    assert_eq!(answers[0]["images"], records[0]["images"]);
    assert_eq!(answers[0]["question"], "<image>What is there?");
    assert_eq!(answers[0]["note"], json!([1]));
    assert_eq!(answers[8]["videos"], records[8]["videos"]);
    // Qwen2.5-VL limits frames whatever is asked for.
    assert_eq!(answers[8]["video_pixels"], "frame");
    assert!(answers[0].get("video_pixels").is_none());
    // So that they can be answered again.
    fs::copy(dir.path().join("out.json"), dir.path().join("data.jsonl")).unwrap();
    embodied_r(dir.path(), &INFER).assert().code(0);
    assert_eq!(read(&dir.path().join("out.json")), answers);
    let mut eval = Command::new(binary());
    eval.current_dir(dir.path()).args(["eval", "--predictions", "out.json", "--json"]);
    let scores: Value = serde_json::from_str(&stdout_of(&mut eval)).unwrap();
    assert_eq!(scores["n"], 9, "{scores}");
}

#[test]
fn answers_from_a_video_of_qwen3_vl_are_those_of_the_reference() {
    let dir = workspace_of(VisionModel::Qwen3Vl);
    let tokenizer = Tokenizer::from_dir(&dir.path().join("model")).unwrap();
    let file = fs::read(dir.path().join("model/videos.json")).unwrap();
    let cases: Vec<Value> = serde_json::from_slice(&file).unwrap();
    let case = cases.iter().find(|case| case["name"] == "a video at 2 fps").unwrap();
    let frames = json!({"seed": case["seed"], "sizes": case["visuals"][0]["sizes"]});
    let files = write_images(dir.path(), &frames);
    let record = json!({"problem": "<video>What is there?", "answer": "A",
        "videos": [{"frames": files, "fps": 2.0}]});
    write_lines(&dir.path().join("data.jsonl"), &[record]);
    embodied_r(dir.path(), &INFER).assert().code(0);
    let greedy: Vec<u32> = serde_json::from_value(case["greedy"].clone()).unwrap();
    let expected = tokenizer.decode(&greedy, SpecialTokens::Skip).unwrap();
    let answers = read(&dir.path().join("out.json"));
    assert_eq!(
        (&answers[0]["content"], &answers[0]["video_pixels"]),
        (&json!(expected), &json!("clip"))
    );
    fs::remove_file(dir.path().join("out.json")).unwrap();
    embodied_r(dir.path(), &[&INFER[..], &["--video-pixels", "frame"]].concat()).assert().code(0);
    assert_eq!(read(&dir.path().join("out.json"))[0]["video_pixels"], "frame");
    // Frames that are separate images have the limits of images.
    fs::remove_file(dir.path().join("out.json")).unwrap();
    embodied_r(dir.path(), &[&INFER[..], &["--frame-use", "images"]].concat()).assert().code(0);
    assert!(read(&dir.path().join("out.json"))[0].get("video_pixels").is_none());
}

#[test]
fn images_that_a_model_does_not_see_are_warned_of() {
    let dir = workspace();
    let record = question_about(dir.path(), "a.png", (60, 60), 1);
    write_lines(&dir.path().join("data.jsonl"), &[record]);
    let without = |words: &[&str]| -> Vec<String> {
        let kept = words.iter().filter(|word| **word != "--direct");
        kept.map(|word| (*word).to_owned()).collect()
    };
    let mut blind = Command::new(binary());
    let text = stderr_of(blind.current_dir(dir.path()).args(without(&INFER)), 1);
    assert!(
        text.contains("`data.jsonl` is in no known format") && text.contains("`--direct`"),
        "{text}"
    );
    let own = json!([
        {"Question_id": 1, "question": "<image>What?", "answer": "A", "images": ["a.png"]},
        {"Question_id": 2, "question": "What?", "answer": "A", "images": []},
    ]);
    fs::write(dir.path().join("data.jsonl"), own.to_string()).unwrap();
    let mut blind = Command::new(binary());
    let text = stderr_of(blind.current_dir(dir.path()).args(without(&INFER)), 0);
    assert!(text.contains("warning: 1 of 2 questions have images or videos"), "{text}");
    let seeing = stderr_of(&mut embodied_r(dir.path(), &INFER), 0);
    assert!(!seeing.contains("warning"), "{seeing}");
}

#[test]
fn categories_that_are_not_scored_are_reported_before_any_answer() {
    let dir = workspace();
    let mut record = question_about(dir.path(), "a.png", (60, 60), 1);
    record["question_category"] = "Causal".into();
    write_lines(&dir.path().join("data.jsonl"), &[record]);
    let words = ["eval", "--direct", "--model", "model", "--data", "data.jsonl", "--output", "out"];
    let text = stderr_of(&mut embodied_r(dir.path(), &words), 1);
    assert!(text.contains("`embodied-r` scores none of the records' categories: Causal"), "{text}");
    assert!(!dir.path().join("out").exists());
    // Nor does a model answer that reads text.
    tiny_model::write(&dir.path().join("text"));
    let own =
        r#"[{"Question_id": 1, "question": "?", "answer": "A", "question_category": "Causal"}]"#;
    fs::write(dir.path().join("own.json"), own).unwrap();
    let words = ["eval", "--model", "text", "--data", "own.json", "--output", "out"];
    let text = stderr_of(&mut embodied_r(dir.path(), &words), 1);
    assert!(text.contains("scores none of the records' categories: Causal"), "{text}");
    assert!(!dir.path().join("out").exists());
}

#[test]
fn questions_of_no_benchmark_are_scored_by_the_accuracy_reward() {
    let dir = workspace();
    let of = |answer: &str, fields: &Value| {
        let mut record = question_about(dir.path(), "a.png", (60, 60), 1);
        record["answer"] = answer.into();
        record["question_category"] = "".into();
        record.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        record
    };
    let typed = json!({"question_category": "Colors", "answer_type": "text"});
    write_lines(&dir.path().join("data.jsonl"), &[of("A", &json!({})), of("dark red", &typed)]);
    let words = ["eval", "--direct", "--model", "model", "--data", "data.jsonl", "--json"];
    let output = embodied_r(dir.path(), &words).assert().code(0).get_output().clone();
    let scores: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&scores["protocol"], &scores["n"]), (&json!("accuracy"), &json!(2)));
    let warning = "warning: no benchmark has the categories of these questions (`Colors`): they are scored as with `--benchmark \
                   accuracy`";
    assert_eq!(stderr(&output).matches(warning).count(), 1, "{}", stderr(&output));
    let named = [&words[..], &["--protocol", "accuracy"]].concat();
    let text = stderr_of(&mut embodied_r(dir.path(), &named), 0);
    assert!(!text.contains("no benchmark"), "{text}");
    // What cannot be compared is named before any answer.
    write_lines(&dir.path().join("data.jsonl"), &[of("dark red", &json!({}))]);
    let text = stderr_of(&mut embodied_r(dir.path(), &words), 1);
    assert!(text.contains("`dark red`") && text.contains("`answer_type`"), "{text}");
}

#[test]
fn a_repeated_image_is_encoded_once() {
    let dir = workspace();
    let first = question_about(dir.path(), "a.png", (60, 60), 1);
    let second = question_about(dir.path(), "b.png", (60, 90), 2);
    // The same pixels in another file.
    let copy = question_about(dir.path(), "copy.png", (60, 60), 1);
    write_lines(&dir.path().join("data.jsonl"), &[first.clone(), second, first, copy]);
    let mut command = embodied_r(dir.path(), &INFER);
    let output = command.args(["--batch", "2", "--log", "info"]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let log = stderr(&output);
    assert!(log.contains("encoded=2") && log.contains("from_memory=2"), "{log}");
    let answers = read(&dir.path().join("out.json"));
    assert_eq!(answers[0]["content"], answers[2]["content"]);
    assert_eq!(answers[0]["content"], answers[3]["content"]);
}

#[test]
fn frames_of_a_video_file_are_selected_by_the_options() {
    let dir = workspace();
    let source = "-f lavfi -i testsrc2=s=84x56:r=2 -frames:v 12";
    let codec = "-c:v libx264 -preset ultrafast -pix_fmt yuv420p";
    write_clip(&format!("{source} {codec}"), &dir.path().join("clip.mp4"));
    let record = json!({"Question_id": 1, "question": "What is there?", "answer": "A",
        "videos": "clip.mp4"});
    fs::write(dir.path().join("data.jsonl"), json!([record]).to_string()).unwrap();
    // Too long for the context if all frames are seen: 36 tokens of frames, and 17 of text.
    let path = dir.path().join("model/config.json");
    let config = fs::read_to_string(&path).unwrap();
    let short =
        config.replace("\"max_position_embeddings\": 4096", "\"max_position_embeddings\": 60");
    assert_ne!(short, config);
    fs::write(&path, short).unwrap();
    let run = |words: &[&str]| embodied_r(dir.path(), &INFER).args(words).output().unwrap();
    let output = run(&[]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let text = stderr(&output);
    assert!(text.contains("question `1` is skipped"), "{text}");
    assert!(text.contains("none of the 1 questions fits") && text.contains("--frames"), "{text}");
    for words in [&["--frames", "uniform=4"][..], &["--fps", "1", "--max-frames", "4"]] {
        let output = run(words);
        assert!(output.status.success(), "{}", stderr(&output));
        fs::remove_file(dir.path().join("out.json")).unwrap();
    }
    let images = run(&["--frames", "uniform=4", "--frame-use", "images"]);
    assert_eq!(images.status.code(), Some(1), "four images have twice the tokens of the video");
}

#[test]
fn an_overlong_question_is_counted_and_the_others_are_answered() {
    let dir = workspace();
    let path = dir.path().join("model/config.json");
    let config = fs::read_to_string(&path).unwrap();
    let short =
        config.replace("\"max_position_embeddings\": 4096", "\"max_position_embeddings\": 80");
    fs::write(&path, short).unwrap();
    let small = question_about(dir.path(), "a.png", (60, 60), 1);
    let large = question_about(dir.path(), "b.png", (640, 480), 2);
    write_lines(&dir.path().join("data.jsonl"), &[small, large]);
    let stdout = stdout_of(&mut embodied_r(dir.path(), &INFER));
    assert!(stdout.contains("wrote 1 answers") && stdout.contains("1 of 2 questions"), "{stdout}");
    let answers = read(&dir.path().join("out.json"));
    assert!(answers[0]["content"].is_string() && answers[1].get("content").is_none());
    let both = embodied_r(dir.path(), &INFER).args(["--max-pixels", "4000"]).output().unwrap();
    assert!(both.status.success(), "{}", stderr(&both));
    assert!(read(&dir.path().join("out.json"))[1]["content"].is_string());
}

#[test]
fn eval_scores_the_answers_of_infer() {
    let dir = workspace();
    let records =
        [1, 2, 3].map(|seed| question_about(dir.path(), &format!("{seed}.png"), (60, 60), seed));
    write_lines(&dir.path().join("data.jsonl"), &records);
    embodied_r(dir.path(), &INFER).assert().code(0);
    let eval =
        ["eval", "--direct", "--model", "model", "--data", "data.jsonl", "--max-new-tokens", "6"];
    let words = [&eval[..], &["--output", "scores", "--json", "--limit", "2"]].concat();
    let report: Value =
        serde_json::from_str(&stdout_of(&mut embodied_r(dir.path(), &words))).unwrap();
    assert_eq!(report["n"], 2, "{report}");
    let (answers, all) =
        (read(&dir.path().join("scores/answers.json")), read(&dir.path().join("out.json")));
    assert_eq!(answers, all[..2]);
    let words = [&eval[..], &["--pass-at", "2", "--output", "samples"]].concat();
    embodied_r(dir.path(), &words).assert().code(0);
    let samples = fs::read_to_string(dir.path().join("samples/samples.jsonl")).unwrap();
    assert_eq!(samples.lines().count(), 3);
}

#[test]
fn eval_reports_by_kind_of_question() {
    let dir = workspace();
    let record = |(index, kind): (usize, &str)| {
        let name = format!("{index}.png");
        test_image((60, 60), index as u32).save(dir.path().join(&name)).unwrap();
        json!({"Question_id": index, "question": "<image>Where?", "answer": "A", "images": [name],
            "kind": kind, "frame_index": 10})
    };
    let kinds = ["waypoint", "state", "movement", "state"];
    let records: Vec<Value> = kinds.into_iter().enumerate().map(record).collect();
    write_lines(&dir.path().join("data.jsonl"), &records);
    let words =
        ["eval", "--direct", "--model", "model", "--data", "data.jsonl", "--max-new-tokens"];
    let words = [&words[..], &["2", "--json", "--output", "scores"]].concat();
    let report: Value =
        serde_json::from_str(&stdout_of(&mut embodied_r(dir.path(), &words))).unwrap();
    assert_eq!(report["protocol"], "robot-r1");
    let n = |kind: &str| report["by_category"][kind]["n"].as_u64().unwrap();
    assert_eq!(["waypoint", "state", "movement"].map(n), [1, 2, 1]);
    // Saved answers keep the kind, so that they can be scored again.
    let answers = read(&dir.path().join("scores/answers.json"));
    assert_eq!(answers[2]["kind"], "movement");
    let again = ["eval", "--predictions", "scores/answers.json", "--json"];
    let again: Value =
        serde_json::from_str(&stdout_of(&mut embodied_r(dir.path(), &again))).unwrap();
    // A file does not say which frames the model saw.
    for key in report
        .as_object()
        .unwrap()
        .keys()
        .filter(|key| !["prompt", "frames"].contains(&key.as_str()))
    {
        assert_eq!(again[key], report[key], "{key}");
    }
    assert_eq!((&again["prompt"], &again["frames"]), (&Value::Null, &Value::Null));
}

#[test]
fn filter_drops_what_the_model_answers_and_resumes_by_what_it_saw() {
    let dir = workspace();
    let records =
        [1, 2].map(|seed| question_about(dir.path(), &format!("{seed}.png"), (60, 60), seed));
    write_lines(&dir.path().join("data.jsonl"), &records);
    let run = |more: &[&str]| {
        let words = [
            "filter",
            "--direct",
            "--model",
            "model",
            "--data",
            "data.jsonl",
            "--output",
            "kept.json",
            "--tries",
            "1",
            "--max-new-tokens",
            "4",
            "--json",
        ];
        embodied_r(dir.path(), &words).args(more).output().unwrap()
    };
    let first = run(&[]);
    assert!(first.status.success(), "{}", stderr(&first));
    let kept = read(&dir.path().join("kept.json"));
    assert_eq!(kept.len(), 2, "the random model names no option");
    assert_eq!(kept[0]["images"], json!(["1.png"]));
    assert!(!stderr(&first).contains("resuming"));
    assert!(stderr(&run(&[])).contains("resuming: 2 of 2 questions are done"));
    // Another image in the same file is another question.
    test_image((60, 60), 9).save(dir.path().join("2.png")).unwrap();
    assert!(stderr(&run(&[])).contains("resuming: 1 of 2 questions are done"));
    let changed = run(&["--max-pixels", "4000"]);
    assert_eq!(changed.status.code(), Some(2));
    assert!(stderr(&changed).contains("`max_pixels` was null and is 4000"), "{}", stderr(&changed));
}

#[test]
fn bad_records_are_named_or_left_out_and_counted() {
    let dir = workspace();
    let good = question_about(dir.path(), "a.png", (60, 60), 1);
    fs::write(dir.path().join("broken.png"), "no image").unwrap();
    let broken = question(&["broken.png".to_owned()]);
    let missing = question(&["missing.png".to_owned()]);
    write_lines(&dir.path().join("data.jsonl"), &[missing.clone(), good.clone(), broken.clone()]);
    let text = stderr_of(&mut embodied_r(dir.path(), &INFER), 1);
    assert!(text.contains("missing.png") && text.contains("record 1"), "{text}");
    write_lines(&dir.path().join("data.jsonl"), &[good.clone(), broken.clone()]);
    let text = stderr_of(&mut embodied_r(dir.path(), &INFER), 1);
    assert!(text.contains("record 2 of `data.jsonl`") && text.contains("broken.png"), "{text}");
    assert!(text.contains("--skip-bad-records"), "{text}");
    write_lines(&dir.path().join("data.jsonl"), &[missing, good, broken.clone()]);
    let mut skipping = embodied_r(dir.path(), &INFER);
    let text = stderr_of(skipping.arg("--skip-bad-records"), 0);
    assert!(text.contains("left out 2 bad records of `data.jsonl`"), "{text}");
    assert_eq!(read(&dir.path().join("out.json")).len(), 1);
    write_lines(&dir.path().join("data.jsonl"), &[broken]);
    let mut skipping = embodied_r(dir.path(), &INFER);
    let text = stderr_of(skipping.arg("--skip-bad-records"), 1);
    assert!(text.contains("has no usable questions"), "{text}");
}

#[test]
fn a_model_that_cannot_see_and_a_captioner_are_refused() {
    let dir = workspace();
    let record = question_about(dir.path(), "a.png", (60, 60), 1);
    write_lines(&dir.path().join("data.jsonl"), &[record]);
    tiny_model::write(&dir.path().join("text"));
    let infer = |words: &[&str]| {
        stderr_of(embodied_r(dir.path(), &INFER[..2]).args(&INFER[4..]).args(words), 2)
    };
    let text = infer(&["--model", "text"]);
    assert!(text.contains("`text` is a text model; choose a vision-language model"), "{text}");
    let text = infer(&["--model", "model", "--captioner", "model"]);
    assert!(text.contains("the model sees the frames itself"), "{text}");
    let text = infer(&["--model", "model", "--frames", "some"]);
    assert!(text.contains("the frames of videos"), "{text}");
    let mut without =
        embodied_r(dir.path(), &["infer", "--model", "model", "--data", "data.jsonl"]);
    let text = stderr_of(without.args(["--output", "o.json", "--frames", "key"]), 2);
    assert!(text.contains("--direct"), "{text}");
    for command in ["eval", "filter"] {
        let words =
            [command, "--direct", "--model", "text", "--data", "data.jsonl", "--output", "o"];
        let text = stderr_of(&mut embodied_r(dir.path(), &words), 2);
        assert!(text.contains("is a text model"), "{command}: {text}");
    }
}

#[test]
fn ask_answers_about_a_video_as_infer_does() {
    let dir = workspace();
    let source = "-f lavfi -i testsrc2=s=84x56:r=2 -frames:v 12";
    let codec = "-c:v libx264 -preset ultrafast -pix_fmt yuv420p";
    write_clip(&format!("{source} {codec}"), &dir.path().join("clip.mp4"));
    let record =
        json!({"Question_id": 1, "question": "Where?", "answer": "A", "videos": "clip.mp4"});
    fs::write(dir.path().join("data.jsonl"), json!([record]).to_string()).unwrap();
    let ask = |words: &[&str]| {
        let mut command = embodied_r(dir.path(), &["ask", "clip.mp4", "Where?", "--direct"]);
        command.args(["--max-new-tokens", "6"]).args(words);
        command
    };
    for frames in ["uniform=2", "uniform=12"] {
        let words = ["--frames", frames];
        embodied_r(dir.path(), &INFER).args(words).assert().code(0);
        let expected = read(&dir.path().join("out.json"))[0]["content"].clone();
        let mut command = ask(&["--policy", "model", "--json"]);
        let answer: Value = serde_json::from_str(&stdout_of(command.args(words))).unwrap();
        assert_eq!(answer["completion"], expected);
        assert_eq!(answer["keyframes"], json!([]));
    }
    tiny_model::write(&dir.path().join("text"));
    let text = stderr_of(&mut ask(&["--policy", "text"]), 2);
    assert!(text.contains("`text` is a text model"), "{text}");
    let text = stderr_of(&mut ask(&["--policy", "model", "--captioner", "model"]), 2);
    assert!(text.contains("--captioner") && text.contains("--direct"), "{text}");
    fs::write(dir.path().join("clip.mp4"), "no video").unwrap();
    let text = stderr_of(&mut ask(&["--policy", "model"]), 1);
    assert!(text.contains("cannot show `clip.mp4`"), "{text}");
}

/// Trains on a red and a blue image by `sft`, whose two questions differ by them alone.
fn train(dir: &Path, settings: &[&str]) {
    VisionModel::Nested.write(&dir.join("model"));
    let question = |(name, answer, color): (&str, &str, [u8; 3])| {
        RgbImage::from_pixel(60, 60, Rgb(color)).save(dir.join(name)).unwrap();
        json!({"problem": "<image>Red (A) or blue (B)?", "answer": answer, "images": [name],
            "question_category": "Landmark Position", "scene_name": name})
    };
    let questions = [("red.png", "A", [255, 0, 0]), ("blue.png", "B", [0, 0, 255])].map(question);
    write_lines(&dir.join("data.jsonl"), &questions);
    for (fold, question) in questions.iter().enumerate() {
        write_lines(&dir.join(format!("fold-{fold}.jsonl")), std::slice::from_ref(question));
    }
    let mut command = embodied_r(dir, &["sft", "--model", "model", "--data", "data.jsonl"]);
    command.args(["--output", "run", "--set", "train_batch_size=2"]);
    for setting in settings {
        command.args(["--set", setting]);
    }
    command.assert().code(0);
}

const EVAL: [&str; 7] =
    ["eval", "--direct", "--model", "run/final", "--max-new-tokens", "48", "--json"];

fn score(dir: &Path, words: &[&str]) -> Value {
    let text = stdout_of(embodied_r(dir, &EVAL).args(words));
    serde_json::from_str(&text).unwrap()
}

#[test]
fn a_trained_model_answers_by_what_it_sees() {
    let dir = tempfile::tempdir().unwrap();
    train(
        dir.path(),
        &["learning_rate=0.003", "num_train_epochs=150", "lr_scheduler_type=\"constant\""],
    );
    assert_eq!(score(dir.path(), &["--data", "data.jsonl"])["overall"], 100.0);
    let folds = score(dir.path(), &["--data", "fold-{fold}.jsonl", "--folds", "2"]);
    assert_eq!(folds["overall"], 100.0, "{folds}");
    // The same questions about the other image.
    fs::rename(dir.path().join("red.png"), dir.path().join("x.png")).unwrap();
    fs::rename(dir.path().join("blue.png"), dir.path().join("red.png")).unwrap();
    fs::rename(dir.path().join("x.png"), dir.path().join("blue.png")).unwrap();
    assert_eq!(score(dir.path(), &["--data", "data.jsonl"])["overall"], 0.0);
}

#[test]
fn an_adapter_sees_by_the_vision_encoder_of_its_base_model() {
    let dir = tempfile::tempdir().unwrap();
    let settings = ["learning_rate=0.01", "num_train_epochs=300", "use_peft=true"];
    train(dir.path(), &settings);
    assert!(dir.path().join("run/final/adapter_model.safetensors").is_file());
    assert_eq!(score(dir.path(), &["--data", "data.jsonl"])["overall"], 100.0);
}

#[test]
fn the_system_prompt_is_part_of_the_prompt() {
    let dir = tempfile::tempdir().unwrap();
    VisionModel::Nested.write(&dir.path().join("model"));
    let record = question_about(dir.path(), "a.png", (60, 60), 1);
    write_lines(&dir.path().join("data.jsonl"), &[record]);
    let mut command = embodied_r(dir.path(), &INFER);
    let text = stderr_of(command.args(["--system-prompt", &"x".repeat(5000)]), 1);
    assert!(text.contains("its prompt has 50"), "{text}");
}
