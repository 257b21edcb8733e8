//! Lists and small imagined videos, and what they say asked for again and again.
//!
//! To look a thing up by its name is the first that reasoning needs and the last that a small
//! decoder learns: only texts that do little else make it emerge within minutes.

use embodied_r_data::prompts::{FrameText, lines};
use embodied_r_data::scene::{Seen, view_text};

use super::Document;
use super::choices::Choices;
use super::lookups::Statements;
use crate::catalogue::KINDS;
use crate::geometry::wrap_whole;
use crate::rng::Rng;
use crate::trace::{Trace, bearing_text};

/// How often what was listed is asked for.
const ROUNDS: usize = 4;

/// As [`any`], but mostly the plainest lists.
pub(super) fn plain(rng: &mut Rng) -> Document {
    if rng.chance(0.5) { bearings(rng) } else { any(rng) }
}

/// A random list or imagined video with lookups.
pub(super) fn any(rng: &mut Rng) -> Document {
    match rng.below(6) {
        0 => bearings(rng),
        1 => frames(rng),
        2 => letters(rng),
        _ => imagined(rng),
    }
}

fn names(rng: &mut Rng, least: usize, most: usize) -> Vec<String> {
    let count = least + rng.below(most - least + 1);
    rng.sample(&KINDS, count).into_iter().map(|kind| kind.name.to_owned()).collect()
}

/// Within the view of a camera, in steps of ten degrees.
fn bearing(rng: &mut Rng) -> i32 {
    10 * rng.below(9) as i32 - 40
}

/// `items` in random order, several times over, `separator` between them.
fn asked(rng: &mut Rng, items: &[String], separator: &str) -> String {
    let rounds: Vec<String> =
        (0..ROUNDS).map(|_| rng.sample(items, items.len()).join(separator)).collect();
    rounds.join("\n")
}

/// `lamp left 30; bed ahead`, then the same pairs.
fn bearings(rng: &mut Rng) -> Document {
    let items: Vec<String> = names(rng, 2, 12)
        .into_iter()
        .map(|name| format!("{name} {}", bearing_text(bearing(rng))))
        .collect();
    Document { context: items.join("; "), statements: asked(rng, &items, ". ") }
}

/// `Frame 0: lamp`, then `frame 0: lamp.`
fn frames(rng: &mut Rng) -> Document {
    let names = names(rng, 2, 8);
    let listed: Vec<String> =
        names.iter().enumerate().map(|(frame, name)| format!("Frame {frame}: {name}")).collect();
    let told: Vec<String> =
        names.iter().enumerate().map(|(frame, name)| format!("frame {frame}: {name}.")).collect();
    Document { context: listed.join("\n"), statements: asked(rng, &told, " ") }
}

/// Lettered choices, then `choices: lamp A, bed B. so bed B.`
fn letters(rng: &mut Rng) -> Document {
    let choices = Choices::of_anything(rng);
    let told: Vec<String> = (0..ROUNDS).map(|_| choices.told(rng)).collect();
    Document { context: choices.listed(), statements: told.join("\n") }
}

/// The captions of a short video that nobody could film, and one kind of lookups in it.
fn imagined(rng: &mut Rng) -> Document {
    let pool = names(rng, 3, 6);
    let count = 2 + rng.below(4);
    let captions: Vec<FrameText> = (0..count)
        .map(|frame| {
            let many = 1 + rng.below(2);
            let seen: Vec<Seen> = rng
                .sample(&pool, many)
                .into_iter()
                .map(|name| Seen {
                    name,
                    bearing_deg: bearing(rng),
                    distance_m: 1 + rng.below(5) as u32,
                })
                .collect();
            FrameText { action: (frame > 0).then(|| rotation(rng)), view: view_text(&seen) }
        })
        .collect();
    let context = lines(&captions);
    let statements = Trace::from_captions(&captions)
        .map(|trace| Statements::new(&pool, &trace).of_one_kind(rng))
        .unwrap_or_default();
    if rng.chance(0.5) {
        return Document { context, statements };
    }
    let choices = Choices::of(&pool, rng);
    Document {
        context: format!("{context}\n{}", choices.listed()),
        statements: [choices.told(rng), statements, choices.told(rng)].join("\n"),
    }
}

/// `rotate left 60`
fn rotation(rng: &mut Rng) -> String {
    let turn = wrap_whole(30 * (1 + rng.below(11)) as i32);
    let side = if turn > 0 { "left" } else { "right" };
    format!("rotate {side} {}", turn.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_of_a_list_is_in_it() {
        let mut rng = Rng::new(&[1]);
        for _ in 0..100 {
            let Document { context, statements } = bearings(&mut rng);
            let listed: Vec<&str> = context.split("; ").collect();
            for told in statements.lines().flat_map(|line| line.split(". ")) {
                assert!(listed.contains(&told), "{told} in {context}");
            }
            let Document { context, statements } = frames(&mut rng);
            for told in statements.lines().flat_map(|line| line.split_inclusive('.')) {
                let told = told.trim().trim_end_matches('.');
                let line = told.replacen("frame", "Frame", 1);
                assert!(context.lines().any(|listed| listed == line), "{line} in {context}");
            }
        }
    }

    #[test]
    fn an_imagined_video_is_told_in_the_words_of_captions() {
        let mut rng = Rng::new(&[2]);
        for _ in 0..100 {
            let Document { context, statements } = imagined(&mut rng);
            assert!(context.starts_with("Frame 0: Observe: "), "{context}");
            assert!(statements.split_whitespace().count() > 10, "{statements}");
        }
    }
}
