//! Pretraining text for a small model: captions of rooms followed by statements about them.
//!
//! Every statement is one step: a lookup in the captions, a sum of angles, the order of numbers, the name of a direction, or
//! the letter of a content in an unrelated list. It stands between statements of other kinds, none of which prepares the
//! next. Neither questions nor chains of steps that would answer one occur. Some documents are chats in the format of the
//! quickstart's prompts and replies: there a step may follow from a sighting that is made up, and thus of no use.

mod chat;
mod document;
mod drills;
pub(crate) mod key_phrase;
mod letters;
mod lookups;
mod notes;
mod page;
mod recall;

use embodied_r_data::prompts::{CaptionStyle, FrameText, video_prompt};
use embodied_r_data::scene::Scene;
use embodied_r_random::Rng;
use embodied_r_sim::views::Views;
use embodied_r_sim::{CaptionTrace, captions_at, keyframes_by_pose, random_room};

pub(crate) use self::document::{Document, Masked};
use self::letters::LetteredList;
use self::lookups::Lookups;
use self::page::{Page, Practice};

/// Fraction of documents that are lists for recall.
const RECALL: f64 = 0.25;
/// Fraction of documents without context: drills only.
const DRILLS_ONLY: f64 = 0.08;
/// Fraction of room documents with a lettered list.
const LETTERED: f64 = 0.75;

/// Fraction of documents about views that are chats.
const VIEWS_CHATS: f64 = 0.4;

/// Recall document `index` of `seed`: a plain list of bearings or letters by name, repeated in
/// random order.
pub(crate) fn recall_document(seed: u64, index: u64) -> Document {
    recall::pairs(&mut Rng::new(&[seed, index, 10]))
}

/// Lookup document `index` of `seed`: lookups by name in a plain list, in a lettered list, or in a
/// video in which every object is visible once.
pub(crate) fn lookup_document(seed: u64, index: u64) -> Document {
    let mut rng = Rng::new(&[seed, index, 11]);
    match rng.below(4) {
        0 => recall::pairs(&mut rng),
        1 => recall::letters(&mut rng),
        _ => recall::sights(&mut rng),
    }
}

/// Document `index` of `seed`: a room's captions in the prompt format (`Frame 0: Observe: …`), a
/// named subject and mostly a lettered list, followed by statements, one per line, of which the
/// first is about the subject. Some documents have a list or no context in place of captions.
pub(crate) fn document(seed: u64, index: u64) -> Document {
    page_or_list(&mut Rng::new(&[seed, index, 7]), &[seed, index, 8], Subjects::One)
}

/// Like [`document()`], but without a subject: the statements are about random objects.
pub(crate) fn document_without_subject(seed: u64, index: u64) -> Document {
    page_or_list(&mut Rng::new(&[seed, index, 12]), &[seed, index, 13], Subjects::None)
}

/// Chat `index` of `seed`. Its kinds are a reply in the quickstart's format: statements about a room, then the letter of an
/// unrelated content; the judge's task on such statements; and the text of [`document()`], which is no chat.
pub(crate) fn chat_document(seed: u64, index: u64) -> Document {
    let rng = &mut Rng::new(&[seed, index, 14]);
    let scene = &[seed, index, 15];
    let subjects = if rng.chance(0.5) { Subjects::Listed } else { Subjects::One };
    match rng.below(8) {
        0..5 => room(rng, scene, subjects, |room, rng| room.chat(rng)),
        5 => room(rng, scene, Subjects::None, |room, rng| room.judged(rng)),
        _ => page_or_list(rng, scene, subjects),
    }
}

/// Document `index` of `seed` about these views: frames as images with the movements between them, followed by
/// statements about what they show, as lines or as a reply in the quickstart's format.
pub(crate) fn views_document(views: &Views, seed: u64, index: u64) -> Document {
    let rng = &mut Rng::new(&[seed, index, 16]);
    let subjects =
        *rng.pick(&[Subjects::None, Subjects::One, Subjects::Listed]).unwrap_or(&Subjects::One);
    let context = video_prompt(&views.with_images(), CaptionStyle::Bearings);
    about(rng, &views.scene, (&context, &views.captions()), subjects, |mut room, rng| {
        if rng.chance(VIEWS_CHATS) {
            return room.chat(rng);
        }
        if !rng.chance(LETTERED) {
            room.page.list = None;
        }
        let words = 150 + rng.below(100);
        let statements = room.page.lines(words, &Practice::VIEWS, rng).join("\n");
        Document::plain(room.prompt(), statements)
    })
}

/// What objects a document's prompt names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Subjects {
    None,
    One,
    Listed,
}

fn page_or_list(rng: &mut Rng, scene: &[u64], subjects: Subjects) -> Document {
    if rng.chance(RECALL) {
        return recall::any(rng);
    }
    let words = 150 + rng.below(150);
    if rng.chance(DRILLS_ONLY) {
        let statements = Page::default().lines(words, &Practice::DRILLS, rng).join("\n");
        return Document::plain(String::new(), statements);
    }
    room(rng, scene, subjects, |mut room, rng| {
        if !rng.chance(LETTERED) {
            room.page.list = None;
        }
        let statements = room.page.lines(words, &Practice::documents(), rng).join("\n");
        Document::plain(room.prompt(), statements)
    })
}

/// A room to write a document about.
struct RoomText<'a> {
    captions: String,
    /// The named subjects among filler words; empty without subjects.
    key: String,
    page: Page<'a>,
}

/// The document that `write` makes of the room of `scene`.
fn room(
    rng: &mut Rng,
    scene: &[u64],
    subjects: Subjects,
    write: impl FnOnce(RoomText<'_>, &mut Rng) -> Document,
) -> Document {
    let scene = random_room(scene);
    let captions = captions_at(&scene, &keyframes_by_pose(&scene));
    about(
        rng,
        &scene,
        (&video_prompt(&captions, CaptionStyle::Bearings), &captions),
        subjects,
        write,
    )
}

/// The document that `write` makes of a room that the prompt shows as `context`, with these captions.
fn about(
    rng: &mut Rng,
    scene: &Scene,
    (context, captions): (&str, &[FrameText]),
    subjects: Subjects,
    write: impl FnOnce(RoomText<'_>, &mut Rng) -> Document,
) -> Document {
    let names: Vec<String> = scene.objects.iter().map(|object| object.name.clone()).collect();
    let context = context.to_owned();
    let Some(trace) = CaptionTrace::from_captions(captions) else {
        return Document::plain(context, String::new());
    };
    let lookups = Lookups::new(&names, &trace);
    let mut subjects = match subjects {
        Subjects::None => Vec::new(),
        Subjects::One => lookups.subject(rng).into_iter().collect(),
        Subjects::Listed => {
            let count = 3 + rng.below(2);
            rng.sample(&names, count)
        }
    };
    let key = match subjects.is_empty() {
        true => String::new(),
        false => key_phrase::among_filler_words(&key_phrase::objects(&subjects, rng), rng),
    };
    let list = Some(LetteredList::random(rng));
    if rng.chance(0.5) {
        subjects.reverse();
    }
    let page = Page { lookups: Some(lookups), list, subjects };
    write(RoomText { captions: context, key, page }, rng)
}

impl RoomText<'_> {
    /// Captions, then the subjects, then the lettered list.
    fn prompt(&self) -> String {
        let list = self.page.list.as_ref().map(LetteredList::listed).unwrap_or_default();
        let parts = [self.captions.as_str(), &self.key, &list];
        let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        parts.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use embodied_r_data::prompts::{judge_system_prompt, judge_user_prompt};

    use embodied_r_sim::views::{IMAGE, views};
    use embodied_r_sim::wording::{OBJECT_NAMES, bearing_text};
    use embodied_r_sim::{Category, text_question};

    use super::*;

    /// A document about frames.
    fn of_views(seed: u64, index: u64) -> Document {
        views_document(&views(seed, index), seed, index)
    }

    /// Context and statements.
    fn text(Document { context, statements, .. }: Document) -> String {
        format!("{context}\n{statements}")
    }

    /// The subject named after a context's captions.
    fn named(context: &str) -> Option<String> {
        let (_, behind) = context.split_once("\n>\n")?;
        let (_, name) = behind.lines().next()?.split_once("the ")?;
        name.split(' ').next().map(str::to_owned)
    }

    #[test]
    fn documents_start_with_their_subject_and_others_have_none() {
        let mut rooms = 0;
        for index in 0..300 {
            let Document { context, statements, .. } = document(1, index);
            let Some(name) = named(&context) else { continue };
            rooms += 1;
            let first = statements.lines().next().unwrap();
            assert!(first.split([' ', ':']).nth(1) == Some(name.as_str()), "{name}: {first}");
        }
        assert!(rooms > 150, "{rooms}");
        assert!((0..300).all(|index| named(&document_without_subject(1, index).context).is_none()));
    }

    #[test]
    fn statements_about_listed_subjects_take_turns() {
        let mut lists = 0;
        for index in 0..300 {
            let Document { context, statements, .. } = chat_document(1, index);
            let Some((_, behind)) = context.split_once("\n>\n") else { continue };
            let key = behind.lines().next().unwrap();
            let names: Vec<&str> =
                key.split([' ', ',']).filter(|word| OBJECT_NAMES.contains(word)).collect();
            if names.len() < 3 {
                continue;
            }
            lists += 1;
            let first = statements.split(['.', '\n']).next().unwrap();
            let ends = [names[0], names[names.len() - 1]];
            assert!(ends.iter().any(|name| first.contains(name)), "{key}: {first}");
        }
        assert!(lists > 60, "{lists}");
    }

    #[test]
    fn most_documents_are_about_rooms() {
        let rooms = (0..200).filter(|&index| {
            let found = document(1, index);
            assert!(!found.statements.contains("Observe"), "{}", found.statements);
            let many = found.statements.split_whitespace().count() >= 150;
            found.context.contains("\n>") && many
        });
        assert!((110..170).contains(&rooms.count()));
    }

    #[test]
    fn a_document_about_frames_has_images_and_true_statements() {
        let mut checked = 0;
        for index in 0..60 {
            let views = views(8, index);
            let Document { context, statements, .. } = views_document(&views, 8, index);
            assert_eq!(context.matches(IMAGE).count(), views.frames());
            assert!(!context.contains(" m\n"), "{context}");
            let trace = CaptionTrace::from_captions(&views.captions()).unwrap();
            for statement in statements.split(['.', '\n']).filter_map(|s| s.strip_prefix("last ")) {
                let (name, at) = statement.split_once(' ').unwrap();
                let seen = trace.last_sight(name).map_or("none".into(), |(frame, bearing_deg)| {
                    format!("{}, frame {frame}", bearing_text(bearing_deg))
                });
                assert_eq!(at, seen);
                checked += 1;
            }
        }
        assert!(checked > 60, "{checked}");
    }

    #[test]
    fn a_document_depends_on_seed_and_index_alone() {
        assert_eq!(document(1, 2), document(1, 2));
        assert_ne!(document(1, 2), document(2, 1));
    }

    #[test]
    fn no_question_of_the_benchmarks_is_in_the_corpus() {
        let asked = judge_user_prompt("", "");
        let asked = asked.lines().next().unwrap();
        for index in 0..600 {
            let kind = [document, chat_document, of_views][index as usize % 3];
            let text = text(kind(3, index)).replace(asked, "");
            assert!(!text.contains('?') && !text.contains("Question"), "{text}");
        }
    }

    /// The words of a text, with names and numbers masked.
    fn masked(text: &str) -> Vec<&str> {
        let mask = |word: &'_ str| match word {
            word if word.bytes().all(|byte| byte.is_ascii_digit()) => "#",
            word if OBJECT_NAMES.contains(&word) => "@",
            _ => "",
        };
        text.split(|c: char| !c.is_ascii_alphanumeric())
            .filter(|word| !word.is_empty())
            .map(|word| if mask(word).is_empty() { word } else { mask(word) })
            .collect()
    }

    /// At most this share of a category's 13-grams may be in the corpus.
    const OVERLAP: f64 = 0.01;

    #[test]
    fn hardly_a_13_gram_of_worked_rationales_is_in_the_corpus() {
        let mut known: HashSet<Vec<&str>> = HashSet::new();
        let kinds = [
            document,
            document_without_subject,
            chat_document,
            lookup_document,
            recall_document,
            of_views,
        ];
        let texts: Vec<String> =
            (0..2000).flat_map(|index| kinds.map(|kind| text(kind(0, index)))).collect();
        for text in &texts {
            known.extend(masked(text).windows(13).map(<[&str]>::to_vec));
        }
        for category in Category::ALL {
            let (mut all, mut shared) = (0, 0);
            for index in 0..200 {
                let think = text_question(5, index, &[category]).unwrap().rationale.think();
                for gram in masked(&think).windows(13) {
                    all += 1;
                    shared += usize::from(known.contains(gram));
                }
            }
            let overlap = shared as f64 / f64::from(all.max(1));
            println!("{category}: {shared} of {all} 13-grams");
            assert!(overlap <= OVERLAP, "{category}: {shared} of {all}");
        }
    }

    /// The kind of a statement by its wording.
    fn kind(statement: &str) -> &str {
        match statement.split(' ').next().unwrap_or("") {
            "left" | "right" | "ahead" | "behind" if statement.contains(" is ") => "octant",
            name if OBJECT_NAMES.contains(&name) && statement.contains("frame") => "note",
            // `next 2: right 80, lamp: left 30.` and `order sofa 4: right 20.` are made up, and no steps.
            "next"
                if OBJECT_NAMES.iter().any(|name| statement.contains(&format!(", {name}: "))) =>
            {
                "note"
            }
            "order"
                if !OBJECT_NAMES.iter().any(|name| statement.contains(&format!(": {name}"))) =>
            {
                "note"
            }
            word => word,
        }
    }

    #[test]
    fn no_statement_prepares_the_next() {
        let (mut chats, mut from_notes) = (0, 0);
        for index in 0..400 {
            let of_kind = [document, chat_document, of_views][index as usize % 3];
            let Document { system, statements, .. } = of_kind(6, index);
            chats += usize::from(system.is_some());
            let statements = statements.replace("<think>", "").replace("</think>", " ");
            let statements: Vec<&str> =
                statements.split_inclusive(['.', '\n']).map(str::trim).collect();
            let mut found: Vec<&str> = statements.iter().map(|statement| kind(statement)).collect();
            // Octants beside an order are made up.
            let kinds = found.clone();
            for at in 1..found.len() {
                if (kinds[at - 1], kinds[at]) == ("octant", "order") {
                    let after = usize::from(kinds.get(at + 1) == Some(&"octant"));
                    found[at - 1..=at + after].fill("note");
                }
            }
            for (pair, kinds) in statements.windows(2).zip(found.windows(2)) {
                let kinds = (kinds[0], kinds[1]);
                let same = kinds.0 == kinds.1 && ["first", "last", "faced"].contains(&kinds.0);
                let of_a_rationale = [
                    ("last", "frame"),
                    ("last", "next"),
                    ("last", "octant"),
                    ("next", "next"),
                    ("next", "octant"),
                    ("first", "order"),
                    ("order", "first"),
                    ("order", "so"),
                    ("first", "so"),
                    ("faced", "so"),
                    ("octant", "so"),
                ];
                // In chats a step is from a note, which is made up.
                from_notes += usize::from(kinds.0 == "note");
                let from_note = kinds.1 != "next" || kinds.0 == "note";
                assert!(!same && from_note && !of_a_rationale.contains(&kinds), "{pair:?}");
            }
        }
        assert!(chats > 80 && from_notes > 200, "{chats} {from_notes}");
    }

    #[test]
    fn a_chat_ends_with_the_letter_of_a_content_of_an_unrelated_list() {
        let (mut replies, mut judged) = (0, 0);
        for index in 0..400 {
            let Document { system, context, statements, .. } = chat_document(7, index);
            let Some(system) = system else { continue };
            let letter = match system == judge_system_prompt() {
                true => {
                    judged += 1;
                    let (_, reasoning) = context.split_once("\nReasoning: ").unwrap();
                    let content = context
                        .lines()
                        .find_map(|line| line.strip_prefix(&format!("{statements}. ")));
                    assert!(reasoning.contains(content.unwrap()), "{context}{statements}");
                    continue;
                }
                false => statements.strip_suffix("</answer>").unwrap().chars().last().unwrap(),
            };
            replies += 1;
            let (_, end) = statements.rsplit_once("so ").unwrap();
            let (content, _) = end.split_once(&format!(" {letter}.</think>")).unwrap();
            assert!(context.lines().any(|line| line == format!("{letter}. {content}")));
        }
        assert!(replies > 150 && judged > 20, "{replies} {judged}");
    }

    #[test]
    fn the_vocabulary_is_small_and_every_word_is_frequent() {
        let mut counts: HashMap<String, usize> = HashMap::new();
        for index in 0..500 {
            for word in text(document(4, index)).split(|c: char| !c.is_ascii_alphanumeric()) {
                *counts.entry(word.to_owned()).or_default() += 1;
            }
        }
        assert!(counts.len() < 160, "{} words", counts.len());
        let rare: Vec<_> = counts.iter().filter(|(_, count)| **count < 5).collect();
        assert!(rare.len() <= 5, "{rare:?}");
    }
}
