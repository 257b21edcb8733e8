use embodied_r_grpo::loss::ImportanceSamplingMode;
use embodied_r_policy::Precision;
use embodied_r_rewards::Format;
use embodied_r_rewards::stages::StageLength;
use embodied_r_vision::{PixelLimits, smart_resize};

use super::*;

fn from_file(text: &str) -> anyhow::Result<GrpoSettings> {
    let layer = parse_file(Path::new("run.toml"), text)?;
    Layers { layers: vec![layer], faults: Vec::new() }.resolve(&[])
}

fn message(result: anyhow::Result<GrpoSettings>) -> String {
    let error = result.unwrap_err();
    assert!(error.chain().any(|cause| cause.is::<Usage>()), "{error:#}");
    format!("{error:#}")
}

#[test]
fn without_layers_the_defaults_apply() {
    assert_eq!(from_file("").unwrap(), GrpoSettings::default());
}

#[test]
fn data_is_a_path_or_a_list_and_an_empty_list_is_missing() {
    let of = |text: &str| {
        let layer = parse_file(Path::new("run.toml"), text).unwrap();
        Layers { layers: vec![layer], faults: Vec::new() }.resolve::<GrpoSettings>(&["data"])
    };
    assert_eq!(of("data = \"a.json\"").unwrap().run.data, "a.json".into());
    let two = of("data = [\"a.json\", \"b/*.json\"]").unwrap().run.data;
    assert_eq!(two.paths(), [Path::new("a.json"), Path::new("b/*.json")]);
    let flags = Layers::default().paths("data", &["c.json".into(), "d".into()]).unwrap();
    let flags: GrpoSettings = flags.resolve(&["data"]).unwrap();
    assert_eq!(flags.run.data.paths().len(), 2);
    for none in ["", "data = []"] {
        assert!(message(of(none)).contains("`data` is missing"), "{none}");
    }
    assert!(message(of("data = 3")).contains("a path or a list of paths"));
}

#[test]
fn a_later_layer_overrides_an_earlier_one() {
    let layer = parse_file(Path::new("run.toml"), "seed = 1\nbeta = 0.5\nmodel = \"a\"").unwrap();
    let train: GrpoSettings = Layers { layers: vec![layer], faults: Vec::new() }
        .pairs(&["seed=2".into(), "model=b".into()])
        .flags(&[("model", Some("c".into())), ("data", None)])
        .resolve(&[])
        .unwrap();
    assert_eq!((train.run.seed, train.loss.beta, train.run.model.as_str()), (2, 0.5, "c"));
}

#[test]
fn a_dotted_key_sets_one_entry_of_a_table() {
    let file = "num_train_epochs = 1\n[reward_weights]\naccuracy = 1.0\nformat = 0.5";
    let layer = parse_file(Path::new("run.toml"), file).unwrap();
    let layers = Layers { layers: vec![layer], faults: Vec::new() };
    let train: GrpoSettings =
        layers.pairs(&["reward_weights.format=0.25".into()]).resolve(&[]).unwrap();
    assert_eq!(train.stages.reward_weights["format"], 0.25);
    assert_eq!(train.stages.reward_weights["accuracy"], 1.0);
}

#[test]
fn an_unknown_key_is_reported_with_the_nearest_one_and_its_line() {
    assert_eq!(
        message(from_file("seed = 1\nlearnig_rate = 1e-6")),
        "invalid settings: unknown setting `learnig_rate`; did you mean `learning_rate`? \
         (line 2 of `run.toml`)"
    );
}

#[test]
fn the_errors_of_all_layers_are_reported_together() {
    let layer =
        parse_file(Path::new("run.toml"), "sed = 1\nbeta = \"much\"\nloss_type = \"ppo\"").unwrap();
    let result: anyhow::Result<GrpoSettings> = Layers { layers: vec![layer], faults: Vec::new() }
        .pairs(&["epsilon=2".into(), "seed".into()])
        .resolve(&["model"]);
    let text = message(result);
    for part in [
        "6 invalid settings:",
        "`--set` must be `key=value`, not `seed`",
        "did you mean `seed`? (line 1 of `run.toml`)",
        "`beta`: invalid type",
        "unknown variant `ppo`",
        "`model` is missing",
        "`epsilon`: must be at least 0 and below 1, not 2",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
}

#[test]
fn all_errors_of_stages_are_reported_together() {
    let text = message(from_file(
        "[[stage]]\nepoch = 2\nweights = { acuracy = 1 }\n[[stage]]\nepochs = -1\nweights = { format = 1 }",
    ));
    for part in ["stage[0].epoch", "acuracy", "stage[1].epochs"] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
}

#[test]
fn stages_may_weight_rewards_of_any_layer() {
    let stages = "[[stage]]\nsteps = 2\nweights = { style = 1, format = 1 }";
    let layer = parse_file(Path::new("run.toml"), stages).unwrap();
    let train: GrpoSettings = Layers { layers: vec![layer], faults: Vec::new() }
        .pairs(&["reward=[{name = 'style', command = ['true']}]".into()])
        .resolve(&[])
        .unwrap();
    assert_eq!(train.rewards.reward[0].name, "style");
    let alone = message(from_file(stages));
    assert!(alone.contains("`stage[0].weights.style`: unknown reward"), "{alone}");
}

#[test]
fn faults_of_rewards_and_stages_are_reported_together() {
    let text = message(from_file(
        "[[reward]]\nname = 'style'\n[[stage]]\nsteps = 1\nweights = { style = 1, stile = 1 }",
    ));
    assert_eq!(
        text,
        "2 invalid settings:
  - `reward[0]`: needs a backend; set `command` or `url` (line 1 of `run.toml`)
  - `stage[0].weights.stile`: unknown reward; did you mean `style`? (line 5 of `run.toml`)"
    );
}

#[test]
fn a_fault_names_the_line_of_its_own_stage_or_reward() {
    let text = message(from_file(
        "[[stage]]
epochs = 1
weights = { format = 1 }

[[stage]]
epochs = -1
[stage.weights]
format = 1
acuracy = 1

[[stage]]
weights = { format = 1 }

[[reward]]
name = 'a'
command = ['true']

[[reward]]
name = 'b'",
    ));
    for part in [
        "`stage[1].epochs`: must be more than 0, not -1 (line 6 of `run.toml`)",
        "did you mean `accuracy`? (line 9 of `run.toml`)",
        "(line 11 of `run.toml`)",
        "`reward[1]`: needs a backend; set `command` or `url` (line 18 of `run.toml`)",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
}

#[test]
fn a_faulty_reward_or_stage_causes_no_second_fault() {
    let text = message(from_file(
        "reward_weights = { accuracy = 1, style = 1 }\n[[reward]]\nname = 'style'\ncomand = ['true']",
    ));
    let lines: Vec<&str> = text.lines().skip(1).collect();
    assert_eq!(
        lines,
        [
            "  - `reward[0].comand`: unknown field; did you mean `command`? (line 4 of `run.toml`)",
            "  - `reward[0]`: needs a backend; set `command` or `url` (line 2 of `run.toml`)",
        ]
    );
    let text = message(from_file(
        "[[reward]]\nname = 'style'\ncommand = ['true']\n[[stage]]\nepochs = 0\nweights = { style = 1 }",
    ));
    assert_eq!(
        text,
        "invalid settings: `stage[0].epochs`: must be more than 0, not 0 (line 5 of `run.toml`)"
    );
    let text = message(from_file("num_generations = 'four'\ngeneration_batch_size = 12"));
    assert!(text.starts_with("invalid settings: `num_generations`: invalid type"), "{text}");
}

#[test]
fn a_bad_url_of_a_judge_or_reward_is_a_fault() {
    let judge = "judge = 'http'\njudge_model = 'm'\njudge_base_url = 'http://h/v1, nowhere'";
    let text = message(from_file(judge));
    assert!(text.contains("`judge_base_url`: `nowhere` is not a base URL"), "{text}");
    let reward = "[[reward]]\nname = 'a'\nurl = 'http://:9000'\n[reward_weights]\na = 1";
    let text = message(from_file(reward));
    assert!(text.contains("`reward[0].url`: `http://:9000` is not a base URL"), "{text}");
}

#[test]
fn absurd_counts_are_faults() {
    for (text, key) in [
        ("num_generations = 9000000000000000000", "num_generations"),
        ("generation_batch_size = 9000000000000000000", "generation_batch_size"),
        ("max_completion_length = 9000000000000000000", "max_completion_length"),
        ("max_completion_length = 0", "max_completion_length"),
        ("num_iterations = 9000000000000000000", "num_iterations"),
    ] {
        let found = message(from_file(text));
        assert!(found.contains(&format!("`{key}`: must be at ")), "{found}");
    }
}

#[test]
fn a_file_that_is_no_toml_is_named_with_the_line() {
    let text = message(from_file("seed = 1\nbeta = = 2"));
    assert!(text.contains("cannot parse `run.toml`") && text.contains("line 2"), "{text}");
}

#[test]
fn settings_survive_being_written_and_read() {
    let train = GrpoSettings::default().with(|s| {
        s.stages.reward_weights = [("accuracy".to_owned(), 1.0)].into();
        s.lr.learning_rate = 5e-7;
        s.loss.delta = Some(4.0);
    });
    assert_eq!(from_file(&text(&train).unwrap()).unwrap(), train);
    let staged = GrpoSettings::default().with(|s| s.stages.stage = train_stages());
    assert_eq!(from_file(&text(&staged).unwrap()).unwrap(), staged);
    let styled = from_file(
        "[[reward]]\nname = 'style'\nurl = 'http://h/score'\nbatch_size = 8\n\
         [[stage]]\nsteps = 4\nweights = { style = 1 }\n\
         until = { metric = 'rewards/style/mean', below = 0.5, window = 2 }\n\
         [[stage]]\nepochs = 0.5\nweights = { format = 1 }\nblend_steps = 3",
    )
    .unwrap();
    assert_eq!(from_file(&text(&styled).unwrap()).unwrap(), styled);
}

fn train_stages() -> Vec<embodied_r_rewards::Stage> {
    embodied_r_rewards::RewardSchedule::default().stages().to_vec()
}

#[test]
fn differing_settings_are_named_but_for_free_ones() {
    let change = |seed, save_steps| {
        GrpoSettings::default().with(|s| {
            s.run.seed = seed;
            s.evaluation.save_steps = save_steps;
        })
    };
    let (before, now) = (text(&change(1, 10)).unwrap(), text(&change(2, 20)).unwrap());
    assert_eq!(differences(&before, &now, &["save_steps"]).unwrap(), ["seed"]);
}

#[test]
fn the_run_on_frames_differs_from_the_papers_in_what_the_model_sees_alone() {
    let of = |name: &str| -> toml::Table {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs").join(name);
        std::fs::read_to_string(path).unwrap().parse().unwrap()
    };
    let (paper, mut direct) = (of("embodied-r.toml"), of("direct-vlm.toml"));
    let own = [
        "direct",
        "frames",
        "freeze_aligner",
        "freeze_vision_tower",
        "image_cache_gb",
        "max_pixels",
    ];
    for name in own {
        assert!(direct.remove(name).is_some() && !paper.contains_key(name), "{name}");
    }
    let longest = "max_prompt_length".to_owned();
    direct.insert(longest.clone(), paper[&longest].clone());
    assert_eq!(direct, paper);
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/direct-vlm.toml");
    Layers::default().file(&file).unwrap().resolve::<GrpoSettings>(&[]).unwrap();
}

#[test]
fn the_papers_configuration_is_the_defaults_on_a_gpu_with_its_stages_written_out() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/embodied-r.toml");
    let train: GrpoSettings = Layers::default().file(&file).unwrap().resolve(&[]).unwrap();
    let stage = train_stages();
    let on_gpu: GrpoSettings =
        Layers::default().defaults_on(DeviceName::Cuda).resolve(&[]).unwrap();
    assert_eq!(train, on_gpu.with(|s| s.stages.stage = stage));
}

/// EasyR1's values, which are the paper's.
#[test]
fn robot_r1_has_the_batches_and_clips_of_easyr1() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/robot-r1.toml");
    let train: GrpoSettings = Layers::default().file(&file).unwrap().resolve(&[]).unwrap();
    let rollout = &train.rollout;
    assert_eq!((rollout.questions_per_step(), rollout.num_generations), (512, 5));
    assert_eq!(rollout.questions_per_step() / rollout.num_mini_batches, 128);
    let loss = &train.loss;
    assert_eq!((loss.epsilon, loss.epsilon_high, loss.delta), (0.2, Some(0.3), Some(3.0)));
    assert_eq!((loss.beta, loss.use_bias_correction_kl), (0.01, false));
    assert_eq!(train.rewards.format, Format::Official);
    assert!(train.vision.frozen_parts().is_some_and(|frozen| !frozen.vision_tower));
    assert_eq!(train.stages().unwrap().stages()[0].length, StageLength::Epochs(5.0));
}

#[test]
fn robot_r1_gives_an_image_the_papers_324_tokens() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/robot-r1.toml");
    let train: GrpoSettings = Layers::default().file(&file).unwrap().resolve(&[]).unwrap();
    let limits = PixelLimits {
        min_pixels: train.vision.min_pixels.unwrap(),
        max_pixels: train.vision.max_pixels.unwrap(),
    };
    // Of 14 x 14 pixels a patch, of 2 x 2 patches a token.
    let (width, height) = smart_resize((224, 224), 28, limits).unwrap();
    assert_eq!((width, height, width / 28 * (height / 28)), (504, 504, 324));
}

#[test]
fn a_gpu_computes_in_bf16_unless_a_layer_says_otherwise() {
    let precision = |layers: Layers| layers.resolve::<SftSettings>(&[]).unwrap().run.precision;
    let on = |device| Layers::default().defaults_on(device);
    assert_eq!(precision(on(DeviceName::Cpu)), Precision::F32);
    assert_eq!(precision(on(DeviceName::Cuda)), Precision::Bf16);
    let given = on(DeviceName::Cuda).pairs(&["precision=f32".into()]);
    assert_eq!(precision(given), Precision::F32);
}

#[test]
fn every_recipe_is_a_run_without_fault_in_the_papers_stages() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs");
    for name in ["5-gpus", "one-80gb", "lora-24gb", "cpu"] {
        let file = folder.join(name).with_extension("toml");
        let train: GrpoSettings = Layers::default().file(&file).unwrap().resolve(&[]).unwrap();
        assert_eq!(train.stages.stage, train_stages(), "{name}");
        assert!(
            train.rollout.generation_batch_size.is_multiple_of(train.rollout.num_generations),
            "{name}"
        );
    }
}

#[test]
fn trls_names_of_settings_are_accepted_in_every_layer() {
    let file = "output_dir = \"out\"\nvllm_importance_sampling_correction = false\nbeta = 0.5";
    let layer = parse_file(Path::new("run.toml"), file).unwrap();
    let train: GrpoSettings = Layers { layers: vec![layer], faults: Vec::new() }
        .pairs(&["vllm_importance_sampling_mode=token_truncate".into()])
        .pairs(&["vllm_importance_sampling_cap=2".into(), "model_name_or_path=m".into()])
        .resolve(&["model"])
        .unwrap();
    assert_eq!((train.run.output.as_path(), train.run.model.as_str()), (Path::new("out"), "m"));
    assert!(!train.loss.importance_sampling_correction);
    assert_eq!(train.loss.importance_sampling_mode, ImportanceSamplingMode::TokenTruncate);
    assert_eq!(train.loss.importance_sampling_clip_max, 2.0);
    // What is saved with a run has our names.
    assert!(!text(&train).unwrap().contains("vllm"));
}

#[test]
fn a_flag_overrides_trls_name_in_the_file() {
    let layer = parse_file(Path::new("run.toml"), "output_dir = \"file\"").unwrap();
    let train: GrpoSettings = Layers { layers: vec![layer], faults: Vec::new() }
        .flags(&[("output", Some("flag".into()))])
        .resolve(&[])
        .unwrap();
    assert_eq!(train.run.output, Path::new("flag"));
}

#[test]
fn a_setting_under_two_names_is_refused() {
    let text = message(from_file("output = \"a\"\noutput_dir = \"b\""));
    assert!(text.contains("`output` is given under two names (line 2 of `run.toml`)"), "{text}");
}

#[test]
fn a_setting_that_only_trl_has_is_reported_with_its_replacement() {
    let text = message(from_file("per_device_train_batch_size = 4"));
    assert!(
        text.contains("unknown setting `per_device_train_batch_size`; use `generation_batch_size`")
    );
}

#[test]
fn reward_funcs_replace_the_weights_and_stages_of_a_file() {
    let file = "num_train_epochs = 1\n[[stage]]\nsteps = 2\nweights = { format = 1 }\n";
    for file in [file, "num_train_epochs = 1\n[reward_weights]\nconsistency = 0.5"] {
        let layer = parse_file(Path::new("run.toml"), file).unwrap();
        let train: GrpoSettings = Layers { layers: vec![layer], faults: Vec::new() }
            .reward_funcs(&["accuracy".into(), "format".into()])
            .resolve(&[])
            .unwrap();
        assert_eq!(train.stages.stage, []);
        assert_eq!(
            train.stages.reward_weights,
            BTreeMap::from([("accuracy".to_owned(), 1.0), ("format".to_owned(), 1.0)])
        );
    }
}

#[test]
fn settings_that_a_saved_file_does_not_have_are_no_change() {
    let now = text(&GrpoSettings::default()).unwrap();
    let older = now.replace("truncation_strategy = \"delete\"\n", "");
    assert_ne!(older, now);
    let before = with_defaults::<GrpoSettings>(&older).unwrap();
    assert_eq!(differences(&before, &now, &[]).unwrap(), [""; 0]);
}
