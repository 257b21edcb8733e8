//! Captions from the annotations of scenes, and from the poses of built-in rooms.

use std::collections::BTreeMap;
use std::path::Path;

use embodied_r_data::scene::{Pose, Scene, SceneObject};
use embodied_r_perception::captioner::SceneCaptioner;
use embodied_r_perception::perceive::{PerceiveSummary, Scope};
use serde_json::{Value, json};

use super::{Fixture, read, summaries};

/// A VSI-Bench scene of four objects around a center.
fn meta_info() -> Value {
    let object = |x: f64, y: f64| {
        json!([{"centroid": [x, y, 0.4], "axesLengths": [0.4, 0.4, 0.8],
            "min": [x - 0.2, y - 0.2, 0.0], "max": [x + 0.2, y + 0.2, 0.8]}])
    };
    json!({"scene1": {"room_size": 20.0, "object_bbox": {
        "sofa": object(2.0, 0.0), "lamp": object(0.0, 2.0),
        "door": object(-2.0, 0.0), "sink": object(0.0, -2.0)}}})
}

fn vsi(category: &str, text: &str, answer: &str) -> Value {
    json!([{"Question_id": 1, "video_id": "scene1.mp4", "scene_name": "scene1",
        "question_category": category, "question": text, "answer": answer}])
}

async fn scene_run(question: Value) -> (Fixture, PerceiveSummary) {
    let fixture = Fixture::new(&[("a.json", question), ("x_meta_info.json", meta_info())]);
    let captioner = SceneCaptioner::open(fixture.folder.path(), 32).unwrap();
    let summary = summaries(&fixture.options(&["a.json"]), &captioner).await.remove(0);
    (fixture, summary)
}

fn video_part(fixture: &Fixture) -> String {
    let prompt = fixture.output("a.json")[0]["question"].as_str().unwrap().to_owned();
    prompt.rsplit_once("Question:").unwrap().0.to_owned()
}

#[tokio::test]
async fn captions_do_not_depend_on_the_answer() {
    let text = "Question: which is closest to the sofa?\n\nChoices:\nA. lamp\nB. door";
    let (a, _) = scene_run(vsi("object_rel_distance", text, "A")).await;
    let (b, _) = scene_run(vsi("object_rel_distance", text, "B")).await;
    let log = |fixture: &Fixture| read(&fixture.path("inter/a.captions.jsonl"));
    assert_eq!(log(&a), log(&b));
}

#[tokio::test]
async fn captions_do_not_depend_on_the_order_of_choices() {
    let text = "Question: which is closest to the sofa?\n\nChoices:\n";
    let (a, _) =
        scene_run(vsi("object_rel_distance", &format!("{text}A. lamp\nB. door"), "A")).await;
    let (b, _) =
        scene_run(vsi("object_rel_distance", &format!("{text}A. door\nB. lamp"), "B")).await;
    assert_eq!(video_part(&a), video_part(&b));
}

#[tokio::test]
async fn the_tour_of_a_real_room_has_correct_bearings_and_distances() {
    let (fixture, _) = scene_run(vsi("object_rel_distance", "Question: ?", "A")).await;
    let captions = video_part(&fixture);
    for line in [
        "\nFrame 0: Observe: sofa ahead, 2.0 m\n",
        "\nFrame 1: After rotate left 90, Observe: lamp ahead, 2.0 m\n",
        "\nFrame 2: After rotate left 90, Observe: door ahead, 2.0 m\n",
        "\nFrame 3: After rotate left 90, Observe: sink ahead, 2.0 m\n",
    ] {
        assert!(captions.contains(line), "{line} is not in {captions}");
    }
}

#[tokio::test]
async fn an_unsupported_category_fails_with_its_reason() {
    let (fixture, summary) = scene_run(vsi("obj_appearance_order", "Question: ?", "A")).await;
    assert_eq!((summary.finished, summary.failed), (0, 1));
    assert_eq!(summary.unsupported, BTreeMap::from([("obj_appearance_order".to_owned(), 1)]));
    let log = read(&summary.log);
    assert!(log.contains("cannot support `obj_appearance_order`"), "{log}");
    assert!(fixture.output("a.json").is_empty());
}

#[tokio::test]
async fn a_question_without_annotations_fails_with_its_reason() {
    let mut question = vsi("object_rel_distance", "Question: ?", "A");
    question[0]["scene_name"] = json!("elsewhere");
    question[0]["video_id"] = json!("elsewhere.mp4");
    let (_fixture, summary) = scene_run(question).await;
    assert_eq!(summary.failed, 1);
    assert!(read(&summary.log).contains("no annotations for scene `elsewhere`"));
}

/// A video of one second-long still per color, 4 frames per second, and a scene file with as many
/// poses.
fn built_in_room(folder: &Path, poses: usize) {
    let status = std::process::Command::new("ffmpeg")
        .args(["-loglevel", "error", "-f", "lavfi", "-i"])
        .arg("testsrc=size=64x48:rate=4:duration=5")
        .args(["-pix_fmt", "yuv420p", "-y"])
        .arg(folder.join("room.mp4"))
        .status()
        .unwrap();
    assert!(status.success());
    let camera = (0..poses).map(|i| Pose { position_m: [0.0, 0.0, 1.5], yaw_deg: i as f64 * 10.0 });
    let scene = Scene {
        scene_name: "room".into(),
        video_id: "room.mp4".into(),
        fps: 4.0,
        room_size_m: [6.0, 6.0, 3.0],
        horizontal_fov_deg: 60.0,
        max_range_m: 9.0,
        objects: vec![SceneObject {
            name: "red lamp".into(),
            center_m: [3.0, 0.0, 0.5],
            size_m: [0.3, 0.3, 1.0],
        }],
        camera: camera.collect(),
    };
    scene.write(&folder.join("room.json")).unwrap();
}

async fn built_in_run(poses: usize) -> (Fixture, PerceiveSummary) {
    let question = json!([{"Question_id": 1, "video_id": "room.mp4", "question": "Question: ?"}]);
    let fixture = Fixture::new(&[("a.json", question)]);
    built_in_room(fixture.folder.path(), poses);
    let mut options = fixture.options(&["a.json"]);
    options.folder_path = Some(fixture.folder.path().to_owned());
    let captioner = SceneCaptioner::open(fixture.folder.path(), 32).unwrap();
    let summary = summaries(&options, &captioner).await.remove(0);
    (fixture, summary)
}

#[tokio::test]
async fn a_built_in_room_is_captioned_from_the_poses_of_its_key_frames() {
    let (fixture, summary) = built_in_run(20).await;
    let line: Value = serde_json::from_str(&read(&summary.log)).unwrap();
    let frames = line["frames"].as_array().unwrap();
    let (first, last) = (&frames[0], &frames[frames.len() - 1]);
    assert_eq!((&first["index"], &first["view"]), (&json!(0), &json!("red lamp ahead, 3 m")));
    assert_eq!((&last["index"], &last["view"]), (&json!(19), &json!("nothing")));
    for pair in frames.windows(2) {
        let angle = (pair[1]["index"].as_u64().unwrap() - pair[0]["index"].as_u64().unwrap()) * 10;
        assert_eq!(pair[1]["action"], json!(format!("rotate left {angle}")));
    }
    assert!(video_part(&fixture).contains("Frame 0: Observe: red lamp ahead, 3 m"));
}

#[tokio::test]
async fn a_scene_with_too_few_poses_is_rejected() {
    let (_fixture, summary) = built_in_run(10).await;
    assert_eq!(summary.failed, 1);
    assert!(read(&summary.log).contains("does not match the video"));
}

#[tokio::test]
async fn an_unsupported_category_fails_with_captions_per_video_too() {
    let fixture = Fixture::new(&[
        ("a.json", vsi("obj_appearance_order", "Question: ?", "A")),
        ("x_meta_info.json", meta_info()),
    ]);
    let captioner = SceneCaptioner::open(fixture.folder.path(), 32).unwrap();
    let mut options = fixture.options(&["a.json"]);
    options.scope = Scope::Video;
    let summary = summaries(&options, &captioner).await.remove(0);
    assert_eq!(summary.unsupported, BTreeMap::from([("obj_appearance_order".to_owned(), 1)]));
}
