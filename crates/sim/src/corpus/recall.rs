//! Lists and small imagined videos, and what they say asked for again and again.
//!
//! To look a thing up by its name is the first that reasoning needs and the last that a small
//! decoder learns: it begins within minutes only where there is nothing else to learn.

use embodied_r_data::prompts::{FrameText, lines};
use embodied_r_data::scene::{Seen, view_text};

use super::Document;
use super::choices::Choices;
use super::lookups::Statements;
use crate::ask::letter;
use crate::catalogue::KINDS;
use crate::geometry::wrap_whole;
use crate::rng::Rng;
use crate::trace::{Trace, bearing_text};

/// How often what was listed is asked for.
const ROUNDS: usize = 4;

/// A random list or imagined video with lookups.
pub(super) fn any(rng: &mut Rng) -> Document {
    match rng.below(6) {
        0 => pairs(rng),
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
    Document { context: items.join("; "), statements: asked(rng, &items, ". ") }
}

/// The captions of a video in which nothing is seen twice, then when some of it was seen and where;
/// in half of them choices too, then their letters.
pub(super) fn sights(rng: &mut Rng) -> Document {
    let names = names(rng, 2, 10);
    let mut captions: Vec<FrameText> = Vec::new();
    let mut left = names.as_slice();
    while !left.is_empty() {
        let (seen, rest) = left.split_at(1 + rng.below(left.len().min(4)));
        let seen: Vec<Seen> = seen.iter().map(|name| somewhere(name, rng)).collect();
        let action = (!captions.is_empty()).then(|| rotation(rng));
        captions.push(FrameText { action, view: view_text(&seen) });
        left = rest;
    }
    told(
        &captions,
        &names,
        |all, rng| all.by_name(rng),
        rng,
        |choices, statements, rng| [choices.told_often(ROUNDS, rng), statements].join("\n"),
    )
}

/// The captions with statements about them; in half of the documents choices too, and what `with`
/// makes of the statements then.
fn told(
    captions: &[FrameText],
    names: &[String],
    statements: fn(&Statements<'_>, &mut Rng) -> String,
    rng: &mut Rng,
    with: fn(&Choices, String, &mut Rng) -> String,
) -> Document {
    let context = lines(captions);
    let statements = Trace::from_captions(captions)
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

/// A sight of `name`.
fn somewhere(name: &str, rng: &mut Rng) -> Seen {
    Seen { name: name.to_owned(), bearing_deg: bearing(rng), distance_m: 1 + rng.below(5) as u32 }
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

/// Lettered choices, then `choices: lamp A, bed B. so bed B. so lamp A. so bed B.`
pub(super) fn choices(rng: &mut Rng) -> Document {
    let choices = Choices::of_anything(rng);
    Document { context: choices.listed(), statements: choices.told_often(2 * ROUNDS, rng) }
}

/// The captions of a short video that nobody could film, and one kind of lookups in it.
fn imagined(rng: &mut Rng) -> Document {
    let pool = names(rng, 3, 6);
    let count = 2 + rng.below(4);
    let captions: Vec<FrameText> = (0..count)
        .map(|frame| {
            let many = 1 + rng.below(2);
            let seen: Vec<Seen> =
                rng.sample(&pool, many).into_iter().map(|name| somewhere(&name, rng)).collect();
            FrameText { action: (frame > 0).then(|| rotation(rng)), view: view_text(&seen) }
        })
        .collect();
    told(
        &captions,
        &pool,
        |all, rng| all.of_one_kind(rng),
        rng,
        |choices, statements, rng| [choices.told(rng), statements, choices.told(rng)].join("\n"),
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
    fn what_is_told_of_a_list_is_in_it() {
        let mut rng = Rng::new(&[1]);
        for _ in 0..100 {
            let Document { context, statements } = pairs(&mut rng);
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
    fn what_is_told_by_name_stands_in_the_only_caption_that_has_it() {
        let mut rng = Rng::new(&[3]);
        for _ in 0..100 {
            let Document { context, statements } = sights(&mut rng);
            let told = statements.split(['.', '\n']).map(str::trim).filter(|told| !told.is_empty());
            let mut quotes = 0;
            for (_, quote) in told.filter_map(|told| {
                let (kind, quote) = told.split_once(' ')?;
                ["first", "last"].contains(&kind).then_some((kind, quote))
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
    fn an_imagined_video_is_told_in_the_words_of_captions() {
        let mut rng = Rng::new(&[2]);
        for _ in 0..100 {
            let Document { context, statements } = imagined(&mut rng);
            assert!(context.starts_with("Frame 0: Observe: "), "{context}");
            assert!(statements.split_whitespace().count() > 10, "{statements}");
        }
    }
}
