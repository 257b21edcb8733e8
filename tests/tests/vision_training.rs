//! `train` and `sft` on questions with images and videos.

mod lora;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use assert_cmd::assert::OutputAssertExt as _;
use embodied_r_tests::{VisionModel, binary, events, stderr_of, stdout_of, tiny_model, write_clip};
use safetensors::SafeTensors;
use serde_json::{Value, json};

use crate::images::test_image::test_image;

/// A short run with rewards that differ between completions.
const SETTINGS: &str = "
learning_rate = 1e-3
warmup_ratio = 0.0
beta = 0.04
max_steps = 4
save_steps = 2
generation_batch_size = 8
num_generations = 4
max_completion_length = 16
reward_weights = { repetition = 1.0 }
repetition_n_grams = 1
";

/// Trains the whole vision encoder.
const TRAINED: [&str; 4] = ["--set", "freeze_vision_tower=false", "--set", "freeze_aligner=false"];

/// A folder with a model, and questions about six images, each of which occurs twice.
fn workspace() -> tempfile::TempDir {
    workspace_of(VisionModel::Nested)
}

fn workspace_of(model: VisionModel) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    model.write(&dir.path().join("model"));
    fs::write(dir.path().join("run.toml"), SETTINGS).unwrap();
    fs::create_dir(dir.path().join("images")).unwrap();
    let mut lines = String::new();
    for question in 0..12 {
        let name = format!("images/{}.png", question % 6);
        let size = [(84, 56), (56, 112)][question % 2];
        test_image(size, question as u32 % 6).save(dir.path().join(&name)).unwrap();
        let problem = format!("<image>Is it a cup or a lamp? ({question})\nA. cup\nB. lamp");
        let record = json!({"problem": problem, "answer": "A", "images": [name]});
        lines.push_str(&format!("{record}\n"));
    }
    fs::write(dir.path().join("train.jsonl"), lines).unwrap();
    dir
}

/// Scores each completion by its first token, so that the completions of a group nearly always differ.
const SCORE: &str = r#"#!/bin/sh
ids=$(sed 's/.*"completion_ids":\[\[//; s/\]\],"ids".*//; s/\],\[/\n/g')
scores=$(echo "$ids" | awk -F, '{ printf "%s%d", (NR > 1 ? ", " : ""), $1 % 7 }')
echo "{\"rewards\": [$scores]}"
"#;

/// As [`workspace`], with rewards by [`SCORE`].
fn scored_workspace() -> tempfile::TempDir {
    scored_workspace_of(VisionModel::Nested)
}

fn scored_workspace_of(model: VisionModel) -> tempfile::TempDir {
    let dir = workspace_of(model);
    fs::write(dir.path().join("score.sh"), SCORE).unwrap();
    let settings = SETTINGS.replace("repetition = 1.0", "first = 1.0");
    let settings = settings.replace("repetition_n_grams = 1\n", "");
    let reward = "[[reward]]\nname = 'first'\ncommand = ['sh', 'score.sh']\n";
    fs::write(dir.path().join("run.toml"), settings + reward).unwrap();
    dir
}

fn train(dir: &Path, output: &str, more: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.current_dir(dir).args(["train", "--config", "run.toml", "--model", "model"]);
    command.args(["--data", "train.jsonl", "--output", output]).args(more);
    command
}

/// The bytes of all tensors of a model.
fn tensors(model: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(model).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            let bytes = fs::read(path).unwrap();
            let tensors = SafeTensors::deserialize(&bytes).unwrap();
            let of = |(name, view): (&str, safetensors::tensor::TensorView<'_>)| {
                (name.to_owned(), view.data().to_vec())
            };
            all.extend(tensors.iter().map(of));
        }
    }
    all
}

/// Embeddings in the cache of a run.
fn cached(run: &Path) -> usize {
    let folder = fs::read_dir(run.join("image_cache")).unwrap().next().unwrap().unwrap();
    fs::read_dir(folder.path()).unwrap().count()
}

/// The names of the tensors that differ.
fn changed(a: &Path, b: &Path) -> Vec<String> {
    let (a, b) = (tensors(a), tensors(b));
    assert!(a.keys().eq(b.keys()));
    a.into_iter().filter(|(name, bytes)| *bytes != b[name]).map(|(name, _)| name).collect()
}

#[test]
fn a_frozen_encoder_stays_and_encodes_an_image_once_per_run() {
    let dir = workspace();
    let run = dir.path().join("run");
    train(dir.path(), "run", &["--verify-packing"]).assert().code(0);
    let steps = events(&run, "step");
    assert_eq!(steps.len(), 4);
    assert!(steps.iter().any(|step| step["grad_norm"].as_f64().unwrap() > 0.0));
    assert!((1..=6).contains(&cached(&run)));
    let changed = changed(&dir.path().join("model"), &run.join("final"));
    assert!(!changed.is_empty());
    assert!(changed.iter().all(|name| !name.contains("visual.")), "{changed:?}");
}

#[test]
fn a_trained_encoder_changes_and_a_resumed_run_is_the_same_byte_for_byte() {
    for model in [VisionModel::Nested, VisionModel::Qwen3Vl] {
        trained_and_resumed(workspace_of(model));
    }
}

fn trained_and_resumed(dir: tempfile::TempDir) {
    let run = dir.path().join("run");
    train(dir.path(), "run", &TRAINED).args(["--verify-packing"]).assert().code(0);
    let found = changed(&dir.path().join("model"), &run.join("final"));
    let encoder = tensors(&run.join("final"));
    let encoder: Vec<&String> = encoder.keys().filter(|name| name.contains("visual.")).collect();
    assert!(encoder.len() > 10);
    assert!(encoder.iter().all(|name| found.contains(name)), "{found:?}");
    let part = dir.path().join("part");
    train(dir.path(), "part", &TRAINED).assert().code(0);
    fs::remove_dir_all(part.join("checkpoint-4")).unwrap();
    fs::remove_dir_all(part.join("final")).unwrap();
    let mut resume = Command::new(binary());
    resume.current_dir(dir.path()).args(["train", "--resume", "part"]).assert().code(0);
    assert_eq!(tensors(&part.join("final")), tensors(&run.join("final")));
}

#[test]
fn the_learning_rate_of_the_encoder_is_its_own() {
    let dir = workspace();
    let mut slow = TRAINED.to_vec();
    slow.extend(["--set", "vision_learning_rate=1e-12"]);
    train(dir.path(), "slow", &slow).assert().code(0);
    train(dir.path(), "fast", &TRAINED).assert().code(0);
    let step = |run: &str| -> f64 {
        let before = tensors(&dir.path().join("model"));
        let after = tensors(&dir.path().join(run).join("final"));
        let name = before.keys().find(|name| name.contains("visual.merger.mlp.0.weight")).unwrap();
        let values = |bytes: &[u8]| -> Vec<f64> {
            let values = bytes.chunks(4).map(|x| f32::from_le_bytes([x[0], x[1], x[2], x[3]]));
            values.map(f64::from).collect()
        };
        let pairs = values(&before[name]).into_iter().zip(values(&after[name]));
        pairs.map(|(a, b)| (a - b).abs()).sum()
    };
    let (slow, fast) = (step("slow"), step("fast"));
    assert!(fast > 0.0 && slow < 1e-6 * fast, "{slow} and {fast}");
}

#[test]
fn videos_are_seen_as_videos_or_as_images() {
    for model in [VisionModel::Nested, VisionModel::Qwen3Vl] {
        videos_are_seen(workspace_of(model));
    }
}

/// Writes the frames of a video, which is returned.
fn video(dir: &Path) -> Value {
    let frame = |i: u32| {
        let name = format!("images/frame-{i}.png");
        test_image((84, 56), 20 + i).save(dir.join(&name)).unwrap();
        name
    };
    let frames: Vec<String> = (0..4).map(frame).collect();
    json!({"frames": frames, "fps": 2.0})
}

fn videos_are_seen(dir: tempfile::TempDir) {
    let video = video(dir.path());
    let record = json!({"problem": "<video>What moves?", "answer": "A", "videos": [&video]});
    let lines = format!("{record}\n").repeat(4);
    // The same in this project's own format.
    let of = |id: u32| {
        json!({"Question_id": id, "question": "<video>What moves?", "answer": "A",
            "videos": [&video]})
    };
    let own = Value::from((0..4).map(of).collect::<Vec<_>>()).to_string();
    let mut lengths = Vec::new();
    for (format, data) in [("lines", &lines), ("own", &own)] {
        fs::write(dir.path().join("train.jsonl"), data).unwrap();
        for frame_use in ["video", "images"] {
            let (output, setting) =
                (format!("{format}-{frame_use}"), format!("frame_use={frame_use}"));
            train(dir.path(), &output, &["--set", &setting, "--set", "max_steps=1"])
                .assert()
                .code(0);
            lengths.push(cached(&dir.path().join(output)));
        }
    }
    assert_eq!(lengths, [1, 4, 1, 4]);
    let mut trained = TRAINED.to_vec();
    trained.extend(["--verify-packing", "--set", "max_steps=2"]);
    train(dir.path(), "trained", &trained).assert().code(0);
    let found = changed(&dir.path().join("model"), &dir.path().join("trained/final"));
    assert!(found.iter().any(|name| name.contains("visual.patch_embed")), "{found:?}");
}

#[test]
fn the_batch_of_a_skipped_step_names_the_videos_that_its_frames_are_of() {
    let dir = workspace_of(VisionModel::Qwen3Vl);
    let clip = "-f lavfi -i testsrc=size=84x56:rate=4:duration=2 -pix_fmt yuv420p";
    write_clip(clip, &dir.path().join("walk.mp4"));
    let records = [
        json!({"problem": "<video>What moves?", "answer": "A", "videos": ["walk.mp4"]}),
        json!({"problem": "<image>What is it?", "answer": "A", "images": ["images/0.png"]}),
    ];
    let lines: String = records.iter().map(|record| format!("{record}\n")).collect();
    fs::write(dir.path().join("train.jsonl"), lines).unwrap();
    // Rewards whose standard deviation is not finite.
    let scores = r#"{"rewards": [1e308, -1e308, 0, 1, 0, 1, 0, 1]}"#;
    fs::write(dir.path().join("score.sh"), format!("echo '{scores}'\n")).unwrap();
    let settings = SETTINGS.replace("repetition = 1.0", "extreme = 1.0");
    let settings = settings.replace("repetition_n_grams = 1\n", "frames = \"uniform=4\"\n");
    let reward = "[[reward]]\nname = 'extreme'\ncommand = ['sh', 'score.sh']\n";
    fs::write(dir.path().join("run.toml"), settings + reward).unwrap();
    for (frame_use, frames) in [("video", 1), ("images", 4)] {
        let setting = format!("frame_use={frame_use}");
        let stderr = stderr_of(&mut train(dir.path(), frame_use, &["--set", &setting]), 1);
        assert!(stderr.contains("batch dumped to"), "{stderr}");
        let dump = format!("{frame_use}/skipped/step-000001.json");
        let batch: Value =
            serde_json::from_slice(&fs::read(dir.path().join(&dump)).unwrap()).unwrap();
        let groups = batch["groups"].as_array().unwrap();
        let list = if frame_use == "video" { "videos" } else { "images" };
        let of_video = |item: &&Value| item["frames"] == "uniform=4";
        let items = || groups.iter().flat_map(|group| group[list].as_array().into_iter().flatten());
        let of_video: Vec<&Value> = items().filter(of_video).collect();
        assert_eq!(of_video.len(), frames, "{batch}");
        assert!(of_video[0]["video"].as_str().unwrap().ends_with("walk.mp4"), "{batch}");
        // Its loss is that of the images and frames that were seen.
        let mut inspect = Command::new(binary());
        inspect.current_dir(dir.path()).args(["inspect", "loss", "--model", "model", "--data"]);
        inspect.arg(&dump).assert().code(0);
    }
}

#[test]
fn conversations_with_images_are_examples_of_sft() {
    for model in [VisionModel::Nested, VisionModel::Qwen3Vl] {
        conversations_are_examples(workspace_of(model));
    }
}

fn conversations_are_examples(dir: tempfile::TempDir) {
    let record = |index: usize| {
        let (image, answer) = (format!("images/{index}.png"), ["cup", "lamp"][index % 2]);
        let user = json!({"role": "user", "content": "<image>What is it?"});
        let reply = json!({"role": "assistant", "content": answer});
        json!({"messages": [user, reply], "images": [image]})
    };
    let lines: String = (0..6).map(|index| format!("{}\n", record(index))).collect();
    fs::write(dir.path().join("sft.jsonl"), lines).unwrap();
    for (output, more) in [("frozen", &[][..]), ("trained", &TRAINED[..])] {
        let mut sft = Command::new(binary());
        sft.current_dir(dir.path()).args(["sft", "--model", "model", "--data", "sft.jsonl"]);
        sft.args(["--output", output, "--eval-data", "sft.jsonl"]).args(more);
        sft.args(["--set", "learning_rate=3e-3", "--set", "train_batch_size=2"]);
        sft.args(["--set", "num_train_epochs=6"]).assert().code(0);
        let losses: Vec<f64> = events(&dir.path().join(output), "eval")
            .iter()
            .map(|eval| eval["eval/loss"].as_f64().unwrap())
            .collect();
        assert!(losses[losses.len() - 1] < 0.7 * losses[0], "{output}: {losses:?}");
        let visual = |name: &String| name.contains("visual.");
        let found = changed(&dir.path().join("model"), &dir.path().join(output).join("final"));
        assert_eq!(found.iter().any(visual), output == "trained");
    }
}

#[test]
fn a_bad_record_is_named_before_training_or_left_out() {
    let dir = workspace();
    let good = fs::read_to_string(dir.path().join("train.jsonl")).unwrap();
    fs::write(dir.path().join("images/broken.png"), b"\x89PNG\r\n\x1a\nnothing").unwrap();
    let cases = [
        (json!({"problem": "<image>?", "answer": "A", "images": ["none.png"]}), "none.png"),
        (json!({"problem": "<image>?", "answer": "A", "images": ["images/broken.png"]}), "broken"),
        (json!({"problem": "<image><image>?", "answer": "A", "images": ["images/0.png"]}), "2"),
    ];
    for (record, expected) in cases {
        fs::write(dir.path().join("train.jsonl"), format!("{good}{record}\n")).unwrap();
        let message = stderr_of(train(dir.path(), "run", &[]).arg("--dry-run"), 1);
        assert!(message.contains("13") && message.contains(expected), "{message}");
        let mut skip = train(dir.path(), "run", &["--skip-bad-records", "--dry-run"]);
        let output = skip.output().unwrap();
        let (out, err) = (output.stdout, String::from_utf8(output.stderr).unwrap());
        assert!(output.status.success(), "{err}");
        assert!(String::from_utf8(out).unwrap().contains("12 in total"));
        assert!(err.contains("left out 1 bad record"), "{err}");
    }
}

#[test]
fn a_text_model_does_not_see() {
    let dir = workspace();
    tiny_model::write(&dir.path().join("text"));
    let mut text = Command::new(binary());
    text.current_dir(dir.path()).args(["train", "--config", "run.toml", "--model", "text"]);
    text.args(["--data", "train.jsonl", "--output", "run", "--set", "direct=true"]);
    let message = stderr_of(&mut text, 2);
    assert!(message.contains("`text` is a text model"), "{message}");
    let plan = stdout_of(&mut train(dir.path(), "run", &["--dry-run"]));
    assert!(plan.contains("vision encoder and images"), "{plan}");
    // Its bad records are left out, too.
    let good = fs::read_to_string(dir.path().join("train.jsonl")).unwrap();
    fs::write(dir.path().join("train.jsonl"), format!("{good}{}\n", json!({"problem": 5})))
        .unwrap();
    let mut skipping = Command::new(binary());
    skipping.current_dir(dir.path()).args(["train", "--config", "run.toml", "--model", "text"]);
    skipping.args(["--data", "train.jsonl", "--output", "run", "--skip-bad-records", "--dry-run"]);
    let message = stderr_of(&mut skipping, 0);
    assert!(
        message.contains("left out 1 bad record of `train.jsonl`: `problem` in record 13"),
        "{message}"
    );
}

#[cfg(feature = "mpi")]
#[test]
fn two_ranks_give_the_update_of_one() {
    for model in [VisionModel::Nested, VisionModel::Qwen3Vl] {
        let dir = workspace_of(model);
        // The questions are about images, one about a video.
        let record = json!({"problem": "<video>What moves?", "answer": "A",
            "videos": [video(dir.path())]});
        let file = dir.path().join("train.jsonl");
        let images = fs::read_to_string(&file).unwrap();
        let images: Vec<&str> = images.lines().take(3).collect();
        fs::write(&file, format!("{}\n{record}\n", images.join("\n"))).unwrap();
        for (output, ranks) in [("one", "1"), ("two", "2")] {
            let mut run = train(dir.path(), output, &TRAINED);
            run.args(["--ranks", ranks, "--set", "max_steps=2"]).assert().code(0);
        }
        assert_close(&dir.path().join("one/final"), &dir.path().join("two/final"));
    }
}

/// Asserts that two models differ by rounding at most.
#[cfg(feature = "mpi")]
fn assert_close(one: &Path, two: &Path) {
    let [one, two] = [one, two].map(tensors);
    for (name, one) in &one {
        let values = |bytes: &[u8]| -> Vec<f32> {
            bytes.chunks(4).map(|x| f32::from_le_bytes([x[0], x[1], x[2], x[3]])).collect()
        };
        // AdamW's steps are as large for gradients that are nothing but rounding.
        let difference =
            values(one).into_iter().zip(values(&two[name])).map(|(a, b)| (a - b).abs());
        let mean = difference.sum::<f32>() / (one.len() / 4) as f32;
        assert!(mean < 2e-4, "{name}: {mean}");
    }
}

/// Trains for 4 steps, as one run and resumed from its second step, and returns the run's KL to the reference.
fn kl_of_a_resumed_run(more: &[&str]) -> Vec<f64> {
    let dir = scored_workspace();
    let mut settings = TRAINED.to_vec();
    settings.extend(more);
    if more.iter().any(|word| word.starts_with("stage")) {
        let path = dir.path().join("run.toml");
        let text = fs::read_to_string(&path).unwrap();
        // Stages have weights of their own.
        fs::write(&path, text.replace("reward_weights = { first = 1.0 }\n", "")).unwrap();
    }
    train(dir.path(), "run", &settings).assert().code(0);
    train(dir.path(), "part", &settings).assert().code(0);
    let [run, part] = ["run", "part"].map(|run| dir.path().join(run));
    fs::remove_dir_all(part.join("checkpoint-4")).unwrap();
    fs::remove_dir_all(part.join("final")).unwrap();
    let mut resume = Command::new(binary());
    resume.current_dir(dir.path()).args(["train", "--resume", "part"]).assert().code(0);
    assert_eq!(tensors(&part.join("final")), tensors(&run.join("final")));
    events(&run, "step").iter().map(|step| step["kl"].as_f64().unwrap()).collect()
}

#[test]
fn a_synced_reference_has_the_vision_encoder_of_the_policy() {
    let fixed = kl_of_a_resumed_run(&[]);
    assert!(fixed[0] < 1e-6 && fixed[1..].iter().all(|kl| *kl > 1e-4), "{fixed:?}");
    let sync = ["--set", "sync_ref_model=true", "--set", "ref_model_sync_steps=1"];
    let mixed = kl_of_a_resumed_run(&[&sync[..], &["--set", "ref_model_mixup_alpha=0.5"]].concat());
    assert!(mixed[2..].iter().zip(&fixed[2..]).all(|(mixed, fixed)| mixed < fixed), "{mixed:?}");
    assert!(mixed[1..].iter().all(|kl| *kl > 1e-5), "{mixed:?}");
    let copied =
        kl_of_a_resumed_run(&[&sync[..], &["--set", "ref_model_mixup_alpha=1.0"]].concat());
    assert!(copied.iter().all(|kl| *kl < 1e-6), "{copied:?}");
}

#[test]
fn a_reset_reference_has_the_vision_encoder_of_the_policy() {
    let stages = "stage=[{ steps = 2, weights = { first = 1.0 } }, \
                  { steps = 2, weights = { first = 1.0 }, reset_reference = true }]";
    let kl = kl_of_a_resumed_run(&["--set", stages]);
    assert!(kl[1] > 1e-4 && kl[2] < 1e-6 && kl[3] > 1e-5, "{kl:?}");
}
