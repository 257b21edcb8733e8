//! `embodied-r preprocess` on small benchmarks in the official layout.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use embodied_r_data::parquet::{Column, write_table};
use embodied_r_data::urban::{self, UrbanRow};
use embodied_r_data::vsi::{self, VsiRow};
use embodied_r_tests::binary;
use serde_json::Value;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

/// A folder with `dataset/`, in which the command is run.
struct Workspace(tempfile::TempDir);

impl Workspace {
    fn empty() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("dataset")).unwrap();
        Self(folder)
    }

    /// 20 rooms in an archive, and 20 flights of two clips each, of which one video is missing.
    fn with_both_benchmarks() -> Self {
        let workspace = Self::empty();
        let mut rooms = Vec::new();
        let mut videos = Vec::new();
        for number in 0..20 {
            let scene = format!("scene{number:04}_00");
            videos.push((format!("scannet/{scene}.mp4"), scene.clone()));
            rooms.push(room(2 * number, &scene, "obj_appearance_order"));
            rooms.push(room(2 * number + 1, &scene, "object_counting"));
        }
        let flights: Vec<_> = (0..40).map(|id| flight(id, id / 2, id % 2)).collect();
        workspace.write_vsi(&rooms, &videos);
        urban::write_parquet(&workspace.path("dataset/UrbanVideo-Bench/MCQ.parquet"), &flights)
            .unwrap();
        let folder = workspace.path("dataset/UrbanVideo-Bench/videos");
        fs::create_dir_all(&folder).unwrap();
        for row in &flights[1..] {
            fs::write(folder.join(&row.video_id), &row.video_id).unwrap();
        }
        workspace
    }

    fn write_vsi(&self, rows: &[VsiRow], videos: &[(String, String)]) {
        let annotations = self.path("dataset/VSI-Bench/test-00000-of-00001.parquet");
        vsi::write_parquet(&annotations, rows).unwrap();
        let archive = File::create(self.path("dataset/VSI-Bench/scannet.zip")).unwrap();
        let mut archive = ZipWriter::new(archive);
        for (name, content) in videos {
            archive.start_file(name.as_str(), SimpleFileOptions::default()).unwrap();
            archive.write_all(content.as_bytes()).unwrap();
        }
        archive.finish().unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, args: &[&str]) -> Output {
        let command =
            Command::new(binary()).arg("preprocess").args(args).current_dir(self.0.path()).output();
        command.unwrap()
    }

    fn split(&self, name: &str) -> Vec<Value> {
        let path = self.path(&format!("dataset/complete/{name}_data.json"));
        serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
    }

    fn splits(&self) -> [Vec<Value>; 3] {
        ["train", "val", "test"].map(|name| self.split(name))
    }

    /// Standard error of a run that fails with exit code `code` and one error.
    fn error(&self, args: &[&str], code: i32) -> String {
        let output = self.run(args);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{error}");
        assert!(output.stdout.is_empty());
        assert_eq!(error.matches("error: ").count(), 1, "{error}");
        error
    }
}

fn room(id: i64, scene: &str, category: &str) -> VsiRow {
    let numeric = category == "object_counting";
    VsiRow {
        id,
        dataset: "scannet".into(),
        scene_name: scene.into(),
        question_type: category.into(),
        question: "What comes first?".into(),
        ground_truth: if numeric { "4" } else { "B" }.into(),
        options: (!numeric).then(|| vec!["A. bed".into(), "B. lamp".into()]),
    }
}

fn flight(id: i64, trajectory: i64, clip: i64) -> UrbanRow {
    UrbanRow {
        question_id: id,
        video_id: format!("AerialVLN_0_FLIGHT{trajectory}_{clip}.mp4"),
        question_category: if clip == 0 { "Action Generation" } else { "Goal Detection" }.into(),
        question: "Question: What next?  \nchoose:  \nA. I rise.  \nB. I fly forward.  ".into(),
        answer: "A".into(),
    }
}

fn scenes(split: &[Value]) -> BTreeSet<&str> {
    split.iter().map(|record| record["scene_name"].as_str().unwrap()).collect()
}

#[test]
fn the_tables_count_questions_splits_and_videos() {
    let workspace = Workspace::with_both_benchmarks();
    let output = workspace.run(&[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    insta::assert_snapshot!(String::from_utf8(output.stdout).unwrap(), @r"
    benchmark         category              kept  dropped
    VSI-Bench         obj_appearance_order    20        0
    VSI-Bench         object_counting          0       20
    UrbanVideo-Bench  Action Generation       20        0
    UrbanVideo-Bench  Goal Detection           0       20
    total                                     40       40

    benchmark         split  scenes  questions
    VSI-Bench         train      15         15
    VSI-Bench         val         1          1
    VSI-Bench         test        4          4
    UrbanVideo-Bench  train      15         15
    UrbanVideo-Bench  val         1          1
    UrbanVideo-Bench  test        4          4

    benchmark         videos  new  existing  missing  questions without video
    VSI-Bench             20   20         0        0                        0
    UrbanVideo-Bench      20   19         0        1                        1

    wrote dataset/complete
    ");
}

#[test]
fn records_have_the_official_fields_and_their_videos() {
    let workspace = Workspace::with_both_benchmarks();
    workspace.run(&[]);
    let train = workspace.split("train");
    let record = train[0].as_object().unwrap();
    assert_eq!(
        record.keys().collect::<Vec<_>>(),
        [
            "Question_id",
            "video_id",
            "question_category",
            "question",
            "answer",
            "scene_name",
            "videos"
        ]
    );
    let text = "Question: What comes first?\n\nChoices:\nA. bed\nB. lamp";
    assert_eq!((&record["question"], &record["answer"]), (&text.into(), &"B".into()));
    let video = record["videos"].as_str().unwrap();
    assert!(video.starts_with("dataset/complete/videos/scene"), "{video}");
    assert_eq!(
        fs::read(workspace.path(video)).unwrap(),
        record["scene_name"].as_str().unwrap().as_bytes()
    );
    let flight = train.last().unwrap();
    assert!(flight["scene_name"].as_str().unwrap().starts_with("FLIGHT"));
    let text = "Question: What next?  \nchoose:  \nA. I rise.  \nB. I fly forward.  ";
    assert_eq!(flight["question"], text);
}

#[test]
fn no_scene_is_in_two_splits() {
    let workspace = Workspace::with_both_benchmarks();
    workspace.run(&["--all-categories"]);
    let [train, val, test] = workspace.splits();
    assert_eq!(train.len() + val.len() + test.len(), 80);
    assert_eq!([&train, &val, &test].map(|split| scenes(split).len()), [30, 2, 8]);
    assert!(scenes(&train).is_disjoint(&scenes(&val)));
    assert!(scenes(&train).is_disjoint(&scenes(&test)));
    assert!(scenes(&val).is_disjoint(&scenes(&test)));
}

#[test]
fn the_splits_depend_only_on_the_seed() {
    let workspace = Workspace::with_both_benchmarks();
    let splits = |args: &[&str]| {
        assert!(workspace.run(args).status.success());
        workspace.splits()
    };
    let first = splits(&["--seed", "7"]);
    assert_ne!(splits(&["--seed", "8"]), first);
    assert_eq!(splits(&["--seed", "7"]), first);
}

#[test]
fn each_scene_is_tested_in_one_of_five_folds() {
    let workspace = Workspace::with_both_benchmarks();
    let mut tested = Vec::new();
    for fold in ["0", "1", "2", "3", "4"] {
        assert!(workspace.run(&["--folds", "5", "--fold", fold]).status.success());
        let [train, val, test] = workspace.splits();
        assert!(scenes(&train).is_disjoint(&scenes(&test)));
        assert!(scenes(&val).is_disjoint(&scenes(&test)));
        tested.extend(scenes(&test).into_iter().map(str::to_owned));
    }
    assert_eq!(tested.len(), 40);
    assert_eq!(tested.into_iter().collect::<BTreeSet<_>>().len(), 40);
}

#[test]
fn a_second_run_changes_nothing() {
    let workspace = Workspace::with_both_benchmarks();
    workspace.run(&[]);
    let before = workspace.splits();
    let output = workspace.run(&[]);
    assert!(output.status.success());
    assert_eq!(workspace.splits(), before);
    let names = fs::read_dir(workspace.path("dataset/complete/videos")).unwrap();
    assert_eq!(names.count(), 39);
}

#[test]
fn an_archive_with_entries_outside_its_folder_is_refused_before_anything_is_written() {
    let workspace = Workspace::empty();
    let videos =
        ["scannet/scene0000_00.mp4", "../../../escaped.mp4"].map(|it| (it.into(), "x".into()));
    workspace.write_vsi(&[room(0, "scene0000_00", "route_planning")], &videos);
    let error = workspace.error(&[], 1);
    assert!(error.contains("`../../../escaped.mp4`"), "{error}");
    assert!(error.contains("scannet.zip"), "{error}");
    assert!(!workspace.path("dataset/complete").exists());
    assert!(!workspace.path("escaped.mp4").exists());
}

#[test]
fn a_missing_folder_is_named() {
    let error = Workspace::empty().error(&["--data", "nowhere"], 1);
    assert!(error.starts_with("error: cannot read `nowhere`"), "{error}");
    assert!(error.contains("hint: download"), "{error}");
}

#[test]
fn a_folder_without_benchmarks_is_named_with_a_hint() {
    let error = Workspace::empty().error(&[], 1);
    assert!(error.contains("`dataset/` contains neither"), "{error}");
    assert!(error.contains("hint: download"), "{error}");
    assert!(error.contains("nyu-visionx/VSI-Bench --local-dir dataset/VSI-Bench"), "{error}");
    assert!(error.contains("`--data`"), "{error}");
}

#[test]
fn an_unreadable_annotation_file_is_named() {
    let workspace = Workspace::empty();
    let path = workspace.path("dataset/UrbanVideo-Bench/MCQ.parquet");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    for content in ["", "PAR1", "<html>404</html>"] {
        fs::write(&path, content).unwrap();
        let error = workspace.error(&[], 1);
        assert!(
            error.contains("cannot read the parquet file `dataset/UrbanVideo-Bench/MCQ.parquet`"),
            "{error}"
        );
    }
}

#[test]
fn a_missing_column_and_a_wrong_type_are_named() {
    let texts = |count| Column::Strings(vec!["x".to_owned(); count]);
    let write = |path: &Path, id: (&'static str, Column)| {
        let columns = vec![
            id,
            ("video_id", texts(1)),
            ("question_category", texts(1)),
            ("question", texts(1)),
            ("answer", texts(1)),
        ];
        write_table(path, columns).unwrap();
    };
    let workspace = Workspace::empty();
    let path = workspace.path("dataset/UrbanVideo-Bench/MCQ.parquet");
    write(&path, ("id", Column::Integers(vec![1])));
    let error = workspace.error(&[], 1);
    assert!(error.contains("column `Question_id` is missing"), "{error}");
    assert!(error.contains("id, video_id, question_category"), "{error}");
    write(&path, ("Question_id", texts(1)));
    let error = workspace.error(&[], 1);
    assert!(error.contains("column `Question_id`"), "{error}");
    assert!(error.contains("must contain integers"), "{error}");
}

#[test]
fn a_fold_that_does_not_exist_is_wrong_usage() {
    let workspace = Workspace::with_both_benchmarks();
    let error = workspace.error(&["--folds", "5", "--fold", "5"], 2);
    assert!(error.contains("invalid fold 5 of 5"), "{error}");
    workspace.error(&["--folds", "5"], 2);
    workspace.error(&["--fold", "1"], 2);
}

#[test]
fn without_any_video_the_last_line_and_the_exit_code_say_so() {
    let workspace = Workspace::empty();
    let flights: Vec<_> = (0..40).map(|id| flight(id, id / 2, id % 2)).collect();
    let annotations = workspace.path("dataset/UrbanVideo-Bench/MCQ.parquet");
    urban::write_parquet(&annotations, &flights).unwrap();
    let output = workspace.run(&[]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    let last = text.lines().last().unwrap();
    assert!(last.starts_with("found none of the 20 videos in dataset/: "), "{last}");
    assert!(!workspace.path("dataset/complete/videos").exists());
    let output = workspace.run(&["--annotations-only"]);
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().last(), Some("wrote dataset/complete"));
    assert_eq!(workspace.splits().concat().len(), 20);
    let error = workspace.error(&["--annotations-only", "--videos", "copy"], 2);
    assert!(error.contains("cannot be used with"), "{error}");
}

#[test]
fn a_zip_bomb_is_refused_before_anything_is_written() {
    let workspace = Workspace::empty();
    let video = |content: String| vec![("scannet/scene0000_00.mp4".to_owned(), content)];
    let rooms = [room(0, "scene0000_00", "route_planning")];
    workspace.write_vsi(&rooms, &video("\0".repeat(64 << 20)));
    let error = workspace.error(&[], 1);
    assert!(error.contains("entry `scannet/scene0000_00.mp4` of the archive"), "{error}");
    assert!(error.contains("to 67108864, which no video does"), "{error}");
    assert!(!workspace.path("dataset/complete").exists());
    workspace.write_vsi(&rooms, &video("film".to_owned()));
    assert!(workspace.run(&[]).status.success());
}

#[test]
fn a_link_out_of_the_benchmarks_folder_is_refused_before_anything_is_written() {
    let workspace = Workspace::with_both_benchmarks();
    let secret = workspace.path("secret");
    fs::write(&secret, "secret").unwrap();
    let link = workspace.path("dataset/UrbanVideo-Bench/videos/AerialVLN_0_FLIGHT0_0.mp4");
    std::os::unix::fs::symlink(&secret, &link).unwrap();
    let error = workspace.error(&[], 1);
    assert!(error.contains("AerialVLN_0_FLIGHT0_0.mp4` is a link to `"), "{error}");
    assert!(error.contains("outside `dataset/UrbanVideo-Bench`"), "{error}");
    assert!(!workspace.path("dataset/complete").exists());
}

#[test]
fn a_question_that_occurs_twice_is_refused_before_anything_is_written() {
    let workspace = Workspace::empty();
    // The same id in both benchmarks is none.
    let rooms =
        [room(0, "scene0000_00", "route_planning"), room(1, "scene0000_00", "route_planning")];
    workspace.write_vsi(&rooms, &[("scannet/scene0000_00.mp4".into(), "film".into())]);
    let path = workspace.path("dataset/UrbanVideo-Bench/MCQ.parquet");
    urban::write_parquet(&path, &[flight(0, 0, 0), flight(2, 0, 0), flight(0, 0, 0)]).unwrap();
    let error = workspace.error(&[], 1);
    assert!(
        error.contains("row 2 of `dataset/UrbanVideo-Bench/MCQ.parquet` repeats row 0"),
        "{error}"
    );
    assert!(!workspace.path("dataset/complete").exists());
    urban::write_parquet(&path, &[flight(0, 0, 0), flight(2, 0, 0)]).unwrap();
    assert!(workspace.run(&[]).status.success());
}
