//! Pretraining text for a small vision-language model: frames of the arm followed by statements about them.
//!
//! Every statement is one step: a position, what the gripper does, a relation of two things, a position at another height,
//! a displacement, its name, or the letter of a content in an unrelated list. Where a step follows from another, that is a
//! note of a value that is made up. It stands between statements of other kinds, none of which prepares the next. Neither
//! questions nor what a robot has to do occur; words of them are among the filler words of prompts. Some documents are
//! chats in the format of robot questions.
//!
//! Documents without a frame list the things with made-up positions instead, so that the steps can be learned first. Before
//! them come arithmetic and lookups in lettered lists, the steps that take the longest to learn.

mod lists;
mod page;

use embodied_r_random::Rng;
use embodied_r_sim::arm::statement::position;
use embodied_r_sim::arm::{Kind, Scene, hand, relations, things};
use embodied_r_sim::views::IMAGE;
use embodied_r_sim::wording::tagged;

use self::lists::{NumberList, PhraseList, PositionList};
use self::page::{Page, Practice};
use crate::corpus::key_phrase::among_filler_words;
use crate::corpus::{Document, Masked};

/// A point or a displacement, in metres along x, y and z.
type Vector = [f64; 3];

/// The displacement from `b` to `a`.
fn sub(a: Vector, b: Vector) -> Vector {
    [a[0] - b[0], a[1] - b[1], a[2] - b[2]]
}

/// The system prompt of chats.
const SYSTEM_PROMPT: &str = "You are a helpful assistant.";

/// Fraction of documents that are chats.
const CHATS: f64 = 0.5;
/// Fraction of documents with a lettered list of positions, and of phrases.
const POSITIONS_LISTED: f64 = 0.5;
const PHRASES_LISTED: f64 = 0.35;
/// Fraction of lookup documents whose list is of positions. These documents are three times as long as others.
const POSITIONS_LOOKED_UP: f64 = 0.12;
/// Lookups in a list of positions, and in one of phrases.
const POSITION_LOOKUPS: usize = 16;
const PHRASE_LOOKUPS: usize = 3;
/// Fraction of arithmetic documents that are of displacements, which take longer to learn than directions.
const DISPLACEMENTS: f64 = 0.8;
/// Fraction of arithmetic documents in which a list of things comes first.
const AFTER_LIST: f64 = 0.3;
/// Fraction of prompts that name what the first statements are about.
const NAMING: f64 = 0.6;
/// Fraction of prompts with the position of the gripper as text.
const WITH_STATE: f64 = 0.3;
/// Fraction of prompts with each of the other lines of robot questions.
const WITH_LINE: f64 = 0.6;

/// Words of robot questions and of what robots do, as filler words, and most of them in a prompt.
const ROBOT_WORDS: [&str; 32] = [
    "above", "away", "beside", "carry", "close", "current", "grasp", "into", "lift", "lower",
    "move", "movement", "off", "onto", "open", "out", "pick", "press", "push", "put", "slide",
    "stack", "state", "take", "throw", "turn", "up", "waypoint", "Current", "Next", "its", "with",
];
const MOST_ROBOT_WORDS: usize = 5;

/// Lines of the prompts of robot questions that are the same in all.
const AXES: &str = "Axes: x backward to forward, y left to right, z down to up";
const ORIGIN: &str = "Origin: 0.25 0.00 0.75\nGripper: 0.06 0.20 0.09";
const REPLY: &str = "Reply: <think>reasoning</think><answer>letter</answer>";

/// Where made-up positions are, in metres.
const SPACE: [(f64, f64); 3] = [(-0.02, 0.46), (-0.36, 0.36), (0.76, 1.2)];

/// Document `index` of `seed` about a frame that shows `scene`: its context has the frame as `<image>`.
pub(crate) fn scene_document(scene: &Scene, seed: u64, index: u64) -> Document {
    let rng = &mut Rng::new(&[seed, index, 54]);
    let relations = relations(scene)
        .into_iter()
        .map(|(subject, relation, object)| format!("{subject} {} {object}", relation.words()));
    let about = About {
        shown: IMAGE.to_owned(),
        things: things(scene),
        hand: Some(hand(scene)),
        relations: relations.collect(),
    };
    document(about, rng)
}

/// Document `index` of `seed` about things with made-up positions, which its context lists.
pub(crate) fn listed_document(seed: u64, index: u64) -> Document {
    let rng = &mut Rng::new(&[seed, index, 55]);
    document(About::listed(rng), rng)
}

/// Arithmetic document `index` of `seed`: a displacement or directions.
pub(crate) fn arithmetic_document(seed: u64, index: u64) -> Document {
    let rng = &mut Rng::new(&[seed, index, 57]);
    let About { shown, things, .. } = About::listed(rng);
    let page = Page { things, ..Page::default() };
    let kind = match rng.chance(DISPLACEMENTS) {
        true => Practice::Displacement,
        false => Practice::Direction,
    };
    let context = rng.chance(AFTER_LIST).then_some(shown);
    step(context, &page, kind, rng)
}

/// Lookup document `index` of `seed`: a lettered list of positions and letters of many, or a list of phrases of directions and
/// letters of some. Only the letters are in the loss.
pub(crate) fn lettered_document(seed: u64, index: u64) -> Document {
    let rng = &mut Rng::new(&[seed, index, 56]);
    if rng.chance(POSITIONS_LOOKED_UP) {
        let list = PositionList::random(rng);
        return Document::plain(list.listed(), list.lookups(POSITION_LOOKUPS, rng));
    }
    let list = PhraseList::random(rng);
    Document::plain(list.listed(), list.lookups(PHRASE_LOOKUPS, rng))
}

/// A document of one step: what it is about is in the context, so that the loss is that of what follows from it.
fn step(context: Option<String>, page: &Page, kind: Practice, rng: &mut Rng) -> Document {
    let line = page.step(kind, rng).unwrap_or_default();
    let (about, result) = line.split_at(line.rfind(':').map_or(0, |colon| colon + 1));
    let context = context.map_or_else(|| about.to_owned(), |list| format!("{list}\n{about}"));
    Document::plain(context, result.to_owned())
}

/// Number document `index` of `seed`: a lettered list of one or several numbers each, and the letters of numbers. They are
/// easier to find than longer contents. The numbers that are looked up are in the loss too: without them lookups were not
/// learned in some runs.
pub(crate) fn lettered_numbers_document(seed: u64, index: u64) -> Document {
    let rng = &mut Rng::new(&[seed, index, 58]);
    let numbers = NumberList::random(rng);
    let statements = numbers.lookups(rng).join("\n");
    Document::plain(numbers.listed(), statements)
}

/// What a document is about.
struct About {
    /// The frame, or a list of the things.
    shown: String,
    /// The gripper, then the objects, with their positions.
    things: Vec<(&'static str, Vector)>,
    hand: Option<String>,
    relations: Vec<String>,
}

impl About {
    /// Things with made-up positions, in a list.
    fn listed(rng: &mut Rng) -> Self {
        let count = 2 + rng.below(4);
        let names = rng.sample(&Kind::ALL.map(Kind::name), count);
        let mut things: Vec<(&'static str, Vector)> =
            std::iter::once("gripper").chain(names).map(|name| (name, made_up(rng))).collect();
        rng.shuffle(&mut things);
        let lines: Vec<String> =
            things.iter().map(|(name, at)| format!("{name} {}", position(*at))).collect();
        // The gripper comes first in the statements' order.
        things.sort_by_key(|(name, _)| *name != "gripper");
        Self { shown: lines.join("\n"), things, hand: None, relations: Vec::new() }
    }
}

/// A position anywhere above the table.
fn made_up(rng: &mut Rng) -> Vector {
    SPACE.map(|(low, high)| rng.between(low, high))
}

fn document(about: About, rng: &mut Rng) -> Document {
    let is_chat = rng.chance(CHATS);
    let positions = rng.chance(POSITIONS_LISTED).then(|| PositionList::random(rng));
    let phrases = (positions.is_none() && (is_chat || rng.chance(PHRASES_LISTED)))
        .then(|| PhraseList::random(rng));
    let names: Vec<&'static str> = about.things.iter().map(|(name, _)| *name).collect();
    let mut subjects = match rng.chance(NAMING) {
        true => {
            let count = 1 + rng.below(2);
            rng.sample(&names, count)
        }
        false => Vec::new(),
    };
    let context = context(&about, &subjects, (positions.as_ref(), phrases.as_ref()), rng);
    if rng.chance(0.5) {
        subjects.reverse();
    }
    let page = Page {
        things: about.things,
        hand: about.hand,
        relations: about.relations,
        positions,
        phrases,
        subjects,
    };
    if !is_chat {
        let words = 40 + rng.below(60);
        return Document::plain(
            context,
            Masked::join(page.lines(words, &Practice::LINES, rng), "\n"),
        );
    }
    let words = 5 + rng.below(45);
    let mut lines = page.lines(words, &Practice::LINES, rng);
    let (end, letter) = page.conclusion(rng);
    lines.push(end);
    let Masked { text, ranges } = Masked::join(lines, " ");
    let statements = tagged(&text, letter);
    let tag = statements.find(&text).unwrap_or_default();
    let masked = ranges.into_iter().map(|range| range.start + tag..range.end + tag).collect();
    Document { system: Some(SYSTEM_PROMPT), masked, ..Document::plain(context, statements) }
}

/// The frame or list, then lines as in the prompts of robot questions, without what is asked.
fn context(
    about: &About,
    subjects: &[&str],
    (positions, phrases): (Option<&PositionList>, Option<&PhraseList>),
    rng: &mut Rng,
) -> String {
    let mut lines = vec![about.shown.clone()];
    if !subjects.is_empty() {
        let named: Vec<String> = subjects.iter().map(|name| format!("the {name}")).collect();
        let key = named.join(if rng.chance(0.5) { " on " } else { ", " });
        let count = rng.below(MOST_ROBOT_WORDS + 1);
        let mut words: Vec<String> =
            rng.sample(&ROBOT_WORDS, count).into_iter().map(str::to_owned).collect();
        words.push(among_filler_words(&key, rng));
        lines.push(format!("Task: {}", words.join(" ")));
    }
    let mut add = |line: &str, part: f64, rng: &mut Rng| {
        if rng.chance(part) {
            lines.push(line.to_owned());
        }
    };
    add(AXES, WITH_LINE, rng);
    add(ORIGIN, WITH_LINE, rng);
    if let Some((_, at)) = about.things.first() {
        add(&format!("State: {}", position(*at)), WITH_STATE, rng);
    }
    let lists = positions.map(PositionList::listed).into_iter();
    lines.extend(lists.chain(phrases.map(PhraseList::listed)));
    if rng.chance(WITH_LINE) {
        lines.push(REPLY.to_owned());
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;
    use std::collections::{BTreeSet, HashSet};

    use embodied_r_sim::arm::statement::{direction, rounded};
    use embodied_r_sim::arm::{
        AskedFrame, Demonstration, Task, demonstration, random_scene, worked_answer,
    };

    use super::*;

    fn documents() -> impl Iterator<Item = Document> {
        (0..300).map(|index| match index % 4 {
            0 if index % 8 == 0 => arithmetic_document(1, index),
            0 if index % 16 == 4 => lettered_numbers_document(1, index),
            0 => listed_document(1, index),
            1 => lettered_document(1, index),
            _ => scene_document(&random_scene(1, index), 1, index),
        })
    }

    #[test]
    fn no_document_asks_or_plans() {
        for Document { context, statements, .. } in documents() {
            let text = format!("{context}\n{statements}");
            for word in ["?", "next:", "Next waypoint?", "move gripper", "Move"] {
                assert!(!text.contains(word), "{word} in {text}");
            }
        }
    }

    #[test]
    fn positions_in_statements_are_those_of_the_scene() {
        let mut checked = 0;
        for index in 0..60 {
            let scene = random_scene(4, index);
            let Document { statements, .. } = scene_document(&scene, 4, index);
            let statements = statements.trim_start_matches("<think>");
            for statement in statements.split(". ").flat_map(|line| line.split(".\n")) {
                for (name, at) in things(&scene) {
                    let Some(rest) = statement.strip_prefix(&format!("{name} ")) else { continue };
                    let stated: Vec<&str> = rest.split([' ', ',']).take(3).collect();
                    if stated.iter().all(|word| word.trim_end_matches('.').parse::<f64>().is_ok()) {
                        assert_eq!(
                            stated.join(" ").trim_end_matches('.'),
                            position(at),
                            "{statement}"
                        );
                        checked += 1;
                    }
                }
            }
        }
        assert!(checked > 150, "{checked}");
    }

    #[test]
    fn no_step_follows_on_the_one_that_prepares_it_in_a_rationale() {
        let is_place = |s: &str| {
            let last = s.rsplit(' ').take(3).all(|word| word.parse::<f64>().is_ok());
            last && !s.contains([',', ':']) && !s.starts_with("noted")
        };
        let mut seen = 0;
        for Document { statements, .. } in documents() {
            let statements = statements.trim_start_matches("<think>");
            let statements: Vec<&str> =
                statements.lines().flat_map(|line| line.split(". ")).collect();
            for pair in statements.windows(2) {
                let [first, second] = [pair[0].trim_end_matches('.'), pair[1]];
                let is_chain = (first.contains(", at ")
                    && (second.starts_with("near ") || second.contains(", to ")))
                    || (first.contains(", to ") && second.starts_with("move "))
                    || (is_place(first) && second.starts_with("near "));
                assert!(!is_chain, "{first}. {second}");
                seen += usize::from(first.contains(", at "));
            }
        }
        assert!(seen > 100, "{seen}");
    }

    /// The words of a text with their punctuation, the names of things and numbers masked.
    fn masked(text: &str) -> Vec<String> {
        let mut names = Kind::ALL.map(Kind::name);
        // `phone base` before `phone`.
        names.sort_by_key(|name| Reverse(name.len()));
        let text = names.iter().fold(text.to_owned(), |text, name| text.replace(name, "@"));
        let mask = |word: &str| {
            let value = word.trim_end_matches(['.', ',', ':']);
            match value.parse::<f64>() {
                Ok(_) => word.replace(value, "#"),
                Err(_) => word.to_owned(),
            }
        };
        text.split_whitespace().map(mask).collect()
    }

    /// Words of a gram. A displacement alone has 11, with the position before it 14.
    const GRAM: usize = 15;
    /// At most this share of the grams of a kind of question may be in the corpus.
    const OVERLAP: f64 = 0.01;

    #[test]
    fn hardly_a_15_gram_of_worked_rationales_is_in_the_corpus() {
        let mut known: HashSet<Vec<String>> = HashSet::new();
        for index in 0..600 {
            let scene = scene_document(&random_scene(0, index), 0, index);
            let kinds = [
                listed_document,
                arithmetic_document,
                lettered_document,
                lettered_numbers_document,
            ];
            for document in kinds.map(|kind| kind(0, index)).into_iter().chain([scene]) {
                let text = format!("{}\n{}", document.context, document.statements);
                known.extend(masked(&text).windows(GRAM).map(<[String]>::to_vec));
            }
        }
        for kind in ["waypoint", "movement"] {
            let (mut all, mut shared) = (0, 0);
            for task in Task::ALL {
                for rationale in rationales(kind, &demonstration(5, task, 0)) {
                    for gram in masked(&rationale).windows(GRAM) {
                        all += 1;
                        shared += usize::from(known.contains(gram));
                    }
                }
            }
            println!("{kind}: {shared} of {all} {GRAM}-grams");
            let overlap = shared as f64 / f64::from(all);
            assert!(all > 500 && overlap <= OVERLAP, "{kind}: {shared} of {all}");
        }
    }

    /// The worked reasoning about frames of a demonstration, without tags.
    fn rationales(kind: &str, demonstration: &Demonstration) -> Vec<String> {
        let rationale = |frame| {
            let key_point = demonstration.next_key_point(frame);
            let target = demonstration.steps.get(key_point)?.position;
            let way = sub(rounded(target), rounded(demonstration.steps[frame].position));
            let answer =
                if kind == "movement" { direction(rounded(way)) } else { position(target) };
            let asked = AskedFrame { kind, frame, key_point, options: &[answer] };
            let completion = worked_answer(demonstration, &asked)?.completion;
            let (think, _) = completion.split_once("</think>")?;
            Some(think.trim_start_matches("<think>").to_owned())
        };
        (0..demonstration.steps.len() - 1).step_by(5).filter_map(rationale).collect()
    }

    #[test]
    fn chats_end_with_the_letter_of_an_option() {
        let mut chats = 0;
        for Document { system, context, statements, .. } in documents() {
            if system.is_none() {
                continue;
            }
            chats += 1;
            let (think, answer) = statements.split_once("</think><answer>").unwrap();
            let letter = answer.strip_suffix("</answer>").unwrap();
            assert!(think.starts_with("<think>") && think.ends_with(&format!(": {letter}.")));
            assert!(context.contains(&format!("\n{letter} ")), "{context}");
        }
        assert!((80..150).contains(&chats), "{chats}");
    }

    #[test]
    fn lookups_have_the_letters_of_their_list() {
        let distance = |a: &str, b: &str| -> f64 {
            let of =
                |text: &str| text.split(' ').map(|word| word.parse::<f64>().unwrap()).collect();
            let (a, b): (Vec<f64>, Vec<f64>) = (of(a), of(b));
            a.iter().zip(&b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt()
        };
        let mut seen = BTreeSet::new();
        for index in 0..200 {
            let Document { context, statements, .. } = lettered_document(2, index);
            let options: Vec<(&str, &str)> =
                context.lines().map(|line| line.split_once(' ').unwrap()).collect();
            let is_near = statements.starts_with("near ");
            let count = if is_near { POSITION_LOOKUPS } else { PHRASE_LOOKUPS };
            assert_eq!((options.len(), statements.lines().count()), (4, count));
            let distinct: BTreeSet<&str> = statements.lines().collect();
            assert!(is_near || distinct.len() == count, "{statements}");
            for line in statements.lines() {
                let (content, letter) = line.trim_end_matches('.').split_once(": ").unwrap();
                let (_, option) = options.iter().find(|(other, _)| *other == letter).unwrap();
                match content.strip_prefix("near ") {
                    // What is said is rounded.
                    Some(at) => assert!(
                        options
                            .iter()
                            .all(|(_, it)| distance(it, at) + 0.02 > distance(option, at)),
                        "{context}: {line}"
                    ),
                    None => assert_eq!(content, *option),
                }
                seen.insert((is_near, letter.to_owned()));
            }
        }
        assert_eq!(seen.len(), 8, "{seen:?}");
    }

    #[test]
    fn arithmetic_is_right_and_starts_from_the_listed_gripper() {
        let parsed = |text: &str| -> Vec<i32> {
            let hundredths = |word: &str| (100.0 * word.parse::<f64>().unwrap()).round() as i32;
            text.split(' ').map(hundredths).collect()
        };
        let (mut displacements, mut after_list) = (0, 0);
        for index in 0..100 {
            let Document { context, statements, .. } = arithmetic_document(2, index);
            let result = statements.strip_prefix(' ').unwrap().strip_suffix('.').unwrap();
            let about = context.strip_suffix(':').unwrap();
            let (listed, about) = about.rsplit_once('\n').unwrap_or(("", about));
            after_list += usize::from(!listed.is_empty());
            if let Some(way) = about.strip_prefix("move ") {
                let way: Vec<f64> = parsed(way).iter().map(|it| f64::from(*it) / 100.0).collect();
                assert_eq!(result, direction([way[0], way[1], way[2]]), "{context}");
                continue;
            }
            let (from, to) = about.split_once(", to ").unwrap();
            assert!(listed.is_empty() || listed.lines().any(|line| line == from), "{context}");
            let from = from.strip_prefix("gripper ").unwrap();
            let [from, to, way] = [from, to, result].map(parsed);
            assert!((0..3).all(|axis| to[axis] - from[axis] == way[axis]), "{context}{statements}");
            displacements += 1;
        }
        // 100 draws each: four standard deviations.
        assert!((64..=96).contains(&displacements), "{displacements}");
        assert!((12..=48).contains(&after_list), "{after_list}");
    }

    #[test]
    fn what_is_made_up_is_masked_and_what_follows_is_not() {
        let mut heads = BTreeSet::new();
        for index in 0..200 {
            let document = match index % 2 {
                0 => listed_document(5, index),
                _ => lettered_document(5, index),
            };
            let Document { statements, masked, .. } = document;
            let think = statements.trim_start_matches("<think>");
            let think = think.split("</think>").next().unwrap_or_default();
            let (mut expected, mut is_noted) = (Vec::new(), false);
            for statement in think.split(". ").flat_map(|line| line.split(".\n")) {
                let statement = statement.trim_end_matches('.');
                if let Some(value) = statement.strip_prefix("noted ") {
                    expected.push(("noted ", value));
                    is_noted = true;
                    continue;
                }
                let heads = [", at ", ", to ", "near ", "move "];
                if let Some((about, _)) = statement.split_once(": ") {
                    let value = heads
                        .into_iter()
                        .find_map(|head| Some((head, about.rsplit_once(head)?.1)))
                        .unwrap_or(("", about));
                    // A note has said all of these but heights.
                    expected.extend((!is_noted || value.0 == ", at ").then_some(value));
                }
                is_noted = false;
            }
            let masked = masked.into_iter().map(|range| statements[range].trim_start());
            let values = expected.iter().map(|(_, value)| *value);
            assert!(masked.eq(values), "{statements}: {expected:?}");
            heads.extend(expected.into_iter().map(|(head, _)| head.to_owned()));
        }
        assert_eq!(heads.len(), 6, "{heads:?}");
    }

    #[test]
    fn numbers_have_their_letters_with_and_without_a_colon() {
        let (mut with_colon, mut lengths, mut in_order) = (Vec::new(), BTreeSet::new(), 0);
        for index in 0..60 {
            let Document { context, statements, .. } = lettered_numbers_document(2, index);
            let options: Vec<(&str, Vec<&str>)> = context
                .lines()
                .map(|line| line.split_once(' ').unwrap())
                .map(|(letter, numbers)| {
                    (letter, numbers.split([',', ' ']).filter(|it| !it.is_empty()).collect())
                })
                .collect();
            let numbers: Vec<&str> = options.iter().flat_map(|(_, it)| it).copied().collect();
            lengths.extend(options.iter().map(|(_, numbers)| numbers.len()));
            let all: BTreeSet<&str> = numbers.iter().copied().collect();
            assert_eq!(all.len(), numbers.len(), "{context}");
            let lines: Vec<&str> = statements.lines().collect();
            assert_eq!(lines.len() % numbers.len(), 0);
            for round in lines.chunks(numbers.len()) {
                let looked_up = round.iter().map(|line| {
                    let (number, letter) = line.trim_end_matches('.').rsplit_once(' ').unwrap();
                    with_colon.push(number.ends_with(':'));
                    let number = number.strip_prefix("near ").unwrap().trim_end_matches(':');
                    let (_, option) = options.iter().find(|(other, _)| *other == letter).unwrap();
                    assert!(option.contains(&number), "{context}: {line}");
                    number
                });
                let looked_up: Vec<&str> = looked_up.collect();
                in_order += usize::from(numbers.len() > 3 && looked_up == numbers);
                assert_eq!(looked_up.into_iter().collect::<BTreeSet<_>>(), all, "{statements}");
            }
        }
        assert_eq!(lengths, (1..=6).collect());
        // One in 24 lists of four numbers is.
        assert!(in_order < 5, "{in_order}");
        let part = with_colon.iter().filter(|colon| **colon).count() as f64;
        assert!((part / with_colon.len() as f64 - 0.5).abs() < 0.06, "{part}");
    }

    #[test]
    fn documents_follow_from_seed_and_index() {
        let scene = random_scene(0, 0);
        assert_eq!(scene_document(&scene, 1, 2), scene_document(&scene, 1, 2));
        assert_ne!(scene_document(&scene, 1, 2), scene_document(&scene, 1, 3));
        assert_eq!(listed_document(1, 2), listed_document(1, 2));
        assert_ne!(lettered_document(1, 2), lettered_document(1, 3));
        assert_ne!(listed_document(1, 2), listed_document(2, 2));
    }
}
