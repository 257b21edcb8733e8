//! What can be answered without the image: rules, and a classifier trained on the options' text.

use embodied_r_sim::arm;

use super::*;

/// A question's options as a blind rule sees them.
struct Blind {
    options: Vec<String>,
    answer: usize,
    state: Position,
}

fn blind(made: &Questions, kind: Kind, split: Split) -> Vec<Blind> {
    let chosen = made.questions.iter().filter(|it| it.kind == kind && it.split == split);
    let blind = |it: &RobotQuestion| Blind {
        options: it.options.clone(),
        answer: it.answer,
        state: it.start.state,
    };
    chosen.map(blind).collect()
}

/// The option with the highest score; the first of several.
fn best(scores: impl IntoIterator<Item = f64>) -> usize {
    let scores = scores.into_iter().enumerate();
    scores.fold((0, f64::NEG_INFINITY), |best, (i, s)| if s > best.1 { (i, s) } else { best }).0
}

fn accuracy(questions: &[Blind], rule: impl Fn(&Blind) -> usize) -> f64 {
    let right = questions.iter().filter(|it| rule(it) == it.answer).count();
    100.0 * right as f64 / questions.len() as f64
}

/// How far two options are apart: metres, or words that differ.
fn apart(a: &str, b: &str) -> f64 {
    if a.starts_with('[') {
        return distance(parse(a), parse(b));
    }
    let words = |text: &str| text.split([',', ' ']).map(str::to_owned).collect::<BTreeSet<_>>();
    words(a).symmetric_difference(&words(b)).count() as f64
}

fn axes(text: &str) -> f64 {
    text.matches("move").count() as f64
}

const BUCKETS: u64 = 1 << 15;

/// Hashed features: n-grams of an option, its parts, coordinates in bins, its letter, and its rank among the others by
/// distance, length and axes.
fn features(options: &[String], option: usize) -> Vec<usize> {
    let text = &options[option];
    let mut found = vec![format!("letter {option}")];
    let chars: Vec<char> = text.chars().collect();
    for n in 1..5 {
        found.extend(chars.windows(n).map(|gram| gram.iter().collect()));
    }
    found.extend(text.split(", ").map(|part| format!("part {part}")));
    if text.starts_with('[') {
        for (axis, value) in parse(text).iter().enumerate() {
            for bins in [5.0, 10.0, 20.0] {
                found.push(format!("bin {axis} {bins} {}", (value * bins).round()));
            }
        }
    }
    let spread = |one: &String| options.iter().map(|other| apart(one, other)).sum::<f64>();
    let rank = |score: &dyn Fn(&String) -> f64| {
        options.iter().filter(|other| score(other) < score(text)).count()
    };
    found.push(format!("central {}", rank(&spread)));
    found.push(format!("length {}", rank(&|it| it.len() as f64)));
    found.push(format!("axes {}", rank(&|it| axes(it))));
    let bucket = |text: String| {
        let bytes: Vec<u64> = text.bytes().map(u64::from).collect();
        (stream(&bytes) % BUCKETS) as usize
    };
    found.into_iter().map(bucket).collect::<BTreeSet<_>>().into_iter().collect()
}

/// A softmax over the options of a question, linear in their features, trained by gradient descent.
fn train(questions: &[Blind]) -> Vec<f64> {
    let mut weights = vec![0.0; BUCKETS as usize];
    let of = |it: &Blind| (0..4).map(|option| features(&it.options, option)).collect::<Vec<_>>();
    let seen: Vec<_> = questions.iter().map(|it| (of(it), it.answer)).collect();
    for pass in 0..6 {
        for (options, answer) in &seen {
            let odds: Vec<f64> =
                options.iter().map(|features| score(&weights, features).exp()).collect();
            let sum: f64 = odds.iter().sum();
            for (option, features) in options.iter().enumerate() {
                let error = f64::from(u8::from(option == *answer)) - odds[option] / sum;
                for feature in features {
                    weights[*feature] += 0.05 / f64::from(pass + 1) * error;
                }
            }
        }
    }
    weights
}

fn score(weights: &[f64], features: &[usize]) -> f64 {
    features.iter().map(|feature| weights[*feature]).sum()
}

/// The accuracies on the test split of all rules, learned from the training split where they learn.
fn rules(made: &Questions, kind: Kind) -> Vec<(&'static str, f64)> {
    let (train_set, test) = (blind(made, kind, Split::Train), blind(made, kind, Split::Test));
    assert!(train_set.len() >= 1000 && test.len() >= 1000, "{kind:?}: {}", test.len());
    let letter = best((0..4).map(|letter| accuracy(&train_set, |_| letter)));
    let by =
        |score: &dyn Fn(&String) -> f64| accuracy(&test, |it| best(it.options.iter().map(score)));
    let spread =
        |it: &Blind, one: &String| it.options.iter().map(|other| apart(one, other)).sum::<f64>();
    let central = |it: &Blind| best(it.options.iter().map(|one| -spread(it, one)));
    let weights = train(&train_set);
    let scores = |it: &Blind, option| score(&weights, &features(&it.options, option));
    let mut found = vec![
        ("most frequent letter", accuracy(&test, |_| letter)),
        ("longest", by(&|it| it.len() as f64)),
        ("shortest", by(&|it| -(it.len() as f64))),
        ("most central", accuracy(&test, central)),
        ("trained classifier", accuracy(&test, |it| best((0..4).map(|option| scores(it, option))))),
    ];
    if kind == Kind::Movement {
        found.push(("most axes", by(&|it| axes(it))));
        found.push(("fewest axes", by(&|it| -axes(it))));
    } else {
        let answers = train_set.iter().map(|it| parse(&it.options[it.answer]));
        let sum = answers.fold([0.0; 3], |sum, at| [0, 1, 2].map(|axis| sum[axis] + at[axis]));
        let mean = sum.map(|sum| sum / train_set.len() as f64);
        found.push(("nearest to the mean", by(&|it| -distance(parse(it), mean))));
    }
    found
}

/// How many points above chance a rule may be.
const TOLERANCE: f64 = 3.0;

/// Checks all rules on all kinds of questions.
fn no_rule_is_above_chance(demonstrations: &Scripted, options: &QuestionOptions, decimals: usize) {
    let made = made_with(demonstrations, options, decimals);
    for kind in Kind::ALL {
        for (rule, accuracy) in rules(&made, kind) {
            assert!(accuracy <= 25.0 + TOLERANCE, "{kind:?}, {rule}: {accuracy:.1} %");
        }
    }
}

#[test]
fn the_options_alone_do_not_give_the_answer_away() {
    let scripted = Scripted::new(10, 900);
    no_rule_is_above_chance(&scripted, &OPTIONS, 2);
    no_rule_is_above_chance(&scripted, &OPTIONS, 3);
}

#[test]
fn the_options_about_the_simulated_arm_do_not_give_the_answer_away() {
    let simulated = Scripted::simulated(10, 1000);
    let quickstart = QuestionOptions { movement_epsilon: arm::EPSILON_M, ..OPTIONS };
    no_rule_is_above_chance(&simulated, &quickstart, 2);
}

#[test]
fn distractors_in_a_box_give_the_answer_away() {
    let scripted = Scripted::new(10, 500);
    let made = made(&scripted, &QuestionOptions { distractors: Distractors::Box, ..OPTIONS });
    let found = rules(&made, Kind::Waypoint);
    let of = |name: &str| found.iter().find(|(rule, _)| *rule == name).unwrap().1;
    assert!(of("trained classifier") > 45.0, "{found:?}");
    assert!(of("nearest to the mean") > 30.0, "{found:?}");
}

#[test]
fn the_current_state_says_something_about_the_next_waypoint() {
    // Real information, not a leak of the labels; `docs/robot-r1.md` reports it.
    let made = made(&Scripted::new(10, 500), &OPTIONS);
    let test = blind(&made, Kind::Waypoint, Split::Test);
    let away = |it: &Blind, option: &String| distance(parse(option), it.state);
    let nearest = accuracy(&test, |it| best(it.options.iter().map(|option| -away(it, option))));
    println!("waypoint, nearest to the current state: {nearest:.1} %");
    assert!((30.0..80.0).contains(&nearest), "{nearest:.1} %");
}
