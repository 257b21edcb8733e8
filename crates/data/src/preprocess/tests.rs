use super::*;
use crate::progress::Silent;
use crate::question::read_questions;
use crate::urban::UrbanRow;
use crate::vsi::VsiRow;

fn vsi_row(id: i64, scene: &str, category: &str) -> VsiRow {
    let options = crate::vsi::CATEGORIES.contains(&category);
    VsiRow {
        id,
        dataset: "scannet".into(),
        scene_name: scene.into(),
        question_type: category.into(),
        question: "Where?".into(),
        ground_truth: if options { "A".into() } else { "3.5".into() },
        options: options.then(|| vec!["A. here".into(), "B. there".into()]),
    }
}

fn urban_row(id: i64, video: &str, category: &str) -> UrbanRow {
    UrbanRow {
        question_id: id,
        video_id: video.into(),
        question_category: category.into(),
        question: "Question: Why?  \nchoose:  \nA. x  \nB. y  ".into(),
        answer: "B".into(),
    }
}

/// Both benchmarks: 12 rooms and 12 flights of two clips each, plus one numeric question and one of
/// another category.
fn input() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut rooms = vec![vsi_row(100, "scene0000_00", "room_size_estimation")];
    let mut flights = vec![urban_row(100, "EmbodiedCity_0_0.mp4", "Causal")];
    for number in 0..12 {
        rooms.push(vsi_row(number, &format!("scene{number:04}_00"), "route_planning"));
        for clip in 0..2 {
            let video = format!("EmbodiedCity_{number}_{clip}.mp4");
            flights.push(urban_row(number * 2 + clip, &video, "Counterfactual"));
        }
    }
    vsi::write_parquet(&Benchmark::Vsi.annotations(folder.path()), &rooms).unwrap();
    urban::write_parquet(&Benchmark::Urban.annotations(folder.path()), &flights).unwrap();
    let videos = folder.path().join("UrbanVideo-Bench/videos");
    fs::create_dir_all(&videos).unwrap();
    for row in &flights[1..] {
        fs::write(videos.join(&row.video_id), &row.video_id).unwrap();
    }
    folder
}

fn options(input: &Path) -> PreprocessOptions {
    PreprocessOptions {
        input: input.into(),
        output: input.into(),
        videos: Some(Transfer::Link),
        strategy: SplitStrategy::Ratios,
        seed: 0,
        categories: Categories::EmbodiedR,
    }
}

fn parts(folder: &Path) -> [Vec<Question>; 3] {
    Split::ALL.map(|split| {
        read_questions(&folder.join(format!("complete/{}_data.json", split.name()))).unwrap()
    })
}

#[test]
fn every_kept_question_is_in_one_split_and_no_scene_is_in_two() {
    let folder = input();
    let summary = run(&options(folder.path()), &Silent).unwrap();
    let parts = parts(folder.path());
    assert_eq!(summary.kept(), 36);
    assert_eq!(parts.iter().map(Vec::len).sum::<usize>(), 36);
    let scenes = parts.each_ref().map(|part| {
        part.iter()
            .map(|question| question.scene_name.clone().unwrap())
            .collect::<std::collections::BTreeSet<_>>()
    });
    assert_eq!(scenes.each_ref().map(std::collections::BTreeSet::len), [18, 2, 4]);
    assert!(scenes[0].is_disjoint(&scenes[1]) && scenes[0].is_disjoint(&scenes[2]));
    assert!(scenes[1].is_disjoint(&scenes[2]));
}

#[test]
fn a_record_has_the_fields_of_the_official_files() {
    let folder = input();
    run(&options(folder.path()), &Silent).unwrap();
    let train = fs::read_to_string(folder.path().join("complete/train_data.json")).unwrap();
    let train: Vec<serde_json::Map<String, serde_json::Value>> =
        serde_json::from_str(&train).unwrap();
    let flight = train.last().unwrap();
    let fields: Vec<_> = flight.keys().map(String::as_str).collect();
    let expected = ["Question_id", "video_id", "question_category", "question", "answer"];
    assert_eq!(fields[..5], expected);
    assert_eq!(fields[5..], ["scene_name", "videos"]);
    let video = flight["videos"].as_str().unwrap();
    assert!(video.ends_with(&format!("complete/videos/{}", flight["video_id"].as_str().unwrap())));
    assert_eq!(fs::read_to_string(video).unwrap(), flight["video_id"].as_str().unwrap());
}

#[test]
fn the_summary_file_keeps_its_keys() {
    let folder = input();
    run(&options(folder.path()), &Silent).unwrap();
    let text = fs::read_to_string(folder.path().join("complete/summary.json")).unwrap();
    let summary: serde_json::Value = serde_json::from_str(&text).unwrap();
    for (key, value) in [("plan", "shares"), ("videos", "link"), ("categories", "embodiedr")] {
        assert_eq!(summary["options"][key], value);
    }
    for key in ["categories", "splits", "videos"] {
        assert!(summary[key].is_array(), "{key}");
    }
}

#[test]
fn questions_without_video_are_kept_and_counted() {
    let folder = input();
    let summary = run(&options(folder.path()), &Silent).unwrap();
    let [vsi, urban] = &summary.videos[..] else { panic!("{summary:?}") };
    assert_eq!((vsi.videos, vsi.placed, vsi.missing.len(), vsi.questions_without), (12, 0, 12, 12));
    assert_eq!((urban.videos, urban.placed, urban.missing.len()), (24, 24, 0));
}

#[test]
fn a_second_run_writes_the_same_files_and_places_no_videos() {
    let folder = input();
    let first = run(&options(folder.path()), &Silent).unwrap();
    let before = parts(folder.path());
    let second = run(&options(folder.path()), &Silent).unwrap();
    assert_eq!(parts(folder.path()), before);
    assert_eq!((first.videos[1].placed, first.videos[1].already), (24, 0));
    assert_eq!((second.videos[1].placed, second.videos[1].already), (0, 24));
}

#[test]
fn a_second_run_after_a_move_finds_the_videos_at_their_new_path() {
    let folder = input();
    let moving = PreprocessOptions { videos: Some(Transfer::Move), ..options(folder.path()) };
    run(&moving, &Silent).unwrap();
    assert!(!folder.path().join("UrbanVideo-Bench/videos/EmbodiedCity_3_0.mp4").exists());
    let summary = run(&moving, &Silent).unwrap();
    assert_eq!((summary.videos[1].already, summary.videos[1].missing.len()), (24, 0));
}

#[test]
fn linking_and_copying_leave_the_input_unchanged() {
    for videos in [Transfer::Link, Transfer::Copy].map(Some) {
        let (folder, out) = (input(), tempfile::tempdir().unwrap());
        let kept =
            PreprocessOptions { videos, output: out.path().into(), ..options(folder.path()) };
        run(&kept, &Silent).unwrap();
        let left = fs::read_dir(folder.path().join("UrbanVideo-Bench/videos")).unwrap();
        assert_eq!(left.count(), 24);
        assert!(!folder.path().join("complete").exists());
    }
}

#[test]
fn all_categories_adds_the_numeric_questions() {
    let folder = input();
    let all = PreprocessOptions { categories: Categories::All, ..options(folder.path()) };
    let summary = run(&all, &Silent).unwrap();
    assert_eq!(summary.kept(), 38);
    let numeric = parts(folder.path())
        .concat()
        .into_iter()
        .find(|question| question.question_category == "room_size_estimation")
        .unwrap();
    assert_eq!((numeric.question.as_str(), numeric.answer.as_str()), ("Question: Where?", "3.5"));
}

#[test]
fn the_split_of_a_scene_does_not_depend_on_the_kept_categories() {
    let folder = input();
    let path = Benchmark::Vsi.annotations(folder.path());
    let mut rooms = vsi::read_parquet(&path).unwrap();
    rooms
        .extend((20..40).map(|number| {
            vsi_row(number, &format!("scene{number:04}_00"), "room_size_estimation")
        }));
    vsi::write_parquet(&path, &rooms).unwrap();
    let scenes = || {
        parts(folder.path()).map(|part| {
            let kept = part.into_iter().filter(|it| it.question_category == "route_planning");
            kept.map(|question| question.scene_name.unwrap()).collect::<Vec<_>>()
        })
    };
    run(&options(folder.path()), &Silent).unwrap();
    let few = scenes();
    run(&PreprocessOptions { categories: Categories::All, ..options(folder.path()) }, &Silent)
        .unwrap();
    assert_eq!(scenes(), few);
}

#[test]
fn dropped_questions_are_counted_by_category() {
    let folder = input();
    let summary = run(&options(folder.path()), &Silent).unwrap();
    let counts: Vec<_> = summary
        .categories
        .iter()
        .map(|count| (count.category.as_str(), count.kept, count.dropped))
        .collect();
    assert_eq!(
        counts,
        [
            ("room_size_estimation", 0, 1),
            ("route_planning", 12, 0),
            ("Causal", 0, 1),
            ("Counterfactual", 24, 0)
        ]
    );
}

#[test]
fn either_benchmark_alone_is_enough() {
    for gone in ["VSI-Bench", "UrbanVideo-Bench"] {
        let folder = input();
        fs::remove_dir_all(folder.path().join(gone)).unwrap();
        fs::create_dir(folder.path().join(gone)).unwrap();
        let summary = run(&options(folder.path()), &Silent).unwrap();
        assert_eq!(summary.videos.len(), 1, "without {gone}");
    }
}

#[test]
fn each_scene_is_in_the_test_split_of_one_fold() {
    let mut tested = Vec::new();
    let folder = input();
    for fold in 0..5 {
        let strategy = SplitStrategy::fold(fold, 5).unwrap();
        run(&PreprocessOptions { strategy, ..options(folder.path()) }, &Silent).unwrap();
        let [_, _, test] = parts(folder.path());
        tested.extend(test.into_iter().map(|question| question.video_id.unwrap()));
    }
    tested.sort_unstable();
    tested.dedup();
    assert_eq!(tested.len(), 36);
}

#[test]
fn the_fold_of_a_question_file_is_read_from_the_summary_beside_it() {
    let folder = input();
    let test = folder.path().join("complete/test_data.json");
    assert_eq!(strategy_of(&test), None);
    for strategy in [SplitStrategy::Fold { fold: 1, folds: 4 }, SplitStrategy::Ratios] {
        run(&PreprocessOptions { strategy, ..options(folder.path()) }, &Silent).unwrap();
        assert_eq!(strategy_of(&test), Some(strategy));
    }
    fs::write(folder.path().join("complete/summary.json"), "{\"of\": \"another program\"}")
        .unwrap();
    assert_eq!(strategy_of(&test), None);
}

#[test]
fn a_folder_without_benchmark_or_annotations_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let error = |path: &Path| run(&options(path), &Silent).unwrap_err();
    assert!(matches!(error(folder.path()), Error::NoBenchmark { .. }));
    assert!(matches!(error(&folder.path().join("none")), Error::Io { .. }));
    fs::create_dir_all(folder.path().join("VSI-Bench")).unwrap();
    fs::write(folder.path().join("VSI-Bench/scannet.zip"), "").unwrap();
    let message = error(folder.path()).to_string();
    assert!(message.contains("VSI-Bench/test-00000-of-00001.parquet"), "{message}");
}

#[test]
fn invalid_input_leaves_the_previous_output_intact() {
    let folder = input();
    run(&options(folder.path()), &Silent).unwrap();
    let before = parts(folder.path());
    fs::write(Benchmark::Vsi.annotations(folder.path()), "damaged").unwrap();
    assert!(matches!(run(&options(folder.path()), &Silent), Err(Error::Parquet { .. })));
    assert_eq!(parts(folder.path()), before);
}

#[test]
fn a_video_of_both_benchmarks_is_an_error() {
    let folder = input();
    let rows = [vsi_row(0, "EmbodiedCity_3_0", "route_planning")];
    vsi::write_parquet(&Benchmark::Vsi.annotations(folder.path()), &rows).unwrap();
    let error = run(&options(folder.path()), &Silent).unwrap_err();
    assert!(matches!(error, Error::SharedVideo { video_id } if video_id == "EmbodiedCity_3_0.mp4"));
}

#[test]
fn a_question_that_occurs_twice_is_refused_with_both_rows() {
    let folder = input();
    let row = |id| urban_row(id, "EmbodiedCity_0_0.mp4", "Counterfactual");
    let path = Benchmark::Urban.annotations(folder.path());
    urban::write_parquet(&path, &[row(7), row(8), row(7)]).unwrap();
    let error = run(&options(folder.path()), &Silent).unwrap_err().to_string();
    assert!(error.starts_with("row 2 of `") && error.contains("repeats row 0"), "{error}");
    assert!(error.contains("`EmbodiedCity_0_0.mp4`, `Question_id` `7`"), "{error}");
    assert!(!folder.path().join("complete").exists());
}

#[test]
fn without_questions_nothing_is_created() {
    let folder = input();
    fs::remove_dir_all(folder.path().join("UrbanVideo-Bench")).unwrap();
    for rows in [vec![], vec![vsi_row(1, "scene0000_00", "room_size_estimation")]] {
        vsi::write_parquet(&Benchmark::Vsi.annotations(folder.path()), &rows).unwrap();
        let error = run(&options(folder.path()), &Silent).unwrap_err();
        assert!(matches!(error, Error::NothingKept { .. }), "{error}");
        assert!(!folder.path().join("complete").exists());
    }
}

#[test]
fn annotations_alone_are_written_without_a_look_at_the_videos() {
    let folder = input();
    let kept = PreprocessOptions { videos: None, ..options(folder.path()) };
    fs::write(folder.path().join("UrbanVideo-Bench/bad.zip"), "no archive").unwrap();
    let summary = run(&kept, &Silent).unwrap();
    assert_eq!((summary.kept(), summary.videos_present()), (36, 0));
    assert!(!folder.path().join("complete/videos").exists());
}
