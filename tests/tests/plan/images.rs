//! `embodied-r plan` for vision-language models that see the images of the questions.

use std::fs;
use std::process::Command;

use embodied_r_tests::{VisionModel, binary, stdout_of};
use image::{Rgb, RgbImage};
use serde_json::{Value, json};

use super::{json as planned, number, plan, refused};

const MODEL: [&str; 2] = ["--model", "Qwen/Qwen2.5-VL-3B-Instruct"];

/// The report of a run with prompts of up to 16,384 tokens.
fn report(more: &[&str]) -> Value {
    let long = ["--gpus", "8", "--gpu", "H100", "--set", "max_prompt_length=16384"];
    planned(&[&MODEL[..], &long, more].concat())
}

#[test]
fn the_encoder_and_the_images_are_counted() {
    let text = report(&[]);
    assert_eq!(text["memory"].get("vision"), None);
    assert_eq!(text["model"].get("vision_encoder"), None);
    let four = ["--images", "4", "--image-pixels", "254016"];
    let frozen = report(&four);
    assert_eq!(
        frozen["model"]["vision_encoder"],
        json!({"parameters": 668_684_288, "trainable": 0, "images": 4, "image_tokens": 4 * 324})
    );
    assert_eq!(number(&frozen, "/memory/vision/weights_gb"), 1.337);
    assert_eq!(number(&frozen, "/memory/vision/training_gb"), 0.0);
    assert!(number(&frozen, "/memory/total_gb") >= 1.337 + number(&text, "/memory/least_gb"));
    let train = ["--set", "freeze_vision_tower=false", "--set", "freeze_aligner=false"];
    let trained = report(&[&four[..], &train].concat());
    assert_eq!(trained["model"]["vision_encoder"]["trainable"], 668_684_288);
    assert!(number(&trained, "/memory/vision/training_gb") > 4.0 * 0.668);
    let encoding = |report: &Value| {
        let phases = report["time"]["phases"].as_array().unwrap();
        let of = phases.iter().find(|phase| phase["name"] == "vision encoder");
        of.map_or(0.0, |phase| phase["tflop"].as_f64().unwrap())
    };
    assert_eq!(encoding(&text), 0.0);
    // Two forwards, and a backward of about two.
    let times = encoding(&trained) / encoding(&frozen);
    assert!((3.9..4.0).contains(&times), "{times}");
    // Without memory for activations also the recomputation of all blocks.
    let recomputed = report(&[&four[..], &train, &["--set", "recompute=\"all\""]].concat());
    let times = encoding(&recomputed) / encoding(&frozen);
    assert!((4.5..5.0).contains(&times), "{times}");
    let saved = |report| number(report, "/memory/vision/activations_gb");
    assert!(saved(&trained) > 2.0 * saved(&recomputed), "{} GB", saved(&trained));
}

#[test]
fn a_frozen_encoder_takes_time_in_the_first_epoch_only() {
    let of = |more: &[&str]| {
        let images = ["--images", "8", "--questions", "400"];
        report(&[&images[..], more].concat())
    };
    let hours = |report: &Value| {
        let step = number(report, "/time/step_s");
        (number(report, "/run/hours"), report["run"]["steps"].as_f64().unwrap() * step / 3600.0)
    };
    let (frozen, every_step) = hours(&of(&[]));
    assert!(frozen < every_step - 0.01, "{frozen} of {every_step}");
    let (trained, every_step) = hours(&of(&["--set", "freeze_vision_tower=false"]));
    assert!((trained - every_step).abs() < 0.01, "{trained} and {every_step}");
}

#[test]
fn a_run_that_shows_videos_has_the_frames_of_its_settings() {
    let config = ["--config", "../configs/direct-vlm.toml", "--gpu", "H100"];
    let images = |more: &[&str]| {
        let report = planned(&[&MODEL[..], &config, more].concat());
        let encoder = &report["model"]["vision_encoder"];
        (encoder["images"].as_u64().unwrap(), encoder["image_tokens"].as_u64().unwrap())
    };
    // 32 key frames of 308 × 308 pixels, two in a temporal patch.
    assert_eq!(images(&[]), (1, 16 * 121));
    assert_eq!(images(&["--set", "frames=\"uniform=8\""]), (1, 4 * 121));
    assert_eq!(images(&["--set", "frame_use=\"images\"", "--video-frames", "5"]), (5, 5 * 121));
    assert_eq!(images(&["--images", "2", "--image-pixels", "50176"]), (2, 2 * 64));
}

#[test]
fn images_of_a_text_model_and_too_many_are_refused() {
    let text = refused(&["--model", "Qwen/Qwen2.5-3B-Instruct", "--images", "1"]);
    assert!(text.contains("unknown vision-language model"), "{text}");
    let text = refused(&[&MODEL[..], &["--images", "20"]].concat());
    assert!(text.contains("25920 tokens, but `max_prompt_length` is 6144"), "{text}");
    let text = refused(&[&MODEL[..], &["--image-pixels", "784"]].concat());
    assert!(text.contains("`--image-pixels` needs `--images`"), "{text}");
    let text = refused(&["--captioner", "Qwen/Qwen2.5-VL-3B-Instruct", "--images", "1"]);
    assert!(text.contains("--images"), "{text}");
}

#[test]
fn the_text_has_the_parts_of_the_memory() {
    let images = ["--gpu", "H100", "--images", "1", "--set", "freeze_vision_tower=false"];
    let done = plan(&[&MODEL[..], &images].concat());
    let text = String::from_utf8_lossy(&done.get_output().stdout).into_owned();
    for part in [
        "vision encoder of 0.67 B parameters, trained in part; 1 image with 1296 tokens",
        "vision encoder       2.67 GB",
        "saved by encoder",
        "GB per rank besides the program",
        "GB of them for image embeddings and patches",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

/// The number before `GB` or after `name` in a dry run.
fn gb_after(text: &str, name: &str) -> f64 {
    let rest = text.split_once(name).unwrap_or_else(|| panic!("{name} in {text}")).1;
    rest.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn a_plan_has_the_numbers_of_a_dry_run_on_the_same_data() {
    let dir = tempfile::tempdir().unwrap();
    VisionModel::Nested.write(&dir.path().join("model"));
    // Images keep their size.
    let path = dir.path().join("model/preprocessor_config.json");
    let mut processor: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    processor["max_pixels"] = json!(1_960_000);
    fs::write(&path, processor.to_string()).unwrap();
    let mut lines = String::new();
    for question in 0..4u8 {
        let name = format!("{question}.png");
        let image = RgbImage::from_pixel(1400, 1400, Rgb([question, 0, 0]));
        image.save(dir.path().join(&name)).unwrap();
        let record = json!({"problem": "<image>Where?", "answer": "A", "images": [name]});
        lines.push_str(&format!("{record}\n"));
    }
    fs::write(dir.path().join("data.jsonl"), lines).unwrap();
    let config = "generation_batch_size = 4\nnum_generations = 2\nmax_completion_length = 8\n\
                  max_tokens_per_batch = 9000\nmax_prompt_length = 4000\n";
    fs::write(dir.path().join("run.toml"), config).unwrap();
    for train in [&[][..], &["--set", "freeze_vision_tower=false", "--set", "freeze_aligner=false"]]
    {
        let run = |words: &[&str]| {
            let mut command = Command::new(binary());
            command.current_dir(dir.path()).args(words).args(["--config", "run.toml"]);
            stdout_of(command.args(["--model", "model"]).args(train))
        };
        let dry_run = ["train", "--data", "data.jsonl", "--output", "run", "--dry-run"];
        let dry = run(&dry_run);
        let images = ["--images", "1", "--image-pixels", "1960000", "--questions", "4"];
        let plan = run(&[&["plan", "--device", "cpu", "--json"][..], &images].concat());
        let plan: Value = serde_json::from_str(&plan).unwrap();
        let parts = ["weights", "training", "embeddings", "patches", "activations"];
        let vision: f64 =
            parts.map(|part| number(&plan, &format!("/memory/vision/{part}_gb"))).iter().sum();
        let (of_dry, total) = (gb_after(&dry, "images "), gb_after(&dry, "about "));
        assert!(of_dry > 0.04, "{dry}");
        assert!((vision - of_dry).abs() < 0.008, "{vision} and {of_dry}: {plan}");
        assert!((number(&plan, "/memory/total_gb") - total).abs() < 0.03, "{dry}: {plan}");
    }
}
