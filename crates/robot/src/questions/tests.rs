use std::collections::BTreeSet;

use super::*;
use crate::prompt::PromptStyle;
use crate::robot::Robot;
use crate::scripted::{Scripted, TASKS};

mod blind;

const OPTIONS: QuestionOptions = QuestionOptions {
    stride: 10,
    form: AnswerForm::MultipleChoice,
    distractors: Distractors::Keypoints,
    min_distance: 0.05,
    movement_epsilon: 0.0,
    balance_kinds: false,
    seed: 0,
};

fn made(scripted: &Scripted, options: &QuestionOptions) -> Questions {
    made_with(scripted, options, 3)
}

/// Every second episode of a task is for training, the others are for testing.
fn made_with(scripted: &Scripted, options: &QuestionOptions, decimals: usize) -> Questions {
    let robot = Robot::default();
    let prompts = Prompts { robot: &robot, style: PromptStyle::Paper, decimals };
    let split = |episode: usize| match episode / TASKS.len() % 2 {
        0 => Split::Train,
        _ => Split::Test,
    };
    questions(&scripted.sources(split), &prompts, options).unwrap()
}

fn parse(text: &str) -> Position {
    let values: Vec<f64> = serde_json::from_str(text).unwrap();
    values.try_into().unwrap()
}

#[test]
fn the_answer_is_what_is_asked_for() {
    let robot = Robot::default();
    let prompts = Prompts { robot: &robot, style: PromptStyle::Paper, decimals: 3 };
    let scripted = Scripted::new(1, 40);
    for question in made(&scripted, &OPTIONS).questions {
        let StartFrame { source, frame, key_point, state, target, movement } = question.start;
        let positions = &scripted.demonstrations[source].positions;
        assert_eq!((state, target), (positions[frame], positions[key_point]));
        let expected = match question.kind {
            Kind::Waypoint => prompts.position(target),
            Kind::State => prompts.position(state),
            Kind::Movement => movement.unwrap().text(&robot, prompts.wording()),
        };
        assert_eq!(question.options[question.answer], expected);
    }
}

#[test]
fn options_are_at_least_the_minimum_distance_apart() {
    let scripted = Scripted::new(2, 40);
    for distractors in [Distractors::Keypoints, Distractors::Box] {
        let made = made(&scripted, &QuestionOptions { distractors, ..OPTIONS });
        for question in made.questions.iter().filter(|it| it.kind != Kind::Movement) {
            let points: Vec<Position> = question.options.iter().map(|text| parse(text)).collect();
            for a in 0..4 {
                for b in a + 1..4 {
                    assert!(distance(points[a], points[b]) >= 0.05, "{:?}", question.options);
                }
            }
        }
    }
}

#[test]
fn distractors_are_key_points_or_states_of_the_same_task_and_split() {
    let scripted = Scripted::new(3, 60);
    let made = made(&scripted, &OPTIONS);
    let pool = |question: &RobotQuestion| {
        let task = scripted.demonstrations[question.start.source].task(question.start.frame);
        let key = (question.split, question.kind, task.to_owned());
        (key, question.options[question.answer].clone())
    };
    let mut answers: BTreeMap<_, BTreeSet<String>> = BTreeMap::new();
    for (key, answer) in made.questions.iter().map(pool) {
        answers.entry(key).or_default().insert(answer);
    }
    for question in made.questions.iter().filter(|it| it.kind != Kind::Movement) {
        let of_task = &answers[&pool(question).0];
        assert!(question.options.iter().all(|option| of_task.contains(option)));
    }
}

#[test]
fn letters_are_balanced() {
    let scripted = Scripted::new(4, 60);
    for distractors in [Distractors::Keypoints, Distractors::Box] {
        let made = made(&scripted, &QuestionOptions { distractors, ..OPTIONS });
        for kind in Kind::ALL {
            let of_kind: Vec<usize> =
                made.questions.iter().filter(|it| it.kind == kind).map(|it| it.answer).collect();
            for letter in 0..4 {
                let share = of_kind.iter().filter(|it| **it == letter).count() as f64 * 4.0;
                // Blocks have each letter once; others have each as often as any, but for a remainder per pool.
                let tolerance = match (distractors, kind) {
                    (Distractors::Keypoints, Kind::Waypoint | Kind::State) => 0.0,
                    _ => 40.0,
                };
                assert!((share - of_kind.len() as f64).abs() <= tolerance, "{kind:?} {letter}");
            }
        }
    }
}

#[test]
fn questions_follow_from_the_seed() {
    let scripted = Scripted::new(5, 40);
    assert_eq!(made(&scripted, &OPTIONS), made(&scripted, &OPTIONS));
    assert_ne!(made(&scripted, &OPTIONS), made(&scripted, &QuestionOptions { seed: 1, ..OPTIONS }));
}

#[test]
fn most_start_frames_have_questions_and_the_others_are_counted() {
    let scripted = Scripted::new(6, 200);
    let made = made(&scripted, &OPTIONS);
    let starts: usize = scripted
        .sources(|_| Split::Train)
        .iter()
        .map(|source| start_frames(source.key_points, 10).count())
        .sum();
    for (kind, least) in [(Kind::Waypoint, 0.9), (Kind::State, 0.9), (Kind::Movement, 0.3)] {
        let counts: Vec<&Count> =
            made.counts.iter().filter(|((_, other), _)| *other == kind).map(|(_, it)| it).collect();
        let questions: usize = counts.iter().map(|count| count.questions).sum();
        let left_out: usize = counts.iter().map(|count| count.left_out).sum();
        assert_eq!(questions + left_out, starts, "{kind:?}");
        assert!(questions as f64 >= least * starts as f64, "{kind:?}: {questions} of {starts}");
        assert_eq!(questions, made.questions.iter().filter(|it| it.kind == kind).count());
    }
}

#[test]
fn a_start_frame_has_one_question_of_a_kind() {
    let made = made(&Scripted::new(13, 100), &OPTIONS);
    let key = |it: &RobotQuestion| (it.kind, it.start.source, it.start.frame);
    let asked: BTreeSet<_> = made.questions.iter().map(key).collect();
    assert_eq!(asked.len(), made.questions.len());
}

#[test]
fn each_option_of_a_set_is_the_answer_equally_often_in_training() {
    let made = made(&Scripted::new(14, 100), &OPTIONS);
    let mut answers: BTreeMap<Vec<&String>, BTreeMap<&String, usize>> = BTreeMap::new();
    let is_of_training =
        |it: &&RobotQuestion| it.kind == Kind::Movement && it.split == Split::Train;
    for question in made.questions.iter().filter(is_of_training) {
        let mut set: Vec<&String> = question.options.iter().collect();
        set.sort_unstable();
        *answers.entry(set).or_default().entry(&question.options[question.answer]).or_default() +=
            1;
    }
    assert!(!answers.is_empty());
    for (set, counts) in answers {
        let counts: Vec<usize> = counts.into_values().collect();
        assert_eq!(counts, [counts[0]; 4], "{set:?}");
    }
}

#[test]
fn movement_options_differ_by_two_edits() {
    let robot = Robot::default();
    let scripted = Scripted::new(11, 100);
    for question in
        made(&scripted, &OPTIONS).questions.iter().filter(|it| it.kind == Kind::Movement)
    {
        let movement = question.start.movement.unwrap();
        let text = |it: Movement| it.text(&robot, crate::Wording::Sentence);
        let sets = movement.option_sets().into_iter().map(|set| set.map(text).into());
        let shown: BTreeSet<String> = question.options.iter().cloned().collect();
        assert!(sets.into_iter().any(|set: BTreeSet<String>| set == shown), "{shown:?}");
    }
}

#[test]
fn small_splits_and_held_out_tasks_have_movement_questions_too() {
    let scripted = Scripted::new(12, 200);
    let robot = Robot::default();
    let prompts = Prompts { robot: &robot, style: PromptStyle::Paper, decimals: 3 };
    let split = |episode: usize| match (episode % 5, episode % 40) {
        (4, _) => Split::HeldOut,
        (_, 0..4) => Split::Val,
        _ => Split::Train,
    };
    let made = questions(&scripted.sources(split), &prompts, &OPTIONS).unwrap();
    for split in [Split::Train, Split::Val, Split::HeldOut] {
        let Count { questions, left_out, .. } = made.counts[&(split, Kind::Movement)];
        assert!(questions * 10 >= (questions + left_out) * 3, "{split:?}: {questions}, {left_out}");
    }
}

#[test]
fn balanced_kinds_are_as_many_of_each_in_each_split_in_whole_blocks() {
    let scripted = Scripted::new(15, 200);
    let all = made(&scripted, &OPTIONS);
    let balanced = made(&scripted, &QuestionOptions { balance_kinds: true, ..OPTIONS });
    for split in [Split::Train, Split::Test] {
        let of = |kind| (all.counts[&(split, kind)], balanced.counts[&(split, kind)]);
        let rarest = Kind::ALL.map(|kind| of(kind).0.questions).into_iter().min().unwrap() / 4 * 4;
        assert!(rarest > 100, "{rarest}");
        for kind in Kind::ALL {
            let (before, after) = of(kind);
            assert_eq!((after.questions, after.left_out), (rarest, before.left_out));
            assert_eq!(after.surplus, before.questions - rarest);
            let kept = balanced.questions.iter().filter(|it| (it.split, it.kind) == (split, kind));
            let letters: Vec<usize> = kept.clone().map(|it| it.answer).collect();
            let of_letter = |letter| letters.iter().filter(|it| **it == letter).count();
            assert_eq!([0, 1, 2, 3].map(of_letter), [rarest / 4; 4]);
            if kind != Kind::Movement || split == Split::Train {
                let mut answers: BTreeMap<Vec<&String>, BTreeMap<&String, usize>> = BTreeMap::new();
                for question in kept {
                    let mut set: Vec<&String> = question.options.iter().collect();
                    set.sort_unstable();
                    let answer = &question.options[question.answer];
                    *answers.entry(set).or_default().entry(answer).or_default() += 1;
                }
                let is_even = |of: &BTreeMap<_, usize>| {
                    of.len() == 4 && of.values().all(|n| *n == of.values().copied().min().unwrap())
                };
                assert!(answers.values().all(is_even), "{split:?} {kind:?}");
            }
        }
    }
}

/// Five tasks with 50 demonstrations each, as in the paper.
#[test]
fn the_papers_movement_labels_leave_few_start_frames_without_a_question() {
    let scripted = Scripted::simulated(1, 250);
    let share = |movement_epsilon| {
        let made = made(&scripted, &QuestionOptions { movement_epsilon, ..OPTIONS });
        let of = made.counts.iter().filter(|((_, kind), _)| *kind == Kind::Movement);
        let (asked, left_out) =
            of.fold((0, 0), |(a, b), (_, count)| (a + count.questions, b + count.left_out));
        asked as f64 / (asked + left_out) as f64
    };
    let (paper, epsilon) = (share(0.0), share(0.005));
    assert!(paper > 0.8 && paper > 2.0 * epsilon, "{paper} {epsilon}");
}

#[test]
fn open_ended_questions_are_about_all_start_frames() {
    let scripted = Scripted::new(7, 10);
    let made = made(&scripted, &QuestionOptions { form: AnswerForm::OpenEnded, ..OPTIONS });
    assert!(made.questions.iter().all(|it| it.options.is_empty() && it.kind != Kind::Movement));
    assert!(made.counts.values().all(|count| count.left_out == 0 && count.questions > 0));
}

#[test]
fn a_workspace_without_room_is_an_error() {
    let scripted = Scripted::new(8, 4);
    let robot = Robot::default();
    let prompts = Prompts { robot: &robot, style: PromptStyle::Paper, decimals: 3 };
    let options = QuestionOptions { distractors: Distractors::Box, min_distance: 3.0, ..OPTIONS };
    let error = questions(&scripted.sources(|_| Split::Train), &prompts, &options).unwrap_err();
    assert!(error.to_string().starts_with("`--min-distance` leaves no room"), "{error}");
}

#[test]
fn answers_that_never_differ_are_an_error() {
    let scripted = Scripted::new(9, 2);
    let robot = Robot::default();
    let prompts = Prompts { robot: &robot, style: PromptStyle::Paper, decimals: 3 };
    let options = QuestionOptions { min_distance: 9.0, stride: 1000, ..OPTIONS };
    let error = questions(&scripted.sources(|_| Split::Train), &prompts, &options).unwrap_err();
    assert!(matches!(error, Error::NoQuestions { .. }), "{error}");
}
