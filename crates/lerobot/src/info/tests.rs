use proptest::prelude::*;
use serde_json::json;

use super::*;

fn valid() -> Value {
    json!({
        "codebase_version": "v3.0", "robot_type": "panda", "fps": 10, "total_episodes": 2,
        "total_frames": 20, "total_tasks": 1, "chunks_size": 1000, "unknown": {"a": [1]},
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
        "features": {
            "observation.state": {"dtype": "float32", "shape": [2], "names": ["x", "y"]},
            "observation.images.front":
                {"dtype": "video", "shape": [24, 32, 3], "names": ["height", "width", "channels"]},
        },
    })
}

fn parsed(info: &Value) -> Result<Info> {
    Info::parse("meta/info.json".as_ref(), &info.to_string())
}

/// The error after `field`, such as `/features/action`, was set to `value`.
fn refusal(field: &str, value: Value) -> String {
    let mut info = valid();
    let (parent, name) = field.rsplit_once('/').unwrap();
    info.pointer_mut(parent).unwrap()[name] = value;
    parsed(&info).unwrap_err().to_string()
}

#[test]
fn a_valid_file_is_parsed_and_unknown_fields_are_ignored() {
    let info = parsed(&valid()).unwrap();
    assert_eq!(
        (info.version(), info.fps(), info.robot_type()),
        (Version::V30, 10.0, Some("panda"))
    );
    let state = &info.features()["observation.state"];
    assert_eq!(
        (state.width(), state.names.as_deref().unwrap()),
        (2, &["x".into(), "y".into()][..])
    );
    assert_eq!(info.features()["observation.images.front"].image_size(), Some((32, 24)));
}

#[test]
fn a_missing_or_wrong_field_is_named() {
    for field in ["codebase_version", "fps", "features", "data_path", "video_path", "total_frames"]
    {
        let mut info = valid();
        info.as_object_mut().unwrap().remove(field);
        let error = parsed(&info).unwrap_err().to_string();
        assert!(error.contains(&format!("`{field}` of `meta/info.json` is missing")), "{error}");
    }
    for (field, value, expected) in [
        ("/fps", json!(0), "`fps` of `meta/info.json` is `0`"),
        ("/fps", json!(-3), "above 0"),
        ("/fps", json!("10"), "above 0"),
        ("/total_episodes", json!(-1), "`total_episodes`"),
        ("/total_frames", json!(1.5), "`1.5`, not a whole number"),
        ("/chunks_size", json!(0), "`chunks_size`"),
        (
            "/data_path",
            json!("../{file_index}"),
            "`data_path` of `meta/info.json` must be a relative",
        ),
        (
            "/video_path",
            json!("/v/{video_key}"),
            "`video_path` of `meta/info.json` must be a relative",
        ),
        ("/data_path", json!("{episode}"), "placeholder `episode`"),
        ("/features/observation.state", json!(3), "`features.observation.state`"),
        (
            "/features/observation.state",
            json!({"shape": [1]}),
            "`features.observation.state.dtype`",
        ),
        ("/features/observation.state/shape", json!([0]), "`features.observation.state.shape`"),
        ("/features/observation.state/shape", json!([1 << 20, 1 << 20, 1 << 30]), "from 1 to"),
        ("/features/observation.state/shape", json!(3), "not a list"),
    ] {
        let error = refusal(field, value);
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_key_that_leaves_the_folder_is_refused() {
    for key in ["..", "a/../../b", "", "a\\b", "a\n"] {
        let mut info = valid();
        info["features"][key] = json!({"dtype": "video", "shape": [1, 1, 3]});
        let error = parsed(&info).unwrap_err().to_string();
        assert!(error.contains("cannot be the name of a folder"), "{error}");
    }
}

#[test]
fn version_2_0_is_read_as_2_1_and_others_are_refused() {
    let mut info = valid();
    for version in ["v2.0", "v2.1"] {
        info["codebase_version"] = json!(version);
        info["data_path"] = json!("data/{episode_chunk:03d}/{episode_index}.parquet");
        info["video_path"] = json!("videos/{episode_chunk}/{video_key}/{episode_index}.mp4");
        assert_eq!(parsed(&info).unwrap().version(), Version::V21);
    }
    assert!(refusal("/codebase_version", json!("v1.6")).contains("convert_dataset_v1_to_v2"));
    assert!(refusal("/codebase_version", json!("v4.0")).contains("v2.0, v2.1 and v3.0 are read"));
}

#[test]
fn names_are_those_of_the_values_however_they_are_nested() {
    let names = |value: Value| {
        let mut info = valid();
        info["features"]["observation.state"]["names"] = value;
        parsed(&info).unwrap().features()["observation.state"].names.clone()
    };
    let xy = Some(vec!["x".to_owned(), "y".to_owned()]);
    assert_eq!(names(json!(["x", "y"])), xy);
    assert_eq!(names(json!({"motors": ["x", "y"]})), xy);
    assert_eq!(names(json!({"left": ["x"], "right": {"motors": ["y"]}})), xy);
    assert_eq!(names(json!({"y": 1, "x": 0})), xy);
    assert_eq!(names(Value::Null), None);
    assert_eq!(names(json!(["state"])), None);
}

#[test]
fn images_with_channels_first_have_their_size() {
    let size = |shape: Value, names: Value| {
        let mut info = valid();
        info["features"]["c"] = json!({"dtype": "image", "shape": shape, "names": names});
        parsed(&info).unwrap().features()["c"].image_size()
    };
    assert_eq!(size(json!([3, 24, 32]), json!(["channels", "height", "width"])), Some((32, 24)));
    assert_eq!(size(json!([3, 24, 32]), Value::Null), Some((32, 24)));
    assert_eq!(size(json!([3, 24, 3]), json!(["height", "width", "channel"])), Some((24, 3)));
    assert_eq!(size(json!([24, 32]), Value::Null), None);
}

#[test]
fn the_size_of_images_follows_the_names_of_the_axes_in_any_order() {
    let size = |shape: Value, names: Value| {
        let mut info = valid();
        info["features"]["c"] = json!({"dtype": "video", "shape": shape, "names": names});
        parsed(&info).unwrap().features()["c"].image_size()
    };
    assert_eq!(size(json!([32, 24, 3]), json!(["width", "height", "channels"])), Some((32, 24)));
    assert_eq!(size(json!([3, 32, 24]), json!(["channel", "width", "height"])), Some((32, 24)));
    assert_eq!(size(json!([24, 3, 32]), json!(["Height", "Channels", "Width"])), Some((32, 24)));
    // Names that contradict the numbers are followed, as LeRobot does.
    assert_eq!(size(json!([24, 32, 3]), json!(["channels", "height", "width"])), Some((3, 32)));
    assert_eq!(size(json!([3, 24, 32]), json!(["a", "b", "c"])), Some((32, 24)));
}

#[test]
fn the_needed_files_are_metadata_data_and_the_videos_of_the_cameras() {
    let info = parsed(&valid()).unwrap();
    let metadata = ["meta/info.json", "meta/episodes/*/*.parquet", "meta/tasks.parquet"];
    let files = info.needed_files(&["observation.images.front", "absent"]);
    assert_eq!(files[..3], metadata);
    assert_eq!(files[3], "data/chunk-*/file-*.parquet");
    assert_eq!(files[4..], ["videos/observation.images.front/chunk-*/file-*.mp4"]);
}

proptest! {
    #[test]
    fn any_value_in_any_field_is_parsed_or_refused_by_name(
        field in 0..10_usize, value in any_json()
    ) {
        let fields = [
            "codebase_version", "robot_type", "fps", "total_episodes", "total_frames", "total_tasks",
            "chunks_size", "data_path", "video_path", "features",
        ];
        let mut info = valid();
        info[fields[field]] = value;
        match parsed(&info) {
            Ok(info) => prop_assert!(info.fps() > 0.0 && info.chunks_size > 0),
            Err(error) => prop_assert!(error.to_string().contains(fields[field]), "{}", error),
        }
    }

    #[test]
    fn any_text_is_parsed_or_refused(text in ".{0,60}") {
        prop_assert!(Info::parse("meta/info.json".as_ref(), &text).is_err());
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z./{}:_0-9]{0,12}".prop_map(Value::from),
        Just(json!({"dtype": "float32", "shape": [2]})),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-z/.]{0,6}|dtype|shape|names", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}
