//! Models with NaN or infinite weights: `train` and `sft` neither start from one nor write one, `infer` and `serve` say
//! that it cannot answer.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use assert_cmd::assert::OutputAssertExt as _;
use embodied_r_tests::small_run::train;
use embodied_r_tests::{binary, events, small_run, stderr_of, tiny_model};
use serde_json::{Value, json};

use crate::serve::client::{Server, completion};

/// The inputs of a run with a checkpoint after each step.
fn inputs(dir: &Path) {
    small_run::write(
        dir,
        "warmup_ratio = 0.0
save_steps = 1
save_total_limit = 1
reward_weights = { accuracy = 1.0, lottery = 1.0 }
[[reward]]
name = 'lottery'
command = ['sh', '-c', 'echo \"{\\\"rewards\\\": [0, 1, 2, 3, 4, 5, 6, 7]}\"']
",
    );
}

fn sft(dir: &Path) -> Command {
    let mut command = small_run::sft(dir);
    command.args([
        "--set",
        "save_steps=1",
        "--set",
        "num_train_epochs=1",
        "--set",
        "warmup_ratio=0",
    ]);
    command
}

/// The names of a run's models.
fn models(run: &Path) -> BTreeSet<String> {
    let names = fs::read_dir(run).unwrap().map(|entry| entry.unwrap().file_name());
    let names = names.map(|name| name.into_string().unwrap());
    names.filter(|name| name.starts_with("checkpoint") || name == "final").collect()
}

#[test]
fn a_diverging_run_keeps_its_last_finite_checkpoint_and_has_no_final_model() {
    for (command, name) in [(train as fn(&Path) -> Command, "train"), (sft, "sft")] {
        let dir = tempfile::tempdir().unwrap();
        inputs(dir.path());
        let run = dir.path().join("run");
        // As after a kill at step 1.
        let small = ["--set", "learning_rate=1e-6", "--set", "save_total_limit=9"];
        command(dir.path()).args(small).assert().code(0);
        for name in ["checkpoint-2", "checkpoint-3", "checkpoint-4", "final"] {
            fs::remove_dir_all(run.join(name)).unwrap();
        }
        let weights = || fs::read(run.join("checkpoint-1/model.safetensors")).unwrap();
        let before = weights();
        let large = ["--resume", "--set", "learning_rate=1e300", "--set", "save_total_limit=1"];
        let stderr = stderr_of(command(dir.path()).args(large), 1);
        assert!(
            stderr.contains("error: the model's weights are not finite: `model.")
                && stderr.contains("nothing was saved; last good checkpoint `run/checkpoint-1`"),
            "{name}: {stderr}"
        );
        assert!(stderr.contains("hint: lower `learning_rate`"), "{name}: {stderr}");
        assert_eq!(models(&run), ["checkpoint-1".to_owned()].into(), "{name}");
        assert!(weights() == before, "{name}");
        let reported = events(&run, "checkpoint");
        assert_eq!(reported.last().unwrap()["step"], 1, "{name}: step 2 was not saved");
        command(dir.path()).args(["--resume"]).args(small).assert().code(0);
    }
}

#[test]
fn no_run_starts_from_a_model_with_a_nan_weight() {
    let dir = tempfile::tempdir().unwrap();
    inputs(dir.path());
    let tensor = "model.layers.1.mlp.up_proj.weight";
    tiny_model::overwrite(&dir.path().join("model"), tensor, 100..101, f32::NAN);
    let lora = ["--set", "use_peft=true"];
    for (command, arguments) in
        [(train as fn(&Path) -> Command, &[][..]), (train, &lora), (sft, &[]), (sft, &lora)]
    {
        let stderr = stderr_of(command(dir.path()).args(arguments), 1);
        assert!(
            stderr.contains(
                "error: the model's weights are not finite: `model.layers.1.mlp.up_proj.weight`; \
                 it cannot be trained"
            ),
            "{stderr}"
        );
        assert_eq!(models(&dir.path().join("run")), BTreeSet::new());
    }
}

#[test]
fn infer_reports_a_nan_model_instead_of_answering() {
    let dir = tempfile::tempdir().unwrap();
    inputs(dir.path());
    tiny_model::overwrite(&dir.path().join("model"), "model.norm.weight", 3..4, f32::NAN);
    let mut command = Command::new(binary());
    command.current_dir(dir.path()).args(["infer", "--model", "model", "--data", "train.json"]);
    let stderr = stderr_of(command.args(["--output", "answers.json"]), 1);
    assert!(stderr.contains("the model's logits are not finite"), "{stderr}");
    assert!(!dir.path().join("answers.json").exists());
}

#[test]
fn serve_fails_a_request_with_non_finite_logits_and_answers_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("model");
    tiny_model::write(&model);
    // Only prompts with this token have no finite logits.
    let token = 250;
    let row = token * tiny_model::HIDDEN_SIZE..(token + 1) * tiny_model::HIDDEN_SIZE;
    tiny_model::overwrite(&model, "model.embed_tokens.weight", row, f32::NAN);
    let server = Server::launch(dir, &[], None);
    let request = |prompt: Value, stream: bool| {
        let fields = json!({"max_tokens": 5, "temperature": 0, "stream": stream});
        server.post("/v1/completions", &completion(prompt, fields))
    };
    let good = request(json!([4, 5, 6]), false);
    assert_eq!(good.status, 200, "{good:?}");
    let bad = request(json!([4, token, 6]), false);
    assert_eq!(bad.status, 500, "{bad:?}");
    let message = bad.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("the model's logits are not finite"), "{message}");
    let streamed = request(json!([4, token, 6]), true);
    assert!(streamed.body.contains("the model's logits are not finite"), "{streamed:?}");
    let again = request(json!([4, 5, 6]), false);
    assert_eq!(again.json()["choices"], good.json()["choices"]);
    assert_eq!(server.get("/health").status, 200);
}
