//! `embodied-r sim arm`.

use std::path::Path;

use assert_cmd::Command;
use embodied_r_tests::binary;
use serde_json::Value;

fn arm(out: &Path, arguments: &[&str]) -> assert_cmd::assert::Assert {
    let mut command = Command::new(binary());
    command.args(["sim", "arm", "--output"]).arg(out).args(arguments).assert()
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

const FEW: [&str; 8] =
    ["--tasks", "push_button,lamp_on", "--episodes", "1", "--image-size", "64x48", "--seed", "3"];

#[test]
fn demonstrations_of_both_versions_have_the_layout_of_lerobot() {
    let folder = tempfile::tempdir().unwrap();
    for (format, version, video) in [
        ("lerobot-v3.0", "v3.0", "videos/observation.images.front/chunk-000/file-000.mp4"),
        ("lerobot-v2.1", "v2.1", "videos/chunk-000/observation.images.front/episode_000001.mp4"),
    ] {
        let out = folder.path().join(format);
        let done = arm(&out, &[&FEW[..], &["--format", format, "--bench-frames", "1"]].concat());
        let stdout = String::from_utf8(done.success().get_output().stdout.clone()).unwrap();
        assert!(
            stdout.contains("      2 episodes") && stdout.contains("     40 questions"),
            "{stdout}"
        );

        let info = json(&out.join("meta/info.json"));
        assert_eq!(info["codebase_version"], version);
        assert_eq!((&info["total_episodes"], &info["fps"]), (&2.into(), &10.into()));
        for key in ["observation.state", "observation.joint_velocity", "action"] {
            assert_eq!(info["features"][key]["dtype"], "float32", "{key}");
        }
        assert!(out.join(video).is_file());
        let bench = json(&out.join("bench.json"));
        let bench = bench.as_array().unwrap();
        assert_eq!(bench.len(), 40);
        assert!(bench.iter().all(|row| out.join(row["image"].as_str().unwrap()).is_file()));
        let annotations = std::fs::read_to_string(out.join("annotations.jsonl")).unwrap();
        assert_eq!(annotations.lines().count(), 2);
    }
}

#[test]
fn another_seed_is_refused_and_the_same_one_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("arm");
    let few = [&FEW[..], &["--bench-frames", "0"]].concat();
    arm(&out, &few).success();
    assert!(!out.join("bench.json").exists());
    let before = std::fs::metadata(out.join("arm.json")).unwrap().modified().unwrap();
    arm(&out, &few).success();
    assert_eq!(std::fs::metadata(out.join("arm.json")).unwrap().modified().unwrap(), before);
    let other: Vec<&str> = few.iter().map(|word| if *word == "3" { "4" } else { *word }).collect();
    let refused = arm(&out, &other).code(1);
    let stderr = String::from_utf8(refused.get_output().stderr.clone()).unwrap();
    assert!(stderr.contains("different settings") && stderr.contains("hint:"), "{stderr}");
}

#[test]
fn wrong_options_are_wrong_usage() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("arm");
    for (arguments, message) in [
        (["--tasks", "pick_up_cups"], "unknown task `pick_up_cups`"),
        (["--tasks", "lamp_on,lamp_on"], "`lamp_on` is named twice"),
        (["--episodes", "0"], "`episodes`"),
        (["--image-size", "63x48"], "`63x48`"),
        (["--image-size", "small"], "such as 224x224"),
        (["--format", "rlds"], "lerobot-v3.0"),
    ] {
        let refused = arm(&out, &arguments).code(2);
        let stderr = String::from_utf8(refused.get_output().stderr.clone()).unwrap();
        assert!(stderr.contains(message), "{stderr}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn worked_examples_follow_from_the_demonstrations() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let size = ["--tasks", "pick_up_cup,push_button", "--episodes", "8", "--image-size", "64x48"];
    arm(&path("demos"), &[&size[..], &["--bench-frames", "0"]].concat()).success();
    let run =
        |words: &[&str]| Command::new(binary()).current_dir(folder.path()).args(words).assert();
    let compact = ["--prompt", "compact", "--decimals", "2", "--movement-epsilon", "0.02"];
    let questions = ["robot", "questions", "--demos", "demos", "--output", "q"];
    run(&[&questions[..], &compact].concat()).success();
    let write = |output: &str, more: &[&str]| {
        let words = ["sim", "conversations", "--data", "q/train.json", "--demos", "demos"];
        let count = ["--questions", "12", "--judge-examples", "0", "--output", output];
        run(&[&words[..], &count, more].concat())
    };
    let lines = |output: &str| -> Vec<Value> {
        let text = std::fs::read_to_string(path(output)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    write("q/worked.jsonl", &[]).success();
    write("q/answers.jsonl", &["--answers-only"]).success();

    let asked = json(&path("q/train.json"));
    let solution = |prompt: &Value| {
        let same = |question: &&Value| question["question"] == *prompt;
        let found = asked.as_array().unwrap().iter().find(same).unwrap();
        (found["kind"].as_str().unwrap(), found["answer"].as_str().unwrap())
    };
    let mut kinds = std::collections::BTreeMap::new();
    for example in lines("q/worked.jsonl") {
        let [_, user, reply] = example["messages"].as_array().unwrap().as_slice() else {
            panic!("{example}")
        };
        let (kind, letter) = solution(&user["content"]);
        let reply = reply["content"].as_str().unwrap();
        assert!(
            reply.ends_with(&format!(": {letter}.</think><answer>{letter}</answer>")),
            "{reply}"
        );
        assert_eq!(reply.contains("next: "), kind != "state", "{reply}");
        let image = example["images"][0].as_str().unwrap();
        assert!(path("q").join(image).is_file());
        *kinds.entry(kind).or_insert(0) += 1;
    }
    assert_eq!(kinds.values().sum::<i32>(), 12);
    assert_eq!((kinds["state"], kinds["waypoint"]), (4, 4), "{kinds:?}");
    for example in lines("q/answers.jsonl") {
        let reply = example["messages"][2]["content"].as_str().unwrap();
        assert!(!reply.contains("gripper"), "{reply}");
    }

    std::fs::write(path("demos/arm.json"), "{}").unwrap();
    let refused = write("q/other.jsonl", &[]).failure();
    let stderr = String::from_utf8(refused.get_output().stderr.clone()).unwrap();
    assert!(stderr.contains("arm.json") && stderr.contains("sim arm"), "{stderr}");
}
