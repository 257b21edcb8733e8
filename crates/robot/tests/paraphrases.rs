//! The rules of the bench on paraphrases of movements, scored by hand from the definitions in `docs/robot-r1.md` before
//! their author had read the rules.

#![allow(clippy::unwrap_used)]

use embodied_r_robot::bench::{Facts, exact_score};
use serde::Deserialize;

/// What `robot bench` takes by default, in metres.
const EPSILON: f64 = 0.005;

/// The least agreement, of 40, and of 20 that are held out.
const LEAST: [usize; 2] = [40, 20];

/// Where the rules differ from the scores.
const MISSES: [&str; 0] = [];

/// An answer about a true movement, with its score.
#[derive(Deserialize)]
struct Paraphrase {
    #[serde(flatten)]
    facts: Facts,
    answer: String,
    score: u8,
    /// Scored once, after the rules were changed.
    held_out: bool,
}

/// The number of paraphrases, and the answers that the rules score otherwise.
fn misses(held_out: bool) -> (usize, Vec<String>) {
    let read = |line: &str| serde_json::from_str::<Paraphrase>(line).unwrap();
    let all = include_str!("paraphrases.jsonl").lines().map(read);
    let all: Vec<Paraphrase> = all.filter(|it| it.held_out == held_out).collect();
    let count = all.len();
    let is_miss = |it: &Paraphrase| exact_score(&it.facts, &it.answer, EPSILON) != it.score;
    (count, all.into_iter().filter(is_miss).map(|it| it.answer).collect())
}

#[test]
fn the_rules_agree_with_the_scores_except_for_known_misses() {
    let (count, misses) = misses(false);
    assert!(count - misses.len() >= LEAST[0], "{misses:?}");
    assert_eq!(misses, MISSES);
}

#[test]
fn the_rules_agree_with_held_out_scores() {
    let (count, misses) = misses(true);
    assert!(count - misses.len() >= LEAST[1], "{misses:?}");
}
