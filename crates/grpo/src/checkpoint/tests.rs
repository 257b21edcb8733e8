//! Tests of a run's checkpoints, with a bigram model.

use std::fs;
use std::path::{Path, PathBuf};

use embodied_r_dist::Communicator;

use super::*;
use crate::model::tests::toy::{Bigram, Words};
use crate::model::{ChatMessage, ChatTokenizer, GenerationPrompt, MultimodalMessage, RenderedChat};
use crate::settings::{Optim, OptimizerSettings};
use crate::update::optimizer::{Optimizer, file_name};
use embodied_r_dist::ProcessGroup;

const SETTINGS: OptimizerSettings = OptimizerSettings {
    optim: Optim::Adamw,
    adam_beta1: 0.9,
    adam_beta2: 0.95,
    adam_epsilon: 1e-8,
    weight_decay: 0.0,
    max_grad_norm: 1.0,
};

fn save_with(run: &Path, text: &dyn ChatTokenizer, state: &State) -> Result<PathBuf> {
    let model = Bigram::new(4, state.step);
    let optimizer = Optimizer::new(SETTINGS, &model, &ProcessGroup::default()).unwrap();
    Checkpoints::new(run, 10).save(&model, text, &optimizer, state, "seed = 1")
}

fn save(run: &Path, step: u64) -> PathBuf {
    save_with(run, &Words::new(), &State { step, ..State::new("bigram") }).unwrap()
}

/// A run with the checkpoints 2, 4 and 6.
fn run() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for step in [2, 4, 6] {
        save(dir.path(), step);
    }
    dir
}

fn cut(path: &Path) {
    let bytes = fs::read(path).unwrap();
    fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
}

fn flip_a_bit(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let index = bytes.len() - 3;
    bytes[index] ^= 1;
    fs::write(path, bytes).unwrap();
}

fn all(run: &Path) -> Vec<String> {
    let mut all = names(run).unwrap();
    all.sort();
    all
}

#[test]
fn the_manifest_names_every_file_of_a_checkpoint() {
    let dir = run();
    let path = dir.path().join("checkpoint-6");
    let manifest: serde_json::Value =
        serde_json::from_slice(&fs::read(path.join(MANIFEST_FILE)).unwrap()).unwrap();
    let listed: Vec<_> = manifest["files"].as_object().unwrap().keys().cloned().collect();
    let files: Vec<_> = all(&path).into_iter().filter(|name| name != MANIFEST_FILE).collect();
    assert_eq!(listed, files);
    assert_eq!(Checkpoint::open_verified(&path).unwrap().state.step, 6);
}

#[test]
fn damage_to_any_file_is_detected_and_the_latest_intact_checkpoint_is_used() {
    for (file, corrupt, want) in [
        ("model.safetensors", cut as fn(&Path), "`model.safetensors` has the wrong length: "),
        ("optimizer.safetensors", flip_a_bit, "`optimizer.safetensors` has changed since"),
        ("trainer_state.json", flip_a_bit, "`trainer_state.json` has changed since"),
        (
            "settings.toml",
            |path| fs::write(path, "seed = 2").unwrap(),
            "`settings.toml` has changed",
        ),
        ("words.txt", |path| fs::remove_file(path).unwrap(), "`words.txt` is missing"),
        (MANIFEST_FILE, cut, "`manifest.json` cannot be read: "),
        (MANIFEST_FILE, |path| fs::remove_file(path).unwrap(), "`manifest.json` is missing"),
    ] {
        let dir = run();
        corrupt(&dir.path().join("checkpoint-6").join(file));
        let LatestIntact { checkpoint, damaged } =
            Checkpoints::new(dir.path(), 10).latest_intact().unwrap();
        assert_eq!(checkpoint.unwrap().state.step, 4, "{file}");
        assert_eq!(damaged.len(), 1, "{file}");
        let error = damaged[0].to_string();
        assert!(error.contains("checkpoint-6`: ") && error.contains(want), "{error}");
    }
}

#[test]
fn opening_a_damaged_checkpoint_is_an_error_that_names_the_file() {
    let dir = run();
    let path = dir.path().join("checkpoint-6");
    flip_a_bit(&path.join(file_name(0, 1)));
    let error = Checkpoint::open_verified(&path).unwrap_err().to_string();
    assert!(error.contains("checkpoint-6` cannot be used: `optimizer.safetensors`"), "{error}");
}

#[test]
fn damaged_checkpoints_are_set_aside_and_the_run_can_continue() {
    let dir = run();
    let checkpoints = Checkpoints::new(dir.path(), 10);
    for round in ["checkpoint-6.damaged", "checkpoint-6.damaged-2"] {
        cut(&dir.path().join("checkpoint-6/model.safetensors"));
        let LatestIntact { checkpoint, damaged } = checkpoints.latest_intact().unwrap();
        let last = checkpoint.unwrap();
        assert!(checkpoints.refuse_later(&last).is_err());
        assert_eq!(checkpoints.damaged_after(&last).unwrap(), damaged);
        assert_eq!(checkpoints.set_aside(&damaged).unwrap(), [dir.path().join(round)]);
        checkpoints.refuse_later(&last).unwrap();
        save(dir.path(), 6);
    }
    assert_eq!(checkpoints.steps().unwrap(), [2, 4, 6]);
}

#[test]
fn a_run_without_an_intact_checkpoint_lists_the_damage_of_each() {
    let dir = run();
    for step in [2, 4, 6] {
        fs::remove_file(dir.path().join(name(step)).join(STATE_FILE)).unwrap();
    }
    let error = Checkpoints::new(dir.path(), 10).latest_intact().unwrap_err().to_string();
    for step in [2, 4, 6] {
        assert!(error.contains(&format!("checkpoint-{step}`: `trainer_state.json` is")), "{error}");
    }
}

#[test]
fn a_checkpoint_whose_reference_is_damaged_cannot_be_used() {
    let dir = run();
    let model = Bigram::new(4, 1);
    let reference = Checkpoints::new(dir.path(), 10).save_reference(&model, 6).unwrap();
    let state = State { step: 8, reference: Some(reference), ..State::new("bigram") };
    let path = save_with(dir.path(), &Words::new(), &state).unwrap();
    Checkpoint::open_verified(&path).unwrap();
    flip_a_bit(&dir.path().join("reference-6/model.safetensors"));
    let LatestIntact { checkpoint, damaged } =
        Checkpoints::new(dir.path(), 10).latest_intact().unwrap();
    assert_eq!(checkpoint.unwrap().state.step, 6);
    assert_eq!(damaged[0].path, path, "the checkpoint is set aside, not its reference");
    assert!(damaged[0].what().contains("`reference-6/model.safetensors` has changed"));
}

/// A tokenizer whose files do not fit on the disk.
struct DiskFull;

impl ChatTokenizer for DiskFull {
    fn apply_chat_template(
        &self,
        messages: &[ChatMessage],
        generation: GenerationPrompt,
    ) -> Result<RenderedChat> {
        Words::new().apply_chat_template(messages, generation)
    }

    fn apply_multimodal_template(
        &self,
        messages: &[MultimodalMessage],
        generation: GenerationPrompt,
    ) -> Result<RenderedChat> {
        Words::new().apply_multimodal_template(messages, generation)
    }

    fn plain(&self, text: &str) -> RenderedChat {
        Words::new().plain(text)
    }

    fn encode(&self, chat: &RenderedChat) -> Result<Vec<u32>> {
        Words::new().encode(chat)
    }

    fn decode(&self, ids: &[u32]) -> Result<String> {
        Words::new().decode(ids)
    }

    fn stop_ids(&self) -> &[u32] {
        &[0]
    }

    fn save(&self, dir: &Path) -> Result<()> {
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        Err(Error::io("write", dir.join("words.txt"))(full))
    }
}

#[test]
fn a_full_disk_names_the_file_and_leaves_the_last_checkpoint() {
    let dir = run();
    // A new checkpoint, and one that replaces another.
    for step in [6, 8] {
        let state = State { step, ..State::new("bigram") };
        let error = save_with(dir.path(), &DiskFull, &state).unwrap_err().to_string();
        assert!(error.contains("words.txt`: no storage space"), "{error}");
        assert_eq!(all(dir.path()), ["checkpoint-2", "checkpoint-4", "checkpoint-6"]);
        let last = Checkpoints::new(dir.path(), 10).last().unwrap().unwrap();
        let model = Bigram::read(&last.path).unwrap();
        assert_eq!(model.values(), Bigram::new(4, 6).values());
    }
}

#[test]
fn leftovers_of_a_kill_are_cleaned_up() {
    let dir = run();
    let hidden = |name: &str| dir.path().join(name);
    // Killed between the two renames of a replaced checkpoint, during the removal of an old one, and while writing a
    // reference.
    fs::rename(dir.path().join("checkpoint-6"), hidden(".checkpoint-6.old.tmp")).unwrap();
    fs::create_dir(hidden(".checkpoint-6.tmp")).unwrap();
    fs::rename(dir.path().join("checkpoint-2"), hidden(".checkpoint-2.removed.tmp")).unwrap();
    fs::create_dir(hidden(".reference-4.tmp")).unwrap();
    let checkpoints = Checkpoints::new(dir.path(), 10);
    checkpoints.recover().unwrap();
    assert_eq!(all(dir.path()), ["checkpoint-4", "checkpoint-6"]);
    assert_eq!(checkpoints.last().unwrap().unwrap().state.step, 6);
}

#[test]
fn an_old_checkpoint_that_cannot_be_read_does_not_stop_the_rotation() {
    let dir = run();
    fs::remove_file(dir.path().join("checkpoint-4/trainer_state.json")).unwrap();
    let model = Bigram::new(4, 1);
    let reference = Checkpoints::new(dir.path(), 2).save_reference(&model, 3).unwrap();
    let optimizer = Optimizer::new(SETTINGS, &model, &ProcessGroup::default()).unwrap();
    let state = State { step: 8, ..State::new("bigram") };
    let checkpoints = Checkpoints::new(dir.path(), 3);
    checkpoints.save(&model, &Words::new(), &optimizer, &state, "").unwrap();
    assert_eq!(checkpoints.steps().unwrap(), [4, 6, 8]);
    assert!(dir.path().join(&reference).exists(), "an unreadable checkpoint may need it");
    let checkpoints = Checkpoints::new(dir.path(), 1);
    checkpoints.save(&model, &Words::new(), &optimizer, &State { step: 10, ..state }, "").unwrap();
    assert_eq!(all(dir.path()), ["checkpoint-10"]);
}

#[test]
fn an_unwritable_folder_is_detected_early() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let error = Checkpoints::new(&file.join("run"), 1).prepare().unwrap_err().to_string();
    assert!(error.starts_with("cannot create `") && error.contains("file/run`"), "{error}");
    let run = dir.path().join("new/run");
    Checkpoints::new(&run, 1).prepare().unwrap();
    assert_eq!(all(&run), [""; 0], "the probe file is removed");
}

/// The results of several ranks that save a checkpoint in `run`, each with its own model.
fn saved_by(run: &Path, ranks: usize, step: u64, model: fn(usize) -> Bigram) -> Vec<Result<()>> {
    let rank = |communicator: Communicator| {
        let process_group = ProcessGroup::new(communicator.clone());
        let model = model(process_group.rank());
        let optimizer = Optimizer::new(SETTINGS, &model, &process_group).unwrap();
        let optimizer_files = optimizer.files();
        let state = State { step, optimizer_files, ..State::new("bigram") };
        let checkpoints = Checkpoints::new(run, 10).with_process_group(&process_group);
        let saved =
            checkpoints.save(&model, &Words::new(), &optimizer, &state, "seed = 1").map(|_| ());
        match &saved {
            Ok(()) => communicator.finish().unwrap(),
            Err(error) => drop(communicator.fail(&error.to_string())),
        }
        saved
    };
    Communicator::on_threads(ranks, rank).unwrap()
}

#[test]
fn every_rank_writes_its_shard_and_the_manifest_lists_all() {
    let dir = tempfile::tempdir().unwrap();
    for saved in saved_by(dir.path(), 2, 2, |_| Bigram::new(4, 2)) {
        saved.unwrap();
    }
    let path = dir.path().join("checkpoint-2");
    let files = [
        MANIFEST_FILE,
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
        "optimizer-00001-of-00002.safetensors",
        "optimizer-00002-of-00002.safetensors",
        SETTINGS_FILE,
        STATE_FILE,
        "words.txt",
    ];
    assert_eq!(all(&path), files);
    assert_eq!(Bigram::read(&path).unwrap().values(), Bigram::new(4, 2).values());
    Checkpoint::open_verified(&path).unwrap();
    for file in files {
        let whole = fs::read(path.join(file)).unwrap();
        cut(&path.join(file));
        assert!(Checkpoint::open_verified(&path).is_err(), "`{file}` may be cut");
        fs::write(path.join(file), whole).unwrap();
    }
}

#[test]
fn a_rank_with_a_full_disk_fails_the_save_on_all_ranks_and_the_last_checkpoint_stays() {
    for full in [0, 1] {
        let dir = tempfile::tempdir().unwrap();
        for saved in saved_by(dir.path(), 2, 2, |_| Bigram::new(4, 2)) {
            saved.unwrap();
        }
        let model: [fn(usize) -> Bigram; 2] = [
            |rank| if rank == 0 { Bigram::new(4, 4).on_a_full_disk() } else { Bigram::new(4, 4) },
            |rank| if rank == 1 { Bigram::new(4, 4).on_a_full_disk() } else { Bigram::new(4, 4) },
        ];
        for (rank, saved) in saved_by(dir.path(), 2, 4, model[full]).into_iter().enumerate() {
            let error = saved.unwrap_err().to_string();
            assert!(error.contains("no storage space"), "{error}");
            // The gathered error of that rank, or its failure report, whichever arrives first.
            let reports =
                [format!("rank {full} failed: "), format!("rank {full} on `thread` failed: ")];
            let elsewhere = reports.iter().any(|report| error.starts_with(report));
            assert_eq!(elsewhere, rank != full, "rank {rank}: {error}");
        }
        let checkpoints = Checkpoints::new(dir.path(), 10);
        assert_eq!(all(dir.path()), ["checkpoint-2"], "{full}");
        let last = checkpoints.last().unwrap().unwrap();
        assert_eq!(Bigram::read(&last.path).unwrap().values(), Bigram::new(4, 2).values());
    }
}
