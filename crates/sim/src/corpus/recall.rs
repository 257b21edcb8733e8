//! Recall documents: lists and small synthetic videos followed by repeated lookups.
//!
//! Lookup by name (induction) is the basis of the rationales and the skill that a small decoder
//! learns last; it emerges within minutes only if there is nothing else to learn.

use embodied_r_data::prompts::{FrameText, frame_lines};
use embodied_r_data::scene::{VisibleObject, view_text};

use super::Document;
use super::choices::Choices;
use super::statements::Statements;
use crate::caption_trace::{CaptionTrace, bearing_text};
use crate::catalogue::KINDS;
use crate::geometry::wrap_whole;
use crate::question_template::letter;
use crate::rng::Rng;

/// Number of times the listed items are repeated.
const ROUNDS: usize = 4;

/// A random list or synthetic video with lookups.
pub(super) fn any(rng: &mut Rng) -> Document {
    match rng.below(6) {
        0 => pairs(rng),
        1 => frames(rng),
        2 => letters(rng),
        _ => synthetic_video(rng),
    }
}

fn names(rng: &mut Rng, least: usize, most: usize) -> Vec<String> {
    let count = least + rng.below(most - least + 1);
    rng.sample(&KINDS, count).into_iter().map(|kind| kind.name.to_owned()).collect()
}

/// A random bearing within the field of view, in steps of ten degrees.
fn bearing(rng: &mut Rng) -> i32 {
    10 * rng.below(9) as i32 - 40
}

/// `items` in random order, [`ROUNDS`] times, joined by `separator`.
fn repeated(rng: &mut Rng, items: &[String], separator: &str) -> String {
    let rounds: Vec<String> =
        (0..ROUNDS).map(|_| rng.sample(items, items.len()).join(separator)).collect();
    rounds.join("\n")
}

/// `lamp left 30; bed ahead` or `lamp B; bed A`, then the same pairs.
pub(super) fn pairs(rng: &mut Rng) -> Document {
    let letters = rng.chance(0.5);
    let items: Vec<String> = names(rng, 2, 12)
        .into_iter()
        .map(|name| match letters {
            true => format!("{name} {}", letter(rng.below(4))),
            false => format!("{name} {}", bearing_text(bearing(rng))),
        })
        .collect();
    Document { context: items.join("; "), statements: repeated(rng, &items, ". ") }
}

/// The captions of a video in which every object is visible once, then first and last sights of
/// some; half of the documents also have choices and their letters.
pub(super) fn sights(rng: &mut Rng) -> Document {
    let names = names(rng, 2, 10);
    let mut captions: Vec<FrameText> = Vec::new();
    let mut left = names.as_slice();
    while !left.is_empty() {
        let (seen, rest) = left.split_at(1 + rng.below(left.len().min(4)));
        let seen: Vec<VisibleObject> =
            seen.iter().map(|name| at_random_position(name, rng)).collect();
        let action = (!captions.is_empty()).then(|| rotation(rng));
        captions.push(FrameText { action, view: view_text(&seen) });
        left = rest;
    }
    captioned(
        &captions,
        &names,
        |all, rng| all.by_name(rng),
        rng,
        |choices, statements, rng| [choices.with_all_letters(ROUNDS, rng), statements].join("\n"),
    )
}

/// A document of captions and statements about them. Half of the documents also have choices, which
/// `with` combines with the statements.
fn captioned(
    captions: &[FrameText],
    names: &[String],
    statements: fn(&Statements<'_>, &mut Rng) -> String,
    rng: &mut Rng,
    with: fn(&Choices, String, &mut Rng) -> String,
) -> Document {
    let context = frame_lines(captions);
    let statements = CaptionTrace::from_captions(captions)
        .map(|trace| statements(&Statements::new(names, &trace), rng))
        .unwrap_or_default();
    if rng.chance(0.5) {
        return Document { context, statements };
    }
    let choices = Choices::of(names, rng);
    Document {
        context: format!("{context}\n{}", choices.listed()),
        statements: with(&choices, statements, rng),
    }
}

/// `name` at a random bearing and distance.
fn at_random_position(name: &str, rng: &mut Rng) -> VisibleObject {
    VisibleObject {
        name: name.to_owned(),
        bearing_deg: bearing(rng),
        distance_m: 1 + rng.below(5) as u32,
    }
}

/// `Frame 0: lamp`, then `frame 0: lamp.`
fn frames(rng: &mut Rng) -> Document {
    let names = names(rng, 2, 8);
    let listed: Vec<String> =
        names.iter().enumerate().map(|(frame, name)| format!("Frame {frame}: {name}")).collect();
    let sentences: Vec<String> =
        names.iter().enumerate().map(|(frame, name)| format!("frame {frame}: {name}.")).collect();
    Document { context: listed.join("\n"), statements: repeated(rng, &sentences, " ") }
}

/// Lettered choices, then `choices: lamp A, bed B. so bed B.`
fn letters(rng: &mut Rng) -> Document {
    let choices = Choices::of_anything(rng);
    let sentences: Vec<String> = (0..ROUNDS).map(|_| choices.with_some_letters(rng)).collect();
    Document { context: choices.listed(), statements: sentences.join("\n") }
}

/// Lettered choices, then `choices: lamp A, bed B. so bed B. so lamp A. so bed B.`
pub(super) fn choices(rng: &mut Rng) -> Document {
    let choices = Choices::of_anything(rng);
    Document { context: choices.listed(), statements: choices.with_all_letters(2 * ROUNDS, rng) }
}

/// The captions of a short synthetic video without a consistent scene, and lookups of one kind.
fn synthetic_video(rng: &mut Rng) -> Document {
    let pool = names(rng, 3, 6);
    let count = 2 + rng.below(4);
    let captions: Vec<FrameText> = (0..count)
        .map(|frame| {
            let many = 1 + rng.below(2);
            let seen: Vec<VisibleObject> = rng
                .sample(&pool, many)
                .into_iter()
                .map(|name| at_random_position(&name, rng))
                .collect();
            FrameText { action: (frame > 0).then(|| rotation(rng)), view: view_text(&seen) }
        })
        .collect();
    captioned(
        &captions,
        &pool,
        |all, rng| all.of_one_kind(rng),
        rng,
        |choices, statements, rng| {
            [choices.with_some_letters(rng), statements, choices.with_some_letters(rng)].join("\n")
        },
    )
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
    fn every_statement_about_a_list_is_in_it() {
        let mut rng = Rng::new(&[1]);
        for _ in 0..100 {
            let Document { context, statements } = pairs(&mut rng);
            let listed: Vec<&str> = context.split("; ").collect();
            for statement in statements.lines().flat_map(|line| line.split(". ")) {
                assert!(listed.contains(&statement), "{statement} in {context}");
            }
            let Document { context, statements } = frames(&mut rng);
            for statement in statements.lines().flat_map(|line| line.split_inclusive('.')) {
                let statement = statement.trim().trim_end_matches('.');
                let line = statement.replacen("frame", "Frame", 1);
                assert!(context.lines().any(|listed| listed == line), "{line} in {context}");
            }
        }
    }

    #[test]
    fn every_quote_is_from_the_only_caption_with_its_object() {
        let mut rng = Rng::new(&[3]);
        for _ in 0..100 {
            let Document { context, statements } = sights(&mut rng);
            let sentences = statements.split(['.', '\n']).map(str::trim);
            let mut quotes = 0;
            for quote in sentences.filter_map(|sentence| {
                let (kind, quote) = sentence.split_once(' ')?;
                ["first", "last"].contains(&kind).then_some(quote)
            }) {
                let Some((name, _)) = quote.split_once(' ') else { continue };
                if quote.ends_with(": none") {
                    continue;
                }
                let captions = context.lines().filter(|line| line.starts_with("Frame"));
                let seen = captions.filter(|line| line.contains(&format!(" {name} "))).count();
                assert_eq!(seen, 1, "{name} in {context}");
                assert!(context.contains(quote), "{quote} in {context}");
                quotes += 1;
            }
            assert!(quotes > 2, "{statements}");
        }
    }

    #[test]
    fn a_synthetic_video_has_the_caption_format() {
        let mut rng = Rng::new(&[2]);
        for _ in 0..100 {
            let Document { context, statements } = synthetic_video(&mut rng);
            assert!(context.starts_with("Frame 0: Observe: "), "{context}");
            assert!(statements.split_whitespace().count() > 10, "{statements}");
        }
    }
}
