//! The figures on `docs/scaling.md`, and the commands in the recipes' headers, are today's.

use serde_json::Value;

use super::{captioner, json, number, plan};

const PAGE: &str = include_str!("../../../docs/scaling.md");

/// Asserts that the page has these lines; if not, all of them are printed.
fn assert_on_page(lines: &[String]) {
    let missing: Vec<&String> = lines.iter().filter(|line| !PAGE.contains(*line)).collect();
    assert!(
        missing.is_empty(),
        "docs/scaling.md lacks {missing:#?}, of these lines:\n{}",
        lines.join("\n")
    );
}

fn papers_run(more: &[&str]) -> Value {
    let arguments = ["--model", "Qwen/Qwen2.5-VL-3B-Instruct", "--gpu-memory", "40"];
    json(&[&arguments[..], &["--config", "../configs/embodied-r.toml"], more].concat())
}

#[test]
fn the_scaling_page_has_the_memory_of_the_papers_run() {
    let report = papers_run(&["--gpus", "8"]);
    let gb = |part: &str| format!("{:.1}", number(&report, &format!("/memory/{part}_gb")));
    let (kept, layers) = (number(&report, "/fits/kept_layers"), number(&report, "/fits/layers"));
    let mut lines: Vec<String> = [
        ("CUDA context, libraries, buckets", "base"),
        ("weights", "weights"),
        ("reference", "reference"),
        ("master weights, 1/8", "masters"),
        ("moments, 1/8", "moments"),
        ("gradients", "gradients"),
    ]
    .map(|(name, part)| format!("| {name} | {} |", gb(part)))
    .into();
    lines.push(format!(
        "| activations of the update, {kept} of {layers} layers not recomputed | {} |",
        gb("update")
    ));
    if number(&report, "/memory/rollout_pass_gb") > 0.0 {
        lines.push(format!("| rollout's activations, reused | {} |", gb("rollout_pass")));
    }
    lines.push(format!(
        "| total (the rollout's {} GB alternate with gradients and update) | {} |",
        gb("rollout"),
        gb("total")
    ));
    let on = |gpus: &str| number(&papers_run(&["--gpus", gpus]), "/memory/least_gb");
    lines.push(format!(
        "Four GPUs need at least {:.1} GB each; two do not fit ({:.1} GB).",
        on("4"),
        on("2")
    ));
    assert_on_page(&lines);
}

#[test]
fn the_scaling_page_has_the_step_time_of_the_papers_run() {
    let usual = papers_run(&["--gpus", "8", "--prompt", "3072", "--completion", "200"]);
    let longest = papers_run(&["--gpus", "8"]);
    let seconds = |report: &Value, names: &[&str]| -> f64 {
        let phases = report["time"]["phases"].as_array().unwrap().iter();
        let of = phases.filter(|phase| names.contains(&phase["name"].as_str().unwrap()));
        of.map(|phase| phase["seconds"].as_f64().unwrap()).sum()
    };
    let mut lines: Vec<String> = [
        ("prefill", &["prefill"][..], "compute"),
        ("decode", &["decode"], "memory"),
        ("reference", &["reference"], "compute"),
        ("update", &["update"], "compute"),
        ("gather, reduce, optimizer", &["gather", "reduce", "optimizer"], "network, memory"),
    ]
    .map(|(row, names, bound)| {
        let (usual, longest) = (seconds(&usual, names), seconds(&longest, names));
        format!("| {row} | {usual:.2} | {longest:.2} | {bound} |")
    })
    .into();
    let step = |report: &Value, name: &str| number(report, &format!("/time/{name}"));
    for (row, name) in [("step", "step_s"), ("step with whole groups", "whole_groups_step_s")] {
        let (usual, longest) = (step(&usual, name), step(&longest, name));
        lines.push(format!("| {row} | {usual:.1} | {longest:.1} | |"));
    }
    let usual = ["--gpus", "8", "--prompt", "3072", "--completion", "200"];
    let doubled = [&usual[..], &["--set", "generation_batch_size=64"]].concat();
    let doubled = number(&papers_run(&doubled), "/time/step_s");
    lines.push(format!("estimate is {doubled:.1} s for twice the completions"));
    assert_on_page(&lines);
}

#[test]
fn the_scaling_page_has_the_step_time_on_64_gpus() {
    let on = |network: &str| {
        let nodes = ["--gpus", "8", "--nodes", "8", "--network", network];
        let work =
            ["--prompt", "3072", "--completion", "200", "--set", "generation_batch_size=512"];
        papers_run(&[&nodes[..], &work].concat())
    };
    let (infiniband, ethernet) = (on("infiniband"), on("ethernet"));
    let step = |report: &Value| number(report, "/time/step_s");
    let phases = ethernet["time"]["phases"].as_array().unwrap().iter();
    let sent = phases.filter(|phase| phase["bound"] == "network");
    let sent: f64 = sent.map(|phase| phase["seconds"].as_f64().unwrap()).sum();
    assert_on_page(&[
        format!("{:.1} s per step over InfiniBand", step(&infiniband)),
        format!("{:.1} s over Ethernet", step(&ethernet)),
        format!("{sent:.1} s is communication"),
    ]);
}

#[test]
fn the_scaling_page_has_the_memory_of_the_captioner() {
    let reports = [
        &["--tp", "8", "--gpu-memory", "40"][..],
        &["--tp", "4", "--gpu-memory", "80"],
        &["--gpu-memory", "80", "--quantize", "q4_k"],
        &["--gpu-memory", "80", "--quantize", "q8_0"],
    ]
    .map(captioner);
    let row = |name: &str, value: &dyn Fn(&Value) -> String| {
        format!("| {name} | {} |", reports.each_ref().map(value).join(" | "))
    };
    let part = |report: &Value, name: &str| number(report, &format!("/memory_gb/{name}"));
    let gb = |name: &'static str| move |report: &Value| format!("{:.1}", part(report, name));
    let total = |report: &Value| -> f64 {
        let parts = report["memory_gb"].as_object().unwrap().values();
        parts.map(|part| part.as_f64().unwrap()).sum()
    };
    let activations = |report: &Value| {
        total(report)
            - ["context", "decoder", "tower"].map(|name| part(report, name)).iter().sum::<f64>()
    };
    let count = |name: &str| {
        let name = name.to_owned();
        move |report: &Value| report[&name].to_string()
    };
    assert_on_page(&[
        row("context, libraries", &gb("context")),
        row("decoder shard", &gb("decoder")),
        row("vision encoder, replicated", &gb("tower")),
        row("activations of an image and of a 2,048-token step", &|report| {
            format!("{:.1}", activations(report))
        }),
        row("total, of 40.8 or 81.6", &|report| format!("{:.1}", total(report))),
        row("KV cache, kB per token", &|report| {
            format!("{:.0}", number(report, "/kv_bytes_per_token") / 1e3)
        }),
        row("concurrent captions of 3,528 tokens", &count("captions_at_once")),
    ]);
}

/// A row of the table *Which GPUs*: model, training, GPUs as the page writes them, recipe, and the options that name the GPUs.
type GpuRow<'a> = (&'a str, &'a str, &'a str, &'a str, &'a [&'a str]);

#[test]
fn the_scaling_page_has_the_gpus_that_each_model_needs() {
    let rtx_4090 = &["--gpus", "1", "--gpu", "4090"][..];
    let rows: [GpuRow<'_>; 7] = [
        ("3B", "LoRA", "1 × 24 GB (4090)", "lora-24gb", rtx_4090),
        ("3B", "full", "1 × 80 GB", "one-80gb", &["--gpus", "1", "--gpu-memory", "80"]),
        ("3B", "full", "4 × 40 GB", "embodied-r", &["--gpus", "4", "--gpu-memory", "40"]),
        ("3B", "full", "8 × 40 GB", "embodied-r", &["--gpus", "8", "--gpu-memory", "40"]),
        ("7B", "LoRA", "1 × 24 GB (4090)", "lora-24gb", rtx_4090),
        (
            "7B",
            "full",
            "2 × 141 GB (`--gpu H200`)",
            "embodied-r",
            &["--gpus", "2", "--gpu", "H200"],
        ),
        ("7B", "full", "8 × 80 GB", "embodied-r", &["--gpus", "8", "--gpu-memory", "80"]),
    ];
    let report = |size: &str, recipe: &str, gpus: &[&str]| {
        let config = format!("../configs/{recipe}.toml");
        let model = format!("Qwen/Qwen2.5-VL-{size}-Instruct");
        let work =
            ["--config", &config, "--model", &model, "--prompt", "3072", "--completion", "200"];
        json(&[&work[..], gpus].concat())
    };
    let mut lines: Vec<String> = Vec::new();
    for (size, training, gpus, recipe, options) in rows {
        let report = report(size, recipe, options);
        assert_eq!(report["memory"]["fits"], true, "{report}");
        let of = |path: &str| number(&report, path);
        let (total, usable) = (of("/memory/total_gb"), of("/memory/usable_gb"));
        lines.push(format!(
            "| {size}, {training} | {gpus} | `{recipe}.toml` | {total:.1} of {usable:.1} | {:.1} |",
            of("/time/step_s")
        ));
    }
    let four = report("7B", "embodied-r", &["--gpus", "4", "--gpu-memory", "80"]);
    assert_eq!(four["memory"]["fits"], false, "{four}");
    lines.push(format!("four GPUs of 80 GB ({:.1} GB)", number(&four, "/memory/total_gb")));
    assert_on_page(&lines);
}

#[test]
fn both_pages_have_the_hours_of_the_papers_run() {
    let recipe = std::fs::read_to_string("../docs/guide/recipe.md").unwrap();
    let recipe = recipe.replace('\n', " ");
    let questions = ["--gpus", "8", "--questions", "3944"];
    let usual = ["--prompt", "3072", "--completion", "200"];
    let hours = |more: &[&str]| number(&papers_run(&[&questions[..], more].concat()), "/run/hours");
    let (usual, longest) = (hours(&usual), hours(&[]));
    let report = papers_run(&questions);
    let steps = number(&report, "/run/steps");
    assert_eq!(steps, 11_832.0);
    assert_on_page(&[format!(
        "11,832 steps take {usual:.1} hours at 3,072 + 200 tokens, and {longest:.1} hours at 6,144 + 2,048."
    )]);
    let of = |path: &str| number(&report, path);
    let (total, usable) = (of("/memory/total_gb"), of("/memory/usable_gb"));
    for text in [
        format!("11,832 steps, in {total:.1} of {usable:.1} GB"),
        format!(
            "{usual:.1} hours at 3,072 prompt and 200 completion tokens, and {longest:.1} hours"
        ),
    ] {
        assert!(recipe.contains(&text), "docs/guide/recipe.md lacks: {text}");
    }
}

#[test]
fn the_recipe_has_the_plan_of_the_7b_model_on_four_gpus() {
    let recipe = std::fs::read_to_string("../docs/guide/recipe.md").unwrap();
    let report = |gpus: &str, gigabytes: &str, more: &[&str]| {
        let model =
            ["--config", "../configs/direct-vlm.toml", "--model", "Qwen/Qwen2.5-VL-7B-Instruct"];
        let gpus = ["--gpus", gpus, "--gpu-memory", gigabytes];
        let work = ["--prompt", "200", "--completion", "200", "--questions", "3944"];
        json(&[&model[..], &gpus, &work, more].concat())
    };
    let mut lines = Vec::new();
    let full = report("4", "80", &[]);
    assert_eq!(
        (&full["memory"]["fits"], &full["time"]["lengths"]["prompt"]),
        (&false.into(), &2136.into())
    );
    lines.push(format!("| full fine-tuning | {:.1} |", number(&full, "/memory/total_gb")));
    for gigabytes in ["40", "80"] {
        let adapter = report("4", gigabytes, &["--set", "use_peft=true"]);
        let of = |path: &str| number(&adapter, path);
        lines.push(format!(
            "| LoRA, {gigabytes} GB | {:.1} of {:.1} | {:.1} s per step, {:.1} hours |",
            of("/memory/total_gb"),
            of("/memory/usable_gb"),
            of("/time/step_s"),
            of("/run/hours")
        ));
    }
    assert_eq!(report("16", "80", &[])["memory"]["fits"], true);
    for line in lines {
        assert!(recipe.contains(&line), "docs/guide/recipe.md lacks: {line}");
    }
}

/// The memory that the recipe's header gives.
#[test]
fn robot_r1_takes_the_memory_that_its_header_says() {
    let recipe = "../configs/robot-r1.toml";
    let header = std::fs::read_to_string(recipe).unwrap();
    let model =
        ["--config", recipe, "--model", "Qwen/Qwen2.5-VL-7B-Instruct", "--gpu-memory", "80"];
    let image = ["--images", "1", "--image-pixels", "50176"];
    let of = |gpus: &str, more: &[&str]| {
        let report = json(&[&model[..], &image, &["--gpus", gpus], more].concat());
        (number(&report, "/memory/total_gb"), report["memory"]["fits"] == true)
    };
    let adapter = of("4", &["--set", "use_peft=true"]);
    assert_eq!(
        [of("4", &[]).1, of("8", &[]).1, of("16", &[]).1, adapter.1],
        [false, false, true, true]
    );
    let [four, eight, sixteen] = ["4", "8", "16"].map(|gpus| of(gpus, &[]).0.ceil());
    let adapter = adapter.0.ceil();
    let text = format!(
        "{four} GB on each of four GPUs, {eight} GB of eight, {sixteen} GB of sixteen, and an adapter {adapter} GB of four"
    );
    assert!(header.contains(&text), "configs/robot-r1.toml lacks: {text}");
    let without_images = json(&[&model[..], &["--gpus", "4"]].concat());
    assert!(number(&without_images, "/memory/total_gb") > 100.0, "{without_images}");
}

/// The values of an option among `words`.
fn values<'a>(words: &[&'a str], option: &str) -> Vec<&'a str> {
    let next = words.iter().zip(words.iter().skip(1));
    next.filter(|(word, _)| **word == option).map(|(_, value)| *value).collect()
}

#[test]
fn the_training_command_of_the_robot_page_fits_four_gpus_of_80_gb() {
    let page = std::fs::read_to_string("../docs/robot-r1.md").unwrap().replace("\\\n", " ");
    let command = page.lines().find(|line| line.starts_with("embodied-r train")).unwrap();
    let words: Vec<&str> = command.split_whitespace().collect();
    assert_eq!(values(&words, "--gpus"), ["4"]);
    let [output] = values(&words, "--output")[..] else { panic!("{command}") };
    let config = format!("../{}", values(&words, "--config")[0]);
    let model = values(&words, "--model")[0];
    let mut arguments = vec!["--config", &config, "--model", model, "--gpus", "4"];
    arguments.extend(["--gpu-memory", "80", "--images", "1", "--image-pixels", "50176"]);
    for set in values(&words, "--set") {
        arguments.extend(["--set", set]);
    }
    let report = json(&arguments);
    assert_eq!(report["memory"]["fits"], true, "{report}");
    // What the next commands evaluate is what this one writes.
    let trained = page.matches(&format!("--model {output}/final")).count();
    assert_eq!(trained, 2, "{output}");
}

/// The GPUs that each recipe is for.
const RECIPES: [(&str, &str); 7] = [
    ("embodied-r.toml", "40"),
    ("5-gpus.toml", "40"),
    ("one-80gb.toml", "80"),
    ("lora-24gb.toml", "24"),
    ("qwen3-vl-8b.toml", "80"),
    ("qwen3-vl-2b.toml", "80"),
    ("embodied-r1.5.toml", "80"),
];

#[test]
fn every_gpu_recipe_names_its_gpus_and_fits_them() {
    for (recipe, gigabytes) in RECIPES {
        let path = format!("../configs/{recipe}");
        let text = std::fs::read_to_string(&path).unwrap();
        let header: Vec<&str> = text
            .lines()
            .take_while(|line| line.starts_with('#'))
            .flat_map(str::split_whitespace)
            .collect();
        let value = |option: &str| {
            let at = header.iter().position(|word| *word == option)?;
            header.get(at + 1).copied()
        };
        let gpus = value("--gpus").unwrap_or("1");
        assert!(gpus != "1" || value("--device") == Some("cuda"), "{recipe} runs on a CPU");
        let model = value("--model").unwrap();
        let arguments =
            ["--config", &path, "--model", model, "--gpus", gpus, "--gpu-memory", gigabytes];
        let report = json(&arguments);
        plan(&arguments).success();
        assert_eq!(&report["rank"]["busy_ranks"], &report["device"]["ranks"], "{recipe}: {report}");
    }
}
