//! Captions of a model on several tensor-parallel ranks, and of several replicas, over MPI.
#![cfg(feature = "mpi")]

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use assert_cmd::assert::OutputAssertExt as _;
use embodied_r_policy::weights::{TensorFile, save_file};
use embodied_r_policy::{ModelConfig, Policy, WeightDtype};
use embodied_r_tests::{VisionModel, binary};
use image::{Rgb, RgbImage};
use serde_json::{Value, json};

fn command(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.current_dir(dir).args(arguments).env_remove("OPENAI_API_KEY");
    command
}

fn run(dir: &Path, arguments: &[&str]) -> String {
    let output = command(dir, arguments).assert().code(0).get_output().clone();
    String::from_utf8(output.stdout).unwrap()
}

/// A vision-language model with random weights, four attention heads and two KV heads.
fn write_model(dir: &Path) {
    VisionModel::Flat.write(dir);
    let path = dir.join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    for (field, value) in [
        ("num_attention_heads", json!(4)),
        ("num_key_value_heads", json!(2)),
        ("head_dim", json!(16)),
        ("initializer_range", json!(0.3)),
    ] {
        config[field] = value;
    }
    fs::write(&path, config.to_string()).unwrap();
    let weights = dir.join("model.safetensors");
    let tower = TensorFile::open(&weights).unwrap();
    let of_tower = tower.names().filter(|name| name.starts_with("visual."));
    let mut tensors: Vec<_> =
        of_tower.map(|name| (name.to_owned(), tower.tensor(name).unwrap().unwrap())).collect();
    assert!(!tensors.is_empty());
    let decoder = Policy::random(&ModelConfig::of_model(dir).unwrap(), 5).unwrap();
    let decoder = decoder.parameters().iter();
    tensors.extend(decoder.map(|(name, tensor)| (name.to_owned(), tensor.clone())));
    drop(tower);
    let tensors = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor));
    save_file(&weights, tensors, WeightDtype::F32).unwrap();
}

/// The output of `inspect caption` for three images on `ranks` ranks.
fn inspect(dir: &Path, model: &str, ranks: usize) -> Value {
    let ranks = ranks.to_string();
    let report = run(
        dir,
        &[
            "inspect",
            "caption",
            "--model",
            model,
            "--image",
            "0.png",
            "1.png",
            "2.png",
            "--prompt",
            "What is there?",
            "--max-tokens",
            "12",
            "--ranks",
            &ranks,
            "--tp",
            &ranks,
            "--json",
        ],
    );
    serde_json::from_str(&report).unwrap()
}

#[test]
fn several_ranks_describe_images_as_one_does() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for number in 0..3 {
        let pixel = |x, y| Rgb([(x * (number + 2)) as u8, (3 * y) as u8, (x ^ y) as u8]);
        let image = RgbImage::from_fn(90 + 30 * number, 70, pixel);
        image.save(at(&format!("{number}.png"))).unwrap();
    }
    write_model(&at("folder"));
    VisionModel::Gguf.write(&at("gguf"));
    for (model, counts) in [("folder", &[2, 4][..]), ("gguf", &[2])] {
        let one = inspect(dir.path(), model, 1);
        for ranks in counts {
            let found = inspect(dir.path(), model, *ranks);
            for field in ["tokens", "grid_thw", "n_input"] {
                assert_eq!(found[field], one[field], "{model}, {ranks} ranks");
            }
            let top5 = |report: &Value| -> Vec<(u64, f64)> {
                serde_json::from_value(report["last_top5"].clone()).unwrap()
            };
            for ((id, expected), (found, logp)) in top5(&one).iter().zip(top5(&found)) {
                assert_eq!(*id, found, "{model}, {ranks} ranks");
                assert!(
                    (expected - logp).abs() < 1e-4,
                    "{model}, {ranks} ranks: {logp}, not {expected}"
                );
            }
        }
    }
    let bench = [
        "bench", "caption", "--model", "folder", "--frames", "3", "--size", "90", "60", "--new",
        "4", "--runs", "1", "--json", "--ranks", "2", "--tp", "2",
    ];
    let metrics: Value = serde_json::from_str(&run(dir.path(), &bench)).unwrap();
    assert!(metrics["decode_tokens_per_s"].as_f64().unwrap() > 0.0, "{metrics}");
    assert_eq!(metrics["tokens_per_frame"], 6.0);
}

#[test]
fn an_unsupported_split_is_reported_once() {
    let dir = tempfile::tempdir().unwrap();
    write_model(&dir.path().join("model"));
    RgbImage::new(60, 60).save(dir.path().join("a.png")).unwrap();
    let stderr = |ranks: &str, tp: &str, code: i32| {
        let arguments = [
            "inspect", "caption", "--model", "model", "--image", "a.png", "--prompt", "What?",
            "--ranks", ranks, "--tp", tp,
        ];
        let output = command(dir.path(), &arguments).assert().code(code).get_output().clone();
        String::from_utf8(output.stderr).unwrap()
    };
    let error = stderr("3", "3", 1);
    assert!(error.contains("`num_attention_heads` of 4 over 3 ranks"), "{error}");
    assert_eq!(error.matches("error: ").count(), 1, "{error}");
    let error = stderr("2", "4", 2);
    assert!(error.contains("`--tp` must be the number of ranks, 2, not 4"), "{error}");
}

/// Rooms with their questions in `data`, and a vision-language model in `model`.
fn rooms() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    run(dir.path(), &["sim", "rooms", "--output", "raw", "--rooms", "6", "--seed", "5"]);
    run(dir.path(), &["preprocess", "--data", "raw", "--output", "data"]);
    write_model(&dir.path().join("model"));
    dir
}

/// Few short captions of the test questions.
const PERCEIVE: [&str; 15] = [
    "perceive",
    "--data",
    "data/complete/test_data.json",
    "--max-frames",
    "4",
    "--max-tokens",
    "6",
    "--image-side",
    "160",
    "--temperature",
    "0",
    "--backend",
    "local",
    "--captioner",
    "model",
];

fn perceive<'a>(output: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&PERCEIVE[..], &["--output", output], more].concat()
}

/// The questions with captions that were written.
fn prompts(dir: &Path, output: &str) -> Vec<Value> {
    let text = fs::read(dir.join(output).join("test_data.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

#[test]
fn captions_of_tensor_parallel_models_and_of_replicas_are_those_of_one_process() {
    let dir = rooms();
    let stdout = run(dir.path(), &perceive("one", &[]));
    let one = prompts(dir.path(), "one");
    assert!(one.len() > 2, "{stdout}");
    for (ranks, tp) in [("2", "2"), ("4", "4"), ("4", "2"), ("2", "1")] {
        let output = format!("{ranks}-{tp}");
        // The files of the replicas are merged and removed.
        let stdout = run(dir.path(), &perceive(&output, &["--ranks", ranks, "--tp", tp]));
        assert_eq!(prompts(dir.path(), &output), one, "{ranks} ranks, tp {tp}");
        assert!(stdout.contains(&format!("{} captioned, 0 cached", one.len())), "{stdout}");
        let entries = fs::read_dir(dir.path().join(&output)).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        assert_eq!(names.filter(|name| name.starts_with("replica-")).count(), 0);
        let again = run(dir.path(), &perceive(&output, &["--ranks", "2"]));
        assert!(again.contains("0 captioned,"), "{again}");
    }
    // Two shards with two replicas each.
    for shard in ["1/2", "2/2"] {
        run(dir.path(), &perceive("parts", &["--shard", shard, "--ranks", "2"]));
    }
    let data = ["--data", "data/complete/test_data.json", "--output", "parts"];
    run(dir.path(), &[&["perceive", "merge"], &data[..]].concat());
    assert_eq!(prompts(dir.path(), "parts"), one);
}

/// The process id of the rank `rank` of the job in `dir`.
fn process(dir: &Path, rank: usize) -> Option<u32> {
    let variable = format!("OMPI_COMM_WORLD_RANK={rank}");
    fs::read_dir("/proc").unwrap().flatten().find_map(|process| {
        let variables = fs::read(process.path().join("environ")).ok()?;
        let is_rank = variables.split(|&byte| byte == 0).any(|it| it == variable.as_bytes());
        let is_here = fs::read_link(process.path().join("cwd")).is_ok_and(|cwd| cwd == dir);
        let id = process.file_name().to_str()?.parse().ok()?;
        (is_rank && is_here).then_some(id)
    })
}

/// The number of lines in all caption logs of a folder, including those of its replicas.
fn lines(folder: &Path) -> usize {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let count = |path: &Path| match path.is_dir() {
        true => lines(path),
        false if path.to_string_lossy().ends_with(".captions.jsonl") => {
            fs::read(path).unwrap_or_default().iter().filter(|&&byte| byte == b'\n').count()
        }
        false => 0,
    };
    entries.flatten().map(|entry| count(&entry.path())).sum()
}

fn wait(child: &mut Child, what: &str, mut ready: impl FnMut(&mut Child) -> bool) {
    let until = Instant::now() + Duration::from_secs(240);
    while !ready(child) {
        assert!(Instant::now() < until, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_rank_that_dies_aborts_the_job_and_finished_captions_are_kept() {
    let dir = rooms();
    let path = dir.path().canonicalize().unwrap();
    run(&path, &perceive("one", &[]));
    let one = prompts(&path, "one");
    let more = ["--ranks", "4", "--tp", "2", "--concurrency", "1", "--deadline", "20"];
    let log = fs::File::create(path.join("stderr")).unwrap();
    let mut child = command(&path, &perceive("killed", &more))
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap();
    wait(&mut child, "no question was captioned", |child| {
        assert!(child.try_wait().unwrap().is_none(), "the job ended before a rank was killed");
        lines(&path.join("killed")) > 0
    });
    let lost = process(&path, 3).unwrap();
    assert!(Command::new("kill").args(["-9", &lost.to_string()]).status().unwrap().success());
    let mut status = None;
    wait(&mut child, "the job does not end", |child| {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    let stderr = fs::read_to_string(path.join("stderr")).unwrap();
    assert_eq!(status.unwrap().code(), Some(1), "{stderr}");
    assert!(stderr.contains("rank 3"), "{stderr}");
    wait(&mut child, "ranks still run", |_| (0..4).all(|rank| process(&path, rank).is_none()));
    let finished = lines(&path.join("killed"));
    assert!(finished > 0);
    // Another number of replicas resumes the run.
    let stdout = run(&path, &perceive("killed", &["--ranks", "3"]));
    assert!(!stdout.contains("captioned, 0 cached"), "{stdout}");
    assert_eq!(prompts(&path, "killed"), one);
}
