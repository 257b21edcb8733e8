//! Tests of frames and of questions about them.

use std::path::Path as FilePath;

use embodied_r_data::progress::Silent;
use embodied_r_data::question::read_questions;

use super::*;
use crate::geometry::{Octant, wrap};
use crate::question_template::Category;
use crate::rationale_in_prompt;

#[test]
fn an_object_is_where_it_is_sighted() {
    let (width, height) = VIEW_SIZE;
    let mut checked = 0;
    for index in 0..12 {
        let views = views(3, index);
        for frame in 0..views.frames() {
            let with = views.render(frame);
            assert_eq!(with.len(), 3 * width * height);
            for seen in views.sighted(frame) {
                let mut without = views.clone();
                let name = KINDS[seen.class].name;
                // Below the floor it cannot be seen.
                for object in &mut without.scene.objects {
                    if object.name == name {
                        object.center_m[2] = -9.0;
                    }
                }
                let without = without.render(frame);
                let pixels = (0..width * height)
                    .filter(|pixel| with[3 * pixel..][..3] != without[3 * pixel..][..3]);
                let (mut sum, mut count) = ([0.0, 0.0], 0.0);
                for pixel in pixels {
                    sum[0] += (pixel % width) as f64 + 0.5;
                    sum[1] += (pixel / width) as f64 + 0.5;
                    count += 1.0;
                }
                assert!(count > 10.0, "{name}");
                let middle = [sum[0] / count / width as f64, sum[1] / count / height as f64];
                let off = [0, 1].map(|axis| (middle[axis] - seen.at[axis]).abs());
                // A side of a near object is cut off by the border of the frame.
                assert!(off[0] < 0.1 && off[1] < 0.15, "{name}: {middle:?}, {seen:?}");
                checked += 1;
            }
        }
    }
    assert!(checked > 40, "{checked}");
}

#[test]
fn captions_have_images_in_place_of_what_is_in_view() {
    let views = views(1, 2);
    let (captions, images) = (views.captions(), views.with_images());
    assert_eq!((captions.len(), images.len()), (FRAMES, FRAMES));
    for (caption, image) in captions.iter().zip(&images) {
        assert_eq!((&image.action, image.view.as_str()), (&caption.action, IMAGE));
    }
}

#[test]
fn the_frames_answer_every_question() {
    for index in 0..90 {
        let found = view_question(2, index, &VIEW_CATEGORIES).unwrap();
        assert_eq!(found.question.category, VIEW_CATEGORIES[index as usize % 3]);
        let record = found.record(index, &[]);
        assert_eq!(record.question.matches(IMAGE).count(), FRAMES);
        let rationale = rationale_in_prompt(perceived(&record)).unwrap();
        assert_eq!(rationale.answer, found.question.answer);
        assert_eq!(rationale, found.rationale);
    }
    assert!(view_question(2, 0, &[]).is_none());
    assert!(view_question(2, 0, &[Category::AppearanceOrder]).is_none());
}

/// The share of `n` questions of one category that a guess from the text alone answers.
fn guessed(category: Category, n: u64, guess: impl Fn(&ViewQuestion) -> usize) -> f64 {
    let right = (0..n).filter(|&index| {
        let question = view_question(5, index, &[category]).unwrap();
        let answer = question.question.answer as usize - 'A' as usize;
        guess(&question) == answer
    });
    right.count() as f64 / n as f64
}

/// The octant of an option.
fn octant(option: &str) -> Octant {
    let named = |octant: &Octant| octant.direction() == option || octant.action() == option;
    Octant::ALL.into_iter().find(named).unwrap()
}

/// The index of the option whose direction is closest to `to_deg`.
fn closest(question: &ViewQuestion, to_deg: f64) -> usize {
    let off = |option: &String| wrap(octant(option).middle_deg() - to_deg).abs();
    let options = &question.question.options;
    (0..options.len()).min_by(|a, b| off(&options[*a]).total_cmp(&off(&options[*b]))).unwrap()
}

#[test]
fn the_text_does_not_give_a_direction_away() {
    // Four standard deviations of 1,200 fair guesses among four options.
    let chance = 0.2..0.3;
    for category in [Category::LandmarkPosition, Category::ActionGeneration] {
        let yaw =
            |question: &ViewQuestion, frame: usize| question.views.scene.camera[frame].yaw_deg;
        // The middle of what was seen, where the camera looked first, and where it looks last.
        let middle = |question: &ViewQuestion| {
            let turned = wrap(yaw(question, 0) - yaw(question, FRAMES - 1));
            closest(question, turned / 2.0)
        };
        let first = |question: &ViewQuestion| {
            closest(question, wrap(yaw(question, 0) - yaw(question, FRAMES - 1)))
        };
        let last = |question: &ViewQuestion| closest(question, 0.0);
        for share in [
            guessed(category, 1200, middle),
            guessed(category, 1200, first),
            guessed(category, 1200, last),
            guessed(category, 1200, |_| 1),
        ] {
            assert!(chance.contains(&share), "{category}: {share}");
        }
    }
}

#[test]
fn the_text_does_not_give_a_route_away() {
    let step = |question: &ViewQuestion, step: usize| {
        let stem = question.question.stem.split_once(": ").unwrap().1;
        let steps: Vec<&str> = stem.split_once('.').unwrap().0.split(", ").collect();
        question.question.options.iter().position(|option| option == steps[step]).unwrap()
    };
    for at in 0..4 {
        let share = guessed(Category::ProgressEvaluation, 1200, |question| step(question, at));
        assert!((0.2..0.3).contains(&share), "{at}: {share}");
    }
}

fn write(out: &FilePath, categories: &[Category]) -> crate::Result<()> {
    let counts = ViewCounts { train: 4, val: 1, test: 2 };
    write_views(out, counts, 9, &ViewKinds::Choices(categories.to_vec()), &Silent)
}

#[test]
fn a_dataset_has_its_frames_and_no_room_in_two_splits() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &VIEW_CATEGORIES).unwrap();
    let mut scenes = Vec::new();
    for (split, count) in [("train", 4), ("val", 1), ("test", 2)] {
        let path = folder.path().join(format!("{split}_data.json"));
        let questions = read_questions(&path).unwrap();
        assert_eq!(questions.len(), count);
        for question in questions {
            let images = question.extra["images"].as_array().unwrap();
            assert_eq!(images.len(), FRAMES);
            for image in images {
                let image = image::open(folder.path().join(image.as_str().unwrap())).unwrap();
                assert_eq!((image.width(), image.height()), (112, 84));
            }
            scenes.push(question.scene_name.unwrap());
        }
    }
    scenes.dedup();
    assert_eq!(scenes.len(), 7);

    let again = tempfile::tempdir().unwrap();
    write(again.path(), &VIEW_CATEGORIES).unwrap();
    for name in ["train_data.json", "frames/room_00006_3.png"] {
        let read = |folder: &tempfile::TempDir| std::fs::read(folder.path().join(name)).unwrap();
        assert_eq!(read(&folder), read(&again));
    }
}

#[test]
fn a_question_that_points_has_one_frame_and_its_answer_type() {
    let folder = tempfile::tempdir().unwrap();
    let counts = ViewCounts { train: 2, val: 0, test: 0 };
    let kinds = ViewKinds::Pointing(ViewAnswer::ALL.to_vec());
    write_views(folder.path(), counts, 9, &kinds, &Silent).unwrap();
    let questions = read_questions(&folder.path().join("train_data.json")).unwrap();
    let types: Vec<_> = questions.iter().map(|question| &question.extra["answer_type"]).collect();
    assert_eq!(types, ["point", "box"]);
    for question in &questions {
        let [image] = question.extra["images"].as_array().unwrap().as_slice() else { panic!() };
        assert!(folder.path().join(image.as_str().unwrap()).is_file());
        let rationale = question.extra[RATIONALE].as_str().unwrap();
        assert!(perceived(question).contains(rationale.trim_end_matches('.')), "{rationale}");
        assert_eq!(question.question.matches(IMAGE).count(), 1);
    }
    let none = ViewKinds::Pointing(Vec::new());
    let error = write_views(folder.path(), counts, 9, &none, &Silent).unwrap_err();
    assert!(error.to_string().contains("`answers`"), "{error}");
}

#[test]
fn a_category_that_needs_a_video_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let error = write(folder.path(), &[Category::Counterfactual]).unwrap_err();
    assert!(error.to_string().contains("`Counterfactual`"), "{error}");
    let error = write(folder.path(), &[]).unwrap_err();
    assert!(error.to_string().contains("`categories`"), "{error}");
    let none = ViewCounts { train: 0, val: 0, test: 0 };
    let kinds = ViewKinds::Choices(VIEW_CATEGORIES.to_vec());
    let error = write_views(folder.path(), none, 9, &kinds, &Silent).unwrap_err();
    assert!(error.to_string().contains("`questions`"), "{error}");
}
