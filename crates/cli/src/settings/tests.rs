use super::*;

fn from_file(text: &str) -> anyhow::Result<Train> {
    let layer = parse_file(Path::new("run.toml"), text)?;
    Layers { layers: vec![layer], faults: Vec::new() }.resolve(&[])
}

fn message(result: anyhow::Result<Train>) -> String {
    let error = result.unwrap_err();
    assert!(error.chain().any(|cause| cause.is::<Usage>()), "{error:#}");
    format!("{error:#}")
}

#[test]
fn without_any_layer_there_are_the_defaults() {
    assert_eq!(from_file("").unwrap(), Train::default());
}

#[test]
fn a_later_layer_wins_over_an_earlier_one() {
    let layer = parse_file(Path::new("run.toml"), "seed = 1\nbeta = 0.5\nmodel = \"a\"").unwrap();
    let train: Train = Layers { layers: vec![layer], faults: Vec::new() }
        .pairs(&["seed=2".into(), "model=b".into()])
        .flags(&[("model", Some("c".into())), ("data", None)])
        .resolve(&[])
        .unwrap();
    assert_eq!((train.seed, train.beta, train.model.as_str()), (2, 0.5, "c"));
}

#[test]
fn a_pair_reaches_into_a_table_and_leaves_its_other_entries() {
    let file = "num_train_epochs = 1\n[reward_weights]\naccuracy = 1.0\nformat = 0.5";
    let layer = parse_file(Path::new("run.toml"), file).unwrap();
    let layers = Layers { layers: vec![layer], faults: Vec::new() };
    let train: Train = layers.pairs(&["reward_weights.format=0.25".into()]).resolve(&[]).unwrap();
    assert_eq!(train.reward_weights["format"], 0.25);
    assert_eq!(train.reward_weights["accuracy"], 1.0);
}

#[test]
fn a_misspelt_name_is_answered_with_the_nearest_and_its_line() {
    assert_eq!(
        message(from_file("seed = 1\nlearnig_rate = 1e-6")),
        "wrong settings: there is no setting `learnig_rate`; did you mean `learning_rate`? \
         (line 2 of `run.toml`)"
    );
}

#[test]
fn all_faults_of_all_layers_are_told_at_once() {
    let layer =
        parse_file(Path::new("run.toml"), "sed = 1\nbeta = \"much\"\nloss_type = \"ppo\"").unwrap();
    let result: anyhow::Result<Train> = Layers { layers: vec![layer], faults: Vec::new() }
        .pairs(&["epsilon=2".into(), "seed".into()])
        .resolve(&["model"]);
    let text = message(result);
    for part in [
        "6 wrong settings:",
        "`--set seed` is not `key=value`",
        "did you mean `seed`? (line 1 of `run.toml`)",
        "`beta`: invalid type",
        "unknown variant `ppo`",
        "`model` is missing",
        "`epsilon` is 2, must be at least 0 and below 1",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
}

#[test]
fn all_faults_of_stages_are_told_at_once() {
    let text = message(from_file(
        "[[stage]]\nepoch = 2\nweights = { acuracy = 1 }\n[[stage]]\nepochs = -1\nweights = { format = 1 }",
    ));
    for part in ["stage[0].epoch", "acuracy", "stage[1].epochs"] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
}

#[test]
fn stages_may_weigh_the_rewards_of_any_layer() {
    let stages = "[[stage]]\nsteps = 2\nweights = { style = 1, format = 1 }";
    let layer = parse_file(Path::new("run.toml"), stages).unwrap();
    let train: Train = Layers { layers: vec![layer], faults: Vec::new() }
        .pairs(&["reward=[{name = 'style', command = ['true']}]".into()])
        .resolve(&[])
        .unwrap();
    assert_eq!(train.reward[0].name, "style");
    let alone = message(from_file(stages));
    assert!(alone.contains("`stage[0].weights.style`: there is no such reward"), "{alone}");
}

#[test]
fn faults_of_rewards_and_stages_are_told_together() {
    let text = message(from_file(
        "[[reward]]\nname = 'style'\n[[stage]]\nsteps = 1\nweights = { style = 1, stile = 1 }",
    ));
    assert_eq!(
        text,
        "2 wrong settings:
  - `reward[0]`: needs `command` or `url`, who scores (line 1 of `run.toml`)
  - `stage[0].weights.stile`: there is no such reward; did you mean `style`? (line 3 of `run.toml`)"
    );
}

#[test]
fn a_file_that_is_no_toml_is_named_with_the_line() {
    let text = message(from_file("seed = 1\nbeta = = 2"));
    assert!(text.contains("`run.toml` is not TOML") && text.contains("line 2"), "{text}");
}

#[test]
fn settings_survive_being_written_and_read() {
    let train = Train {
        reward_weights: [("accuracy".to_owned(), 1.0)].into(),
        learning_rate: 5e-7,
        delta: Some(4.0),
        ..Train::default()
    };
    assert_eq!(from_file(&text(&train).unwrap()).unwrap(), train);
    let staged = Train { stage: train_stages(), ..Train::default() };
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
    embodied_r_rewards::Schedule::default().stages().to_vec()
}

#[test]
fn differing_settings_are_named_but_for_free_ones() {
    let change = |seed, save_steps| Train { seed, save_steps, ..Train::default() };
    let (before, now) = (text(&change(1, 10)).unwrap(), text(&change(2, 20)).unwrap());
    assert_eq!(differences(&before, &now, &["save_steps"]).unwrap(), ["seed"]);
}

#[test]
fn the_papers_configuration_is_the_defaults_with_its_stages_written_out() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/embodied-r.toml");
    let train: Train = Layers::default().file(&file).unwrap().resolve(&[]).unwrap();
    assert_eq!(train, Train { stage: train_stages(), ..Train::default() });
}

#[test]
fn every_recipe_is_a_run_without_fault_in_the_papers_stages() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs");
    for name in ["5-gpus", "one-80gb", "lora-24gb", "cpu"] {
        let file = folder.join(name).with_extension("toml");
        let train: Train = Layers::default().file(&file).unwrap().resolve(&[]).unwrap();
        assert_eq!(train.stage, train_stages(), "{name}");
        assert!(train.generation_batch_size.is_multiple_of(train.num_generations), "{name}");
    }
}
