//! `embodied-r plan`: estimates for known GPUs and models, and wrong usage.

mod images;
mod pages;

use assert_cmd::Command;
use assert_cmd::assert::Assert;
use embodied_r_tests::{binary, tiny_model};
use serde_json::Value;

const PAPER: [&str; 6] =
    ["--model", "Qwen/Qwen2.5-VL-3B-Instruct", "--gpus", "8", "--gpu-memory", "40"];

fn plan(arguments: &[&str]) -> Assert {
    // The plan needs no network.
    let mut command = Command::new(binary());
    command.arg("plan").args(arguments).env("HF_HUB_OFFLINE", "1").assert()
}

fn json(arguments: &[&str]) -> Value {
    let done = plan(&[arguments, &["--json"]].concat());
    serde_json::from_slice(&done.get_output().stdout).unwrap()
}

fn number(report: &Value, path: &str) -> f64 {
    report.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("{path} in {report}"))
}

fn refused(arguments: &[&str]) -> String {
    let done = plan(arguments).code(2);
    String::from_utf8_lossy(&done.get_output().stderr).into_owned()
}

#[test]
fn the_papers_run_fits_its_gpus() {
    plan(&PAPER).success();
    let report = json(&PAPER);
    assert_eq!(report["memory"]["fits"], true);
    assert_eq!(report["device"]["name"], "A800 40 GB");
    assert_eq!(report["model"]["parameters"], 3_085_938_688_u64);
    // 4 questions on 8 GPUs: each GPU has one prompt with half of its completions.
    assert_eq!(
        (&report["rank"]["prompts"], &report["rank"]["completions_per_prompt"]),
        (&1.into(), &4.into())
    );
    assert_eq!(report["advice"], Value::Array(Vec::new()));
}

#[test]
fn the_parts_of_the_memory_add_up() {
    let report = json(&PAPER);
    let of = |part: &str| number(&report, &format!("/memory/{part}_gb"));
    let resident = of("base") + of("weights") + of("reference") + of("masters") + of("moments");
    let resident = resident + of("rollout_pass");
    let total = resident + of("rollout").max(of("gradients") + of("update"));
    assert!((total - of("total")).abs() < 0.01, "{report}");
    assert!(of("total") <= of("usable") && of("least") <= of("total"), "{report}");
}

#[test]
fn the_phases_add_up_to_the_step_and_the_steps_to_the_run() {
    let usual = ["--prompt", "3000", "--completion", "150", "--questions", "4098"];
    let report = json(&[&PAPER[..], &usual].concat());
    let phases = report["time"]["phases"].as_array().unwrap();
    let names: Vec<_> = phases.iter().map(|phase| phase["name"].as_str().unwrap()).collect();
    let expected = ["gather", "prefill", "decode", "reference", "update", "reduce", "optimizer"];
    assert_eq!(names, expected);
    let sum: f64 = phases.iter().map(|phase| phase["seconds"].as_f64().unwrap()).sum();
    let step = number(&report, "/time/step_s");
    assert!((sum - step).abs() < 0.01, "{sum} and {step}");
    assert_eq!(report["run"]["steps"], 12_288);
    assert!((number(&report, "/run/hours") - 12_288.0 * step / 3600.0).abs() < 0.01);
    let bounds: Vec<_> = phases.iter().map(|phase| phase["bound"].as_str().unwrap()).collect();
    assert_eq!(bounds[1..5], ["compute", "memory", "compute", "compute"]);
}

#[test]
fn the_text_matches_the_json() {
    let done = plan(&PAPER).success();
    let text = String::from_utf8_lossy(&done.get_output().stdout).into_owned();
    let total = number(&json(&PAPER), "/memory/total_gb");
    assert!(text.contains(&format!("about {total:.2} GB of 40.80 GB: fits")), "{text}");
    for line in ["8 x A800 40 GB: 312 TFLOP/s", "bound by memory", "pages of 64 tokens"] {
        assert!(text.contains(line), "{line} in {text}");
    }
}

#[test]
fn every_supported_gpu_has_its_specification() {
    for (name, memory, tflops) in [
        ("A800", 42.95, 312.0),
        ("A100", 42.95, 312.0),
        ("H100", 85.52, 989.0),
        ("H200", 150.755, 989.0),
        ("L40S", 48.306, 362.0),
        ("4090", 25.757, 165.2),
    ] {
        let report = json(&["--model", "Qwen2.5-0.5B", "--gpu", name]);
        assert!((number(&report, "/device/memory_gb") - memory).abs() < 0.01, "{name}: {report}");
        assert!((number(&report, "/device/tflops_per_s") - tflops).abs() < 0.1, "{name}");
    }
}

#[test]
fn more_gpus_never_need_more_memory_per_rank_and_never_take_longer() {
    let mut before = (f64::MAX, f64::MAX);
    for gpus in ["1", "2", "4", "8", "16"] {
        let all = ["--model", "Qwen2.5-3B", "--gpu", "H100", "--set", "recompute=all"];
        let report = json(&[&all[..], &["--gpus", gpus]].concat());
        let now = (number(&report, "/memory/total_gb"), number(&report, "/time/step_s"));
        assert!(now.0 <= before.0 && now.1 <= before.1, "{gpus}: {now:?} after {before:?}");
        before = now;
    }
}

#[test]
fn a_batch_too_small_for_the_gpus_is_reported() {
    let many = ["--model", "Qwen2.5-3B", "--gpu", "A100", "--gpus", "8", "--nodes", "8"];
    let report = json(&many);
    assert_eq!(
        (&report["rank"]["busy_ranks"], &report["device"]["ranks"]),
        (&32.into(), &64.into())
    );
    let done = plan(&many).success();
    let text = String::from_utf8_lossy(&done.get_output().stdout).into_owned();
    assert!(text.contains("only 32 of 64 ranks have work"), "{text}");
}

#[test]
fn a_slower_network_makes_a_step_longer() {
    let of = |network: &str| {
        let all = ["--model", "Qwen2.5-7B", "--gpu", "A100", "--gpu-memory", "80", "--gpus", "8"];
        let report = json(&[&all[..], &["--nodes", "4", "--network", network]].concat());
        assert_eq!(
            (&report["device"]["ranks"], &report["device"]["nodes"]),
            (&32.into(), &4.into())
        );
        number(&report, "/time/step_s")
    };
    assert!(of("infiniband") < of("ethernet"));
}

#[test]
fn a_run_that_does_not_fit_exits_with_1_and_advises_what_would() {
    let arguments = ["--model", "Qwen2.5-VL-3B", "--gpu", "4090"];
    let done = plan(&arguments).code(1);
    let text = String::from_utf8_lossy(&done.get_output().stdout).into_owned();
    assert!(text.contains("does not fit") && text.contains("`--set use_peft=true`"), "{text}");
    plan(&[&arguments[..], &["--set", "use_peft=true"]].concat()).success();
    let done = plan(&["--model", "Qwen2.5-72B", "--gpus", "8", "--gpu", "H100"]).code(1);
    let text = String::from_utf8_lossy(&done.get_output().stdout).into_owned();
    assert!(text.contains("no settings found that fit: use GPUs with more memory"), "{text}");
}

#[test]
fn settings_come_from_the_file_and_the_command_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("run.toml");
    std::fs::write(
        &file,
        "model = \"Qwen2.5-3B\"\nbeta = 0.0\njudge = \"http\"\n\
                           judge_base_url = \"http://127.0.0.1:1/v1\"\njudge_model = \"j\"\n",
    )
    .unwrap();
    let config = ["--config", file.to_str().unwrap(), "--gpus", "8"];
    let report = json(&config);
    assert_eq!(report["memory"]["reference_gb"], 0.0);
    let report = json(&[&config[..], &["--set", "generation_batch_size=128"]].concat());
    assert_eq!(report["rank"]["prompts"], 2);
    let stderr = refused(&[&config[..], &["--set", "max_promt_length=5"]].concat());
    assert!(stderr.contains("did you mean `max_prompt_length`?"), "{stderr}");
}

#[test]
fn a_folder_is_planned_by_its_own_configuration() {
    let folder = tempfile::tempdir().unwrap();
    tiny_model::write(folder.path());
    let report = json(&["--model", folder.path().to_str().unwrap()]);
    assert!(number(&report, "/model/parameters") < 1e6, "{report}");
}

#[test]
fn the_local_cpu_is_planned_in_f32() {
    let report = json(&["--model", "Qwen2.5-0.5B", "--device", "cpu"]);
    assert!((number(&report, "/memory/weights_gb") - 1.976).abs() < 0.001, "{report}");
    assert!(number(&report, "/time/step_s") > 0.0 && number(&report, "/device/gb_per_s") > 0.0);
}

#[test]
fn ranks_share_the_cpu_the_questions_and_the_moments() {
    let of = |ranks: &str| {
        json(&[
            "--model",
            "Qwen2.5-0.5B",
            "--device",
            "cpu",
            "--ranks",
            ranks,
            "--set",
            "recompute=all",
        ])
    };
    let (one, two) = (of("1"), of("2"));
    let both = |path: &str| (number(&one, path), number(&two, path));
    assert_eq!(both("/rank/prompts"), (4.0, 2.0));
    assert_eq!(both("/device/ranks"), (1.0, 2.0));
    let (whole, half) = both("/memory/moments_gb");
    assert!((half - whole / 2.0).abs() < 0.002, "{half} of {whole}");
    let (all, share) = both("/memory/usable_gb");
    // The available memory changes between calls.
    assert!(share > 0.0 && share < 0.8 * all, "{share} of {all}");
    let phases = |report: &Value| report["time"]["phases"].to_string();
    assert!(!phases(&one).contains("gather") && phases(&two).contains("gather"), "{two}");
}

#[test]
fn wrong_usage_is_reported() {
    for (arguments, reason) in [
        (&["--gpus", "8"][..], "`model` is missing"),
        (
            &["--model", "Qwen/Qwen9-1B"],
            "unknown model `Qwen/Qwen9-1B`, neither a directory nor a GGUF file; available: ",
        ),
        (
            &["--model", "Qwen2.5-3B", "--gpu", "MI300"],
            "unknown GPU `MI300`; available: A800, A100, H100, H200, L40S, 4090",
        ),
        (&["--model", "Qwen2.5-3B", "--gpus", "0"], "`--gpus` must be above 0"),
        (&["--model", "Qwen2.5-3B", "--gpu-memory=-1"], "must be a number above 0, not -1"),
        (
            &["--model", "Qwen2.5-3B", "--questions", "3"],
            "`--questions` must be at least 4, the questions of one step, not 3",
        ),
        (
            &["--model", "Qwen2.5-3B", "--device", "cpu", "--gpu", "A100"],
            "`--gpu` does not apply to `--device cpu`",
        ),
        (&["--model", "Qwen2.5-3B", "--ranks", "2"], "use `--gpus` for the number of GPUs"),
    ] {
        let stderr = refused(arguments);
        assert!(stderr.contains(reason), "{reason} in {stderr}");
    }
}

/// `plan --captioner` for the paper's captioner.
fn captioner(more: &[&str]) -> Value {
    json(&[&["--captioner", "Qwen/Qwen2.5-VL-72B-Instruct"], more].concat())
}

#[test]
fn the_papers_captioner_fits_8_gpus_of_40_gb_4_of_80_gb_and_1_quantized() {
    for (arguments, fits) in [
        (&["--tp", "8", "--gpu-memory", "40"][..], true),
        (&["--tp", "4", "--gpu-memory", "80"], true),
        (&["--gpu-memory", "80", "--quantize", "q4_k"], true),
        (&["--tp", "2", "--gpu-memory", "40"], false),
        (&["--gpu-memory", "80"], false),
    ] {
        assert_eq!(captioner(arguments)["fits"], fits, "{arguments:?}");
    }
    let eight = captioner(&["--tp", "8", "--gpu-memory", "40"]);
    // Computed by hand: an eighth of 72.7 billion parameters in bf16, and one of 8 KV heads of size 128.
    let decoder = number(&eight, "/memory_gb/decoder");
    assert!((decoder - 2.0 * 72.706 / 8.0).abs() < 0.01, "{eight}");
    assert_eq!(number(&eight, "/kv_bytes_per_token"), (2 * 2 * 80 * 128) as f64);
    // With more ranks than KV heads, the heads are replicated.
    let sixteen = captioner(&["--tp", "16", "--gpu-memory", "40"]);
    assert_eq!(number(&sixteen, "/kv_bytes_per_token"), number(&eight, "/kv_bytes_per_token"));
}

#[test]
fn an_unsupported_split_of_a_captioner_is_refused() {
    let stderr = refused(&["--captioner", "Qwen/Qwen2.5-VL-72B-Instruct", "--tp", "3"]);
    assert!(stderr.contains("`num_attention_heads` of 64 over 3 ranks"), "{stderr}");
    let stderr = refused(&["--captioner", "Qwen/Qwen2.5-7B-Instruct"]);
    assert!(
        stderr.contains("unknown vision-language model `Qwen/Qwen2.5-7B-Instruct`"),
        "{stderr}"
    );
    assert!(refused(&["--tp", "2"]).contains("--captioner"));
}
