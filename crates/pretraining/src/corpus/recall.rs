//! Recall documents: lists and small synthetic videos followed by repeated lookups.
//!
//! Lookup by name (induction) is the skill that a small decoder learns last; it emerges within minutes only if there is
//! nothing else to learn.

use embodied_r_data::prompts::{FrameText, frame_lines};
use embodied_r_data::scene::{VisibleObject, view_text};
use embodied_r_random::Rng;
use embodied_r_sim::CaptionTrace;
use embodied_r_sim::wording::{OBJECT_NAMES, bearing_text, letter};

use super::document::Document;
use super::drills::{rotation, rotation_text, visible_bearing};
use super::letters::LetteredList;
use super::lookups::{Lookup, Lookups};
use super::page::{Page, Practice};

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
    rng.sample(&OBJECT_NAMES, count).into_iter().map(str::to_owned).collect()
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
            false => format!("{name} {}", bearing_text(visible_bearing(rng))),
        })
        .collect();
    Document::plain(items.join("; "), repeated(rng, &items, ". "))
}

/// `Frame 0: lamp`, then `frame 0: lamp.`
fn frames(rng: &mut Rng) -> Document {
    let names = names(rng, 2, 8);
    let listed: Vec<String> =
        names.iter().enumerate().map(|(frame, name)| format!("Frame {frame}: {name}")).collect();
    let sentences: Vec<String> =
        names.iter().enumerate().map(|(frame, name)| format!("frame {frame}: {name}.")).collect();
    Document::plain(listed.join("\n"), repeated(rng, &sentences, " "))
}

/// A lettered list, then the letters of its contents.
pub(super) fn letters(rng: &mut Rng) -> Document {
    let list = LetteredList::random(rng);
    Document::plain(list.listed(), list.lookups(ROUNDS, rng))
}

/// The captions of a video in which every object is visible once, then lookups by name.
pub(super) fn sights(rng: &mut Rng) -> Document {
    let names = names(rng, 2, 10);
    let mut captions: Vec<FrameText> = Vec::new();
    let mut left = names.as_slice();
    while !left.is_empty() {
        let (seen, rest) = left.split_at(1 + rng.below(left.len().min(4)));
        let seen: Vec<VisibleObject> =
            seen.iter().map(|name| at_random_position(name, rng)).collect();
        captions.push(caption(captions.len(), &seen, rng));
        left = rest;
    }
    let practice = [(Lookup::First, 2), (Lookup::Last, 2), (Lookup::Every, 1)];
    let practice = practice.map(|(lookup, weight)| (Practice::Lookup(lookup), weight));
    captioned(&captions, &names, &practice, rng)
}

/// The captions of a short synthetic video without a consistent scene, then lookups.
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
            caption(frame, &seen, rng)
        })
        .collect();
    captioned(&captions, &pool, &Practice::LOOKUPS, rng)
}

/// A document of captions and lookups in them, half of the time with a lettered list.
fn captioned(
    captions: &[FrameText],
    names: &[String],
    practice: &[(Practice, usize)],
    rng: &mut Rng,
) -> Document {
    let list = rng.chance(0.5).then(|| LetteredList::random(rng));
    let mut context = frame_lines(captions);
    if let Some(list) = &list {
        context = format!("{context}\n{}", list.listed());
    }
    let Some(trace) = CaptionTrace::from_captions(captions) else {
        return Document::plain(context, String::new());
    };
    let lookups = Some(Lookups::new(names, &trace));
    let statements = Page { lookups, list, subjects: Vec::new() }
        .lines(80 + rng.below(40), practice, rng)
        .join("\n");
    Document::plain(context, statements)
}

/// A caption; the first frame has no action.
fn caption(frame: usize, seen: &[VisibleObject], rng: &mut Rng) -> FrameText {
    FrameText { action: (frame > 0).then(|| rotation_text(rotation(rng))), view: view_text(seen) }
}

/// `name` at a random bearing and distance.
fn at_random_position(name: &str, rng: &mut Rng) -> VisibleObject {
    VisibleObject {
        name: name.to_owned(),
        bearing_deg: visible_bearing(rng),
        distance_m: 1 + rng.below(5) as u32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_statement_about_a_list_is_in_it() {
        let mut rng = Rng::new(&[1]);
        for _ in 0..100 {
            let Document { context, statements, .. } = pairs(&mut rng);
            let listed: Vec<&str> = context.split("; ").collect();
            for statement in statements.lines().flat_map(|line| line.split(". ")) {
                assert!(listed.contains(&statement), "{statement} in {context}");
            }
            let Document { context, statements, .. } = frames(&mut rng);
            for statement in statements.lines().flat_map(|line| line.split_inclusive('.')) {
                let statement = statement.trim().trim_end_matches('.');
                let line = statement.replacen("frame", "Frame", 1);
                assert!(context.lines().any(|listed| listed == line), "{line} in {context}");
            }
        }
    }

    #[test]
    fn every_sighting_is_in_the_caption_of_its_frame() {
        let mut rng = Rng::new(&[3]);
        let mut checked = 0;
        for _ in 0..100 {
            let Document { context, statements, .. } = sights(&mut rng);
            for line in statements.lines() {
                let Some((object, frame)) = line
                    .strip_prefix("first ")
                    .or(line.strip_prefix("last "))
                    .and_then(|line| line.split_once(", frame "))
                else {
                    continue;
                };
                let frame = format!("Frame {}: ", frame.trim_end_matches('.'));
                let shown = context.lines().find(|shown| shown.starts_with(&frame)).unwrap();
                assert!(shown.contains(&format!(" {object}, ")), "{line} in {context}");
                checked += 1;
            }
        }
        assert!(checked > 300, "{checked}");
    }

    #[test]
    fn a_synthetic_video_has_the_caption_format() {
        let mut rng = Rng::new(&[2]);
        for _ in 0..100 {
            let Document { context, statements, .. } = synthetic_video(&mut rng);
            assert!(context.starts_with("Frame 0: Observe: "), "{context}");
            assert!(statements.split_whitespace().count() > 10, "{statements}");
        }
    }
}
