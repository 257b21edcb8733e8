//! The settings reference, `docs/settings.md`: names, defaults and meanings from the settings' own code.

use std::fmt::Write as _;

use embodied_r_data::system_prompt::{Given, SystemPromptPreset};
use embodied_r_grpo::settings::{GrpoSettings, SftSettings, names};
use serde::Serialize;
use toml::{Table, Value};

/// How to regenerate the file.
const UPDATE: &str = "UPDATE_DOCS=1 cargo test -p embodied-r-cli settings_reference";

/// A group of settings: its source and its name there.
type Group = (&'static str, &'static str);

macro_rules! group {
    ($file:literal, $name:literal) => {
        (include_str!(concat!("../../../grpo/src/settings/", $file, ".rs")), $name)
    };
}

const RUN: Group = group!("run", "RunSettings");
const PROMPT: Group = group!("prompt", "PromptSettings");
const LR: Group = group!("lr", "LrSettings");
const OPTIMIZER: Group = group!("optimizer", "OptimizerSettings");
const TRAINABLE: Group = group!("trainable", "TrainableSettings");
const VISION: Group = group!("vision", "VisionSettings");
const MEDIA: Group = group!("media", "MediaSettings");

/// The tables of `train`, each with its heading and groups.
const GRPO: &[(&str, &[Group])] = &[
    ("Run", &[RUN]),
    ("Rollout", &[PROMPT, group!("rollout", "RolloutSettings")]),
    (
        "Loss and advantages",
        &[
            group!("loss", "LossSettings"),
            group!("advantages", "AdvantageSettings"),
            group!("reference", "ReferenceSettings"),
        ],
    ),
    ("Optimizer", &[LR, OPTIMIZER]),
    ("LoRA and frozen parameters", &[TRAINABLE]),
    ("Vision-language models", &[VISION]),
    ("Images and videos", &[MEDIA]),
    (
        "Length, stages and rewards",
        &[group!("stages", "StageSettings"), group!("rewards", "RewardSettings")],
    ),
    ("Judge of the consistency reward", &[group!("judge", "JudgeSettings")]),
    ("Checkpoints and evaluation", &[group!("evaluation", "EvaluationSettings")]),
];

/// The groups of `sft`.
const SFT: &[Group] = &[
    RUN,
    PROMPT,
    group!("supervised", "SupervisedSettings"),
    LR,
    OPTIMIZER,
    TRAINABLE,
    VISION,
    MEDIA,
];

/// What TRL 1.16 (`GRPOConfig`, `ModelConfig`) or ms-swift has, where the name or the default is not ours.
const PEERS: &[(&str, &str)] = &[
    ("model", "TRL's `model_name_or_path`, accepted"),
    ("data", "replaces TRL's `dataset_name`: a file that `perceive` writes"),
    ("output", "TRL's `output_dir`, accepted"),
    ("eval_data", "own: a file; TRL takes a split of the dataset"),
    ("system_prompt", "ms-swift's `system`; in TRL it is part of the dataset"),
    ("system_prompt_preset", "own"),
    ("chat_template_kwargs", "same"),
    ("generation_batch_size", "TRL derives it from batch size and accumulation; 32 is the paper's"),
    ("max_prompt_length", "ms-swift's `max_length`; TRL dropped it; 6144 is the paper's"),
    ("truncation_strategy", "ms-swift's; TRL's `SFTConfig` truncates"),
    ("max_completion_length", "TRL 512; 2048 is the paper's"),
    ("min_p", "TRL unset, which is 0"),
    ("dynamic_sample", "ms-swift's"),
    ("max_resample_times", "ms-swift's"),
    ("filter_groups", "verl's; TRL and ms-swift keep them, with an advantage of 0"),
    ("loss_type", "TRL `dapo`; `grpo` is the paper's"),
    ("beta", "TRL 0; 0.001 is the paper's"),
    ("use_bias_correction_kl", "TRL `true`; neither ms-swift nor the paper has the correction"),
    ("ref_model_sync_steps", "same; TRL counts optimizer steps"),
    (
        "num_mini_batches",
        "own; verl's `ppo_mini_batch_size` and EasyR1's `global_batch_size` are the questions of one",
    ),
    ("delta", "same; verl's `clip_ratio_c` and EasyR1's `clip_ratio_dual`"),
    (
        "advantage_estimator",
        "ms-swift's; TRL's `multi_objective_aggregation` covers `gdpo`; verl's `adv_estimator`",
    ),
    ("learning_rate", "TRL 1e-6; 5e-7 is the paper's"),
    ("lr_scheduler_type", "TRL `linear`; `cosine` is ms-swift's default"),
    ("warmup_ratio", "ms-swift's; TRL has only `warmup_steps`"),
    ("warmup_steps", "TRL also takes a fraction, as a ratio"),
    ("optim", "TRL `adamw_torch_fused`, the same update as `adamw`; `muon` is our own"),
    ("adam_beta2", "TRL 0.999; 0.95 is ms-swift's default"),
    ("weight_decay", "TRL 0; 0.1 is ms-swift's default"),
    (
        "max_tokens_per_batch",
        "own: micro-batches are token budgets, not `per_device_train_batch_size`",
    ),
    ("recompute", "own: TRL's `gradient_checkpointing` is `all` or `none`; `auto` fits the memory"),
    ("precision", "own: TRL's `bf16 = true` is `bf16`"),
    (
        "rollout_precision",
        "own: the rollout runs in the trainer's engine; in TRL it is vLLM's `dtype`",
    ),
    (
        "importance_sampling_correction",
        "TRL's `vllm_importance_sampling_correction`, accepted, although vLLM is not used",
    ),
    ("importance_sampling_mode", "TRL's `vllm_importance_sampling_mode`, accepted"),
    ("importance_sampling_clip_min", "TRL's `vllm_importance_sampling_clip_min`, accepted"),
    ("importance_sampling_clip_max", "TRL's `vllm_importance_sampling_clip_max`, accepted"),
    ("lora_r", "same; ms-swift's `lora_rank` is accepted"),
    ("lora_target_modules", "TRL chooses by model; ms-swift's `target_modules` is accepted"),
    ("freeze_parameters_regex", "ms-swift's"),
    ("direct", "own: neither trains on captions"),
    ("columns", "ms-swift's `columns`, there as JSON"),
    ("image_dir", "EasyR1's"),
    ("video_dir", "own"),
    ("skip_bad_records", "ms-swift's `strict = false`"),
    (
        "frames",
        "ms-swift's environment variables `NFRAMES`, `FPS` and `FPS_MAX_FRAMES`; TRL has no videos",
    ),
    ("frame_use", "own"),
    ("freeze_vision_tower", "ms-swift's `freeze_vit`, accepted; TRL trains the tower"),
    ("freeze_aligner", "ms-swift's"),
    ("vision_learning_rate", "ms-swift's `vit_lr`, accepted, and `aligner_lr`"),
    ("image_cache_gb", "own: neither keeps embeddings"),
    ("max_pixels", "ms-swift's environment variable `MAX_PIXELS`"),
    ("min_pixels", "ms-swift's environment variable `MIN_PIXELS`"),
    ("video_pixels", "`transformers`' `cap_pixels_per_frame`, which is `frame`"),
    ("num_train_epochs", "TRL 3; stages have their own lengths"),
    ("max_steps", "TRL -1, which means unset; TRL counts optimizer steps"),
    ("reward_weights", "TRL takes a list in the order of `reward_funcs`; ours are by name"),
    ("stage", "own: neither can schedule reward weights"),
    ("reward", "own: TRL takes Python functions (`reward_funcs`)"),
    ("format", "own: ms-swift's `format` reward is `official`, as is EasyR1's `r1v`, accepted"),
    ("point_reward", "own: Embodied-R1.5's are in its reward function"),
    ("trace_reward", "own"),
    ("trace_3d_reward", "own"),
    ("allow_unscored", "own: the others' reward functions are the user's"),
    ("soft_max_length", "ms-swift's"),
    ("soft_cache_length", "ms-swift's"),
    ("repetition_n_grams", "ms-swift's"),
    ("repetition_max_penalty", "ms-swift's"),
    ("cosine_min_len_value_wrong", "ms-swift's"),
    ("cosine_max_len_value_wrong", "ms-swift's"),
    ("cosine_min_len_value_correct", "ms-swift's"),
    ("cosine_max_len_value_correct", "ms-swift's"),
    ("cosine_max_len", "ms-swift's"),
    (
        "judge",
        "own: neither has a built-in consistency judge; the official code's samples at temperature 0.1, ours is greedy",
    ),
    ("judge_base_url", "own"),
    ("judge_model", "own"),
    ("save_steps", "TRL 500 optimizer steps; 100 is the official scripts'"),
    ("save_total_limit", "TRL keeps all"),
    ("keep_every_epochs", "own: milestones beside the latest checkpoints"),
    ("eval_steps", "TRL evaluates only with `eval_strategy`, and counts optimizer steps"),
    ("metric_for_best_model", "TRL `loss`, with `load_best_model_at_end`"),
    ("max_skipped_steps", "own: TRL applies non-finite steps"),
    ("log_unweighted_rewards", "own: TRL always computes all of its `reward_funcs`"),
    ("log_completions", "TRL `false`; files here are small"),
    ("report_to", "TRL `none`; other trackers are not supported"),
    ("train_batch_size", "TRL's `per_device_train_batch_size` times accumulation and ranks"),
    ("max_length", "TRL 1024, longer examples are truncated"),
];

/// `PEERS` of `sft`, where its setting differs from that of `train` (TRL's `SFTConfig`).
const SFT_PEERS: &[(&str, &str)] = &[
    ("data", "replaces TRL's `dataset_name`: a file of conversations"),
    ("num_train_epochs", "same"),
    ("max_steps", "TRL -1, which means unset; there it replaces `num_train_epochs`"),
    ("learning_rate", "TRL 2e-5; 1e-5 is ms-swift's default"),
    ("save_steps", "TRL 500"),
];

/// One setting, as its struct documents it.
struct Field {
    name: String,
    meaning: String,
    /// What its documentation calls the default.
    default: String,
}

/// The documented fields of a group.
fn fields((source, name): Group) -> Vec<Field> {
    let head = format!("pub struct {name} {{");
    let body = source.lines().skip_while(|line| *line != head).skip(1);
    let (mut fields, mut meaning) = (Vec::new(), Vec::new());
    for line in body.take_while(|line| *line != "}").map(str::trim) {
        if let Some(text) = line.strip_prefix("///") {
            meaning.push(text.trim());
        } else if let Some((name, _)) = line.strip_prefix("pub ").and_then(|it| it.split_once(':'))
        {
            let text = std::mem::take(&mut meaning).join(" ");
            // The default has a column of its own.
            let (meaning, default) = text.split_once(" Default: ").unwrap_or((&text, ""));
            let default = default.trim_end_matches('.').to_owned();
            fields.push(Field { name: name.to_owned(), meaning: meaning.to_owned(), default });
        }
    }
    fields
}

fn defaults(settings: &impl Serialize) -> Table {
    Table::try_from(settings).expect("settings are a table")
}

/// The default in `table`; what the documentation says of one that is unset.
fn default_of(table: &Table, field: &Field) -> String {
    let value = match table.get(&field.name) {
        None if matches!(field.default.as_str(), "" | "none") => "–".to_owned(),
        None => field.default.clone(),
        Some(Value::String(text)) if text.is_empty() => "required".to_owned(),
        Some(Value::Array(paths)) if paths.is_empty() && field.name == "data" => {
            "required".to_owned()
        }
        Some(Value::String(text)) => format!("`\"{text}\"`"),
        Some(Value::Float(number)) if number.abs() < 1e-3 && *number != 0.0 => {
            format!("`{number:e}`")
        }
        Some(value) => format!("`{value}`"),
    };
    // "`f32`; on a GPU `bf16`": what the value alone does not say.
    match field.default.split_once("; ") {
        Some((_, more)) if table.contains_key(&field.name) => format!("{value}; {more}"),
        _ => value,
    }
}

fn rows(groups: &[Group], table: &Table, peers: &[(&str, &str)], text: &mut String) {
    for field in groups.iter().flat_map(|group| fields(*group)) {
        let Field { name, meaning, .. } = &field;
        let peer = peers.iter().find(|(of, _)| of == name).map_or("same", |(_, peer)| peer);
        let default = default_of(table, &field);
        let _ = writeln!(text, "| `{name}` | {default} | {meaning} | {peer} |");
    }
}

const HEAD: &str = "| setting | default | meaning | in TRL or ms-swift |\n|---|---|---|---|\n";

/// The whole page.
fn page() -> String {
    let mut text = format!(
        "# Settings\n\n\
         Settings of `train` and `sft` come from defaults, then `--config FILE` (TOML), then `--set key=value`, then flags. Names are TRL's where \
         it has the setting, else ms-swift's. The last column says what TRL 1.16 or ms-swift calls it and where defaults differ; *same* \
         is TRL's name and default, *own* is in neither. A run saves what its settings resolve to in `settings.toml`.\n\n\
         Lengths are in tokens, intervals in steps, unless a setting says otherwise. A step of `train` samples one batch of completions and \
         has `num_iterations` × `num_mini_batches` optimizer steps. `–` means unset. Generated from the code; to \
         update it, run `{UPDATE}`.\n\n## train\n"
    );
    let table = defaults(&GrpoSettings::default());
    for (heading, groups) in GRPO {
        let _ = write!(text, "\n### {heading}\n\n{HEAD}");
        rows(groups, &table, PEERS, &mut text);
    }
    let _ = write!(text, "\n## sft\n\n{HEAD}");
    let peers = [SFT_PEERS, PEERS].concat();
    rows(SFT, &defaults(&SftSettings::default()), &peers, &mut text);
    text.push_str(&system_prompts());
    text
}

/// The texts of the presets.
fn system_prompts() -> String {
    let mut text = String::from(
        "\n## System prompts\n\n\
         The texts of `system_prompt_preset`, here and as `--system-prompt-preset` of `infer`, `eval`, `filter`, `ask` and `chat`. `auto` takes \
         `frames` for videos and `images` for images that the model sees, `bearings` and `captions` for questions with captions, \
         otherwise `text`; `none` is no system message. A system message of a question replaces it. \
         The bundled base models are pretrained with the text of `bearings`, whose wording therefore stays.\n\n\
         | preset | text |\n|---|---|\n",
    );
    for preset in SystemPromptPreset::ALL {
        if !matches!(preset, SystemPromptPreset::Auto | SystemPromptPreset::None) {
            let name = serde_json::to_value(preset).expect("a preset has a name");
            let name = name.as_str().unwrap_or_default();
            // A cell of a table is one line.
            let prompt = preset.text(Given::Text).replace('\n', "\\n");
            let _ = writeln!(text, "| `{name}` | `{prompt}` |");
        }
    }
    text
}

#[test]
fn settings_reference_is_current() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/settings.md");
    let current = page();
    if std::env::var_os("UPDATE_DOCS").is_some_and(|value| !value.is_empty()) {
        std::fs::write(file, &current).unwrap();
    }
    let written = std::fs::read_to_string(file).unwrap_or_default();
    assert!(written == current, "`docs/settings.md` is out of date; run `{UPDATE}`");
}

#[test]
fn every_setting_is_documented_and_every_peer_is_of_a_setting() {
    let grpo: Vec<Group> = GRPO.iter().flat_map(|(_, groups)| *groups).copied().collect();
    let (of_grpo, of_sft) = (names::<GrpoSettings>(), names::<SftSettings>());
    for (groups, known) in [(grpo.as_slice(), of_grpo), (SFT, of_sft)] {
        let documented: Vec<Field> = groups.iter().flat_map(|group| fields(*group)).collect();
        let names: Vec<&str> = documented.iter().map(|field| field.name.as_str()).collect();
        assert_eq!(names, known);
        for Field { name, meaning, .. } in &documented {
            assert!(meaning.len() > 5, "`{name}` has no documentation");
        }
    }
    let known = [of_grpo, of_sft].concat();
    for (name, _) in PEERS.iter().chain(SFT_PEERS) {
        assert!(known.contains(name), "`{name}` is not a setting");
    }
}
