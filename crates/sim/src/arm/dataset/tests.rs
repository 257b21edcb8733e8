use std::path::PathBuf;

use embodied_r_data::progress::Silent;
use embodied_r_lerobot::Dataset;

use super::*;
use crate::arm::chain::gripper;

fn options() -> ArmOptions {
    ArmOptions {
        tasks: vec![Task::PickUpCup, Task::LampOn],
        episodes: 2,
        seed: 3,
        image_size: (64, 48),
        bench_frames: 1,
        ..ArmOptions::default()
    }
}

fn write(out: &Path, options: &ArmOptions) -> Result<ArmOutput> {
    write_arm(out, options, &Silent)
}

fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            let below = files(&path).into_iter();
            let name = PathBuf::from(path.file_name().unwrap());
            found.extend(below.map(|(file, bytes)| (name.join(file), bytes)));
        } else {
            found.insert(path.file_name().unwrap().into(), fs::read(&path).unwrap());
        }
    }
    found
}

#[test]
fn the_data_set_has_the_states_of_the_demonstrations() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("arm");
    let made = options();
    let ArmOutput::Written(summary) = write(&out, &made).unwrap() else { panic!("written") };
    assert_eq!((summary.episodes, summary.questions), (4, 40));

    let dataset = Dataset::open(&out).unwrap();
    assert_eq!((dataset.fps(), dataset.robot_type()), (10.0, Some(ROBOT_TYPE)));
    assert_eq!(dataset.cameras(), [CAMERA]);
    let names = dataset.features()[STATE].names.clone().unwrap();
    assert_eq!(names, STATE_NAMES);
    let mut frames = 0;
    let mut next = 0;
    dataset
        .read_episodes(&[STATE, VELOCITY, ACTION], |episode| -> embodied_r_lerobot::Result<()> {
            let task = made.tasks[next % 2];
            let expected = demonstration(3, task, next as u64 / 2);
            let instructions: Vec<&str> = episode.tasks.iter().map(|it| it.task.as_str()).collect();
            assert_eq!((episode.index, instructions), (next, vec![task.instruction()]));
            assert_eq!(episode.timestamps.len(), expected.steps.len());
            for (frame, step) in expected.steps.iter().enumerate() {
                let row = episode.columns[STATE].row(frame);
                let position = gripper(&step.joints).position;
                assert!((0..3).all(|axis| (row[axis] - position[axis]).abs() < 1e-6));
                assert_eq!(row[7], step.gripper_open);
                let following = (frame + 1).min(expected.steps.len() - 1);
                assert_eq!(
                    episode.columns[ACTION].row(frame),
                    episode.columns[STATE].row(following)
                );
                let velocities = episode.columns[VELOCITY].row(frame);
                assert!((velocities[0] - step.joint_velocities[0]).abs() < 1e-6);
            }
            frames += expected.steps.len() as u64;
            next += 1;
            Ok(())
        })
        .unwrap();
    assert_eq!((next, frames), (4, summary.frames));

    // The video shows the moments.
    let images = dataset.frames(CAMERA, 1, &[0, 20]).unwrap();
    let expected = demonstration(3, Task::LampOn, 0);
    for (image, frame) in images.iter().zip([0, 20]) {
        let pixels = Renderer::new((64, 48)).draw(&expected.steps[frame].scene);
        let off: u64 = image.iter().zip(&pixels).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
        assert!(off < 10 * pixels.len() as u64, "{off}");
    }
}

#[test]
fn the_bench_has_four_questions_for_each_image() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("arm");
    write(&out, &options()).unwrap();
    let text = read_text(&out.join("bench.json")).unwrap();
    let records: Vec<Value> = serde_json::from_str(&text).unwrap();
    assert_eq!(records.len(), 40);
    let of = |record: &Value, field: &str| record[field].as_str().unwrap().to_owned();
    for (records, task) in records.chunks(4).zip(Task::ALL) {
        let image = image::open(out.join(of(&records[0], "image"))).unwrap();
        assert_eq!((image.width(), image.height()), (64, 48));
        let kinds: Vec<_> = records.iter().map(|record| of(record, "type")).collect();
        assert_eq!(kinds, crate::arm::QUESTION_TYPES);
        for record in records {
            assert_eq!(of(record, "task"), task.name());
            assert_eq!(of(record, "split"), task.split().name());
            assert_eq!(of(record, "image"), of(&records[0], "image"));
        }
        assert!(records[2]["facts"]["displacement"]["z"].is_number());
        assert!(records[3]["facts"]["relation"].is_string());
        assert!(records[0].get("facts").is_none());
    }
    let held_out = records.iter().filter(|record| of(record, "split") == "held-out").count();
    assert_eq!(held_out, 20);
}

#[test]
fn plan_and_subtasks_are_annotated_at_the_frames_where_they_begin() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("arm");
    write(&out, &options()).unwrap();
    let text = read_text(&out.join(ANNOTATIONS)).unwrap();
    assert_eq!(text.lines().count(), 4);
    let line: Value = serde_json::from_str(text.lines().nth(1).unwrap()).unwrap();
    let expected = demonstration(3, Task::LampOn, 0);
    assert_eq!((&line["episode_index"], &line["plan"]), (&json!(1), &json!(expected.plan)));
    let subtasks = line["subtasks"].as_array().unwrap();
    assert_eq!(subtasks.len(), expected.plan.len());
    let starts = [0].into_iter().chain(expected.key_points.iter().copied());
    for ((subtask, start), sentence) in subtasks.iter().zip(starts).zip(&expected.plan) {
        assert_eq!(*subtask, json!({ "frame_index": start, "text": sentence }));
    }
}

#[test]
fn the_same_seed_gives_the_same_files_and_another_seed_others() {
    let folder = tempfile::tempdir().unwrap();
    let [a, b, c] = ["a", "b", "c"].map(|name| folder.path().join(name));
    let few = ArmOptions { tasks: vec![Task::PushButton], episodes: 1, ..options() };
    write(&a, &few).unwrap();
    write(&b, &few).unwrap();
    write(&c, &ArmOptions { seed: 4, ..few }).unwrap();
    assert!(files(&a).len() > 12);
    assert_eq!(files(&a), files(&b));
    assert_ne!(files(&a)[Path::new("bench.json")], files(&c)[Path::new("bench.json")]);
}

#[test]
fn a_second_run_changes_nothing_and_other_settings_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("arm");
    let few = ArmOptions { tasks: vec![Task::PushButton], episodes: 1, ..options() };
    write(&out, &few).unwrap();
    let before = files(&out);
    assert_eq!(write(&out, &few).unwrap(), ArmOutput::Unchanged);
    let error = write(&out, &ArmOptions { seed: 9, ..few }).unwrap_err();
    assert!(matches!(error, Error::ConflictingDemonstrations { .. }), "{error}");
    assert_eq!(files(&out), before);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn an_empty_folder_named_by_dots_is_filled() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("arm");
    fs::create_dir_all(out.join("below")).unwrap();
    let few = ArmOptions { tasks: vec![Task::PushButton], episodes: 1, ..options() };
    let error = write(&out.join("below/.."), &few).unwrap_err();
    assert!(matches!(error, Error::NotEmpty { .. }), "{error}");
    write(&out.join("below/."), &few).unwrap();
    assert!(out.join("below/meta/info.json").is_file());
}

#[test]
fn files_of_others_are_neither_replaced_nor_mixed() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("arm");
    fs::create_dir(&out).unwrap();
    fs::write(out.join("notes.txt"), "mine").unwrap();
    let error = write(&out, &options()).unwrap_err();
    assert!(matches!(error, Error::NotEmpty { .. }), "{error}");
    assert_eq!(files(&out).len(), 1);
}

#[test]
fn what_a_killed_run_left_is_replaced_and_a_running_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("arm");
    let few = ArmOptions { tasks: vec![Task::PushButton], episodes: 1, ..options() };
    let staging = Staging::beside(&out).unwrap().unwrap();
    let error = write(&out, &few).unwrap_err();
    assert!(matches!(error, Error::InUse { .. }), "{error}");
    drop(staging);

    let left = folder.path().join(".arm.partial/folder/meta");
    fs::create_dir_all(&left).unwrap();
    fs::write(left.join("info.json"), "{}").unwrap();
    write(&out, &few).unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn an_impossible_request_is_an_error_that_names_the_setting() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("arm");
    for (wrong, name) in [
        (ArmOptions { tasks: vec![], ..options() }, "`tasks`"),
        (ArmOptions { episodes: 0, ..options() }, "`episodes`"),
        (ArmOptions { tasks: vec![Task::LampOn; 2], ..options() }, "`lamp_on`"),
        (ArmOptions { image_size: (63, 48), ..options() }, "`63x48`"),
        (ArmOptions { image_size: (64, 4096), ..options() }, "`64x4096`"),
    ] {
        let error = write(&out, &wrong).unwrap_err().to_string();
        assert!(error.contains(name), "{error}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn the_demonstrations_of_a_written_data_set_are_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("arm");
    write(&out, &options()).unwrap();
    let written = WrittenArm::open(&out).unwrap();
    for (index, task) in [(0, Task::PickUpCup), (3, Task::LampOn)] {
        assert_eq!(written.demonstration(index), Some(demonstration(3, task, index / 2)));
    }
    assert_eq!(written.demonstration(4), None);
    let text = read_text(&out.join(SETTINGS)).unwrap().replace("lamp_on", "lamp_off");
    fs::write(out.join(SETTINGS), text).unwrap();
    let error = WrittenArm::open(&out).unwrap_err().to_string();
    assert!(error.contains("arm.json") && error.contains("`lamp_off`"), "{error}");
}
