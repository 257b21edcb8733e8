//! Pre-training text for a small model: captions of rooms followed by true statements about them.
//!
//! Every statement is one step: a lookup in the captions, a sum or a comparison of two angles, the name of a direction,
//! or the letter of a content in an unrelated list. Each stands on a line of its own, between statements of other kinds,
//! so that no line prepares the next. Neither questions nor chains of steps that would answer one occur.

mod drills;
mod key_phrase;
mod letters;
mod lookups;
mod recall;

use embodied_r_data::prompts::video_prompt;

use self::letters::LetteredList;
use self::lookups::{Lookup, Lookups};
use crate::caption_trace::CaptionTrace;
use crate::captions::captions_at;
use crate::rng::Rng;
use crate::world::{draw, keyframes_by_pose, names};

/// Fraction of documents that are lists for recall.
const RECALL: f64 = 0.25;
/// Fraction of documents without context: drills only.
const DRILLS_ONLY: f64 = 0.08;
/// Fraction of room documents with a lettered list.
const LETTERED: f64 = 0.75;
/// Fraction of lines after the first about the prompt's subject.
const SUBJECT_BETWEEN: f64 = 0.2;

/// The same if the prompt has several subjects.
const LISTED_BETWEEN: f64 = 0.5;

/// A pre-training document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// The context, such as captions. It is unpredictable and thus masked from the loss.
    pub context: String,
    /// The statements that follow from it; the loss is computed on these.
    pub statements: String,
}

/// A kind of line in a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Practice {
    Lookup(Lookup),
    /// The letter of a content.
    Letter,
    Sum,
    Quadrant,
    Comparison,
}

impl Practice {
    /// Lines about a video, with their weights.
    const LOOKUPS: [(Self, usize); 7] = [
        (Self::Lookup(Lookup::First), 4),
        (Self::Lookup(Lookup::Last), 6),
        (Self::Lookup(Lookup::Faced), 5),
        (Self::Lookup(Lookup::Every), 2),
        (Self::Lookup(Lookup::View), 2),
        (Self::Lookup(Lookup::Action), 5),
        (Self::Letter, 5),
    ];

    /// Lines without a context, with their weights.
    const DRILLS: [(Self, usize); 3] = [(Self::Sum, 5), (Self::Quadrant, 2), (Self::Comparison, 1)];

    /// Kinds that follow each other when an object is tracked through a video.
    const TRACKING: [(Self, Self); 3] = [
        (Self::Lookup(Lookup::Last), Self::Lookup(Lookup::Action)),
        (Self::Lookup(Lookup::Action), Self::Sum),
        (Self::Sum, Self::Lookup(Lookup::Action)),
    ];

    /// Whether this kind may follow on a line of `before`: it is another kind, and the two are no steps of tracking.
    fn may_follow(self, before: Option<Self>) -> bool {
        before.is_none_or(|before| before != self && !Self::TRACKING.contains(&(before, self)))
    }
}

/// Recall document `index` of `seed`: a plain list of bearings or letters by name, repeated in
/// random order.
pub fn recall_document(seed: u64, index: u64) -> Document {
    recall::pairs(&mut Rng::new(&[seed, index, 10]))
}

/// Lookup document `index` of `seed`: lookups by name in a plain list, in a lettered list, or in a
/// video in which every object is visible once.
pub fn lookup_document(seed: u64, index: u64) -> Document {
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
pub fn document(seed: u64, index: u64) -> Document {
    generate(&mut Rng::new(&[seed, index, 7]), &[seed, index, 8], Subjects::One)
}

/// Like [`document`], but without a subject: the statements are about random objects.
pub fn document_without_subject(seed: u64, index: u64) -> Document {
    generate(&mut Rng::new(&[seed, index, 12]), &[seed, index, 13], Subjects::None)
}

/// Like [`document`], but half of the documents name several subjects; statements of random kinds are about each of them in
/// turn.
pub fn document_with_list(seed: u64, index: u64) -> Document {
    let mut rng = Rng::new(&[seed, index, 14]);
    let subjects = if rng.chance(0.5) { Subjects::Listed } else { Subjects::One };
    generate(&mut rng, &[seed, index, 15], subjects)
}

/// What objects a document's prompt names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Subjects {
    None,
    One,
    Listed,
}

fn generate(rng: &mut Rng, scene: &[u64], subjects: Subjects) -> Document {
    if rng.chance(RECALL) {
        return recall::any(rng);
    }
    let words = 150 + rng.below(150);
    if rng.chance(DRILLS_ONLY) {
        let statements = Page::default().lines(words, &Practice::DRILLS, rng);
        return Document { context: String::new(), statements };
    }
    let scene = draw(scene);
    let captions = captions_at(&scene, &keyframes_by_pose(&scene));
    let names = names(&scene);
    let list = rng.chance(LETTERED).then(|| LetteredList::random(rng));
    let context = video_prompt(&captions);
    let Some(trace) = CaptionTrace::from_captions(&captions) else {
        return Document { context, statements: String::new() };
    };
    let lookups = Lookups::new(&names, &trace);
    let subjects = match subjects {
        Subjects::None => Vec::new(),
        Subjects::One => lookups.subject(rng).into_iter().collect(),
        Subjects::Listed => {
            let count = 3 + rng.below(2);
            rng.sample(&names, count)
        }
    };
    let context = prompt(context, &subjects, list.as_ref(), rng);
    let practice = [&Practice::LOOKUPS[..], &Practice::DRILLS].concat();
    let statements = Page { lookups: Some(lookups), list, subjects }.lines(words, &practice, rng);
    Document { context, statements }
}

/// Captions, then the subjects, then the lettered list.
fn prompt(
    captions: String,
    subjects: &[String],
    list: Option<&LetteredList>,
    rng: &mut Rng,
) -> String {
    let mut parts = vec![captions];
    if !subjects.is_empty() {
        let key = key_phrase::objects(subjects, rng);
        parts.push(key_phrase::among_filler_words(&key, rng));
    }
    parts.extend(list.map(LetteredList::listed));
    parts.join("\n")
}

/// What the lines of a document are about.
#[derive(Default)]
struct Page<'a> {
    lookups: Option<Lookups<'a>>,
    list: Option<LetteredList>,
    /// The objects that the first line and some others are about, in turn.
    subjects: Vec<String>,
}

impl Page<'_> {
    /// Lines of random kinds with `words` words or more in all; kinds that lack their context are left out.
    fn lines(&self, words: usize, practice: &[(Practice, usize)], rng: &mut Rng) -> String {
        let kinds: Vec<Practice> = practice
            .iter()
            .flat_map(|(kind, weight)| std::iter::repeat_n(*kind, *weight))
            .collect();
        let between = if self.subjects.len() > 1 { LISTED_BETWEEN } else { SUBJECT_BETWEEN };
        let mut turns = self.subjects.iter().cycle().peekable();
        let (mut lines, mut count, mut before) = (Vec::new(), 0, None);
        while count < words {
            let subject = turns.peek().copied().filter(|_| lines.is_empty() || rng.chance(between));
            let kind = match subject {
                Some(_) => rng.pick(&Lookup::BY_NAME).map(|lookup| Practice::Lookup(*lookup)),
                None => rng.pick(&kinds).copied(),
            };
            let Some(kind) = kind.filter(|kind| kind.may_follow(before)) else { continue };
            let Some(line) = self.line(kind, subject, rng) else { continue };
            if subject.is_some() {
                turns.next();
            }
            count += line.split_whitespace().count();
            lines.push(line);
            before = Some(kind);
        }
        lines.join("\n")
    }

    /// A line; `None` if it needs a context that the page lacks.
    fn line(&self, kind: Practice, subject: Option<&String>, rng: &mut Rng) -> Option<String> {
        Some(match (kind, subject) {
            (Practice::Lookup(lookup), Some(name)) => self.lookups.as_ref()?.about(lookup, name),
            (Practice::Lookup(lookup), None) => self.lookups.as_ref()?.any(lookup, rng),
            (Practice::Letter, _) => self.list.as_ref()?.lookup(rng),
            (Practice::Sum, _) => drills::sum(rng),
            (Practice::Quadrant, _) => drills::quadrant(rng),
            (Practice::Comparison, _) => drills::comparison(rng),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;
    use crate::catalogue::KINDS;
    use crate::question_template::Category;
    use crate::questions::text_question;

    /// Context and statements.
    fn text(Document { context, statements }: Document) -> String {
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
            let Document { context, statements } = document(1, index);
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
            let Document { context, statements } = document_with_list(1, index);
            let Some((_, behind)) = context.split_once("\n>\n") else { continue };
            let key = behind.lines().next().unwrap();
            let names: Vec<&str> = key
                .split([' ', ','])
                .filter(|word| KINDS.iter().any(|kind| kind.name == *word))
                .collect();
            if names.len() < 3 {
                continue;
            }
            lists += 1;
            let first = statements.lines().next().unwrap();
            assert!(first.contains(names[0]), "{key}: {first}");
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
    fn a_document_depends_on_seed_and_index_alone() {
        assert_eq!(document(1, 2), document(1, 2));
        assert_ne!(document(1, 2), document(2, 1));
    }

    #[test]
    fn no_question_of_the_benchmarks_is_in_the_corpus() {
        for index in 0..300 {
            let text = text(document(3, index));
            assert!(!text.contains('?') && !text.contains("Question"), "{text}");
        }
    }

    /// The words of a text, with names and numbers masked.
    fn masked(text: &str) -> Vec<&str> {
        let mask = |word: &'_ str| match word {
            word if word.bytes().all(|byte| byte.is_ascii_digit()) => "#",
            word if KINDS.iter().any(|kind| kind.name == word) => "@",
            _ => "",
        };
        text.split(|c: char| !c.is_ascii_alphanumeric())
            .filter(|word| !word.is_empty())
            .map(|word| if mask(word).is_empty() { word } else { mask(word) })
            .collect()
    }

    /// At most this share of a category's 13-grams may be in the corpus. Those that are there copy a caption's `rotate
    /// left 60 and move forward 1 m`, nine words that a single sum has too.
    const OVERLAP: f64 = 0.05;

    #[test]
    fn few_13_grams_of_worked_rationales_are_in_the_corpus() {
        let mut known: HashSet<Vec<&str>> = HashSet::new();
        let kinds = [
            document,
            document_without_subject,
            document_with_list,
            lookup_document,
            recall_document,
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

    #[test]
    fn no_line_prepares_the_next() {
        for index in 0..400 {
            let kind = if index % 2 == 0 { document } else { document_with_list };
            let Document { statements, .. } = kind(6, index);
            let kinds: Vec<&str> =
                statements.lines().map(|line| line.split(' ').next().unwrap_or("")).collect();
            for pair in kinds.windows(2) {
                let same = pair[0] == pair[1] && ["first", "last", "faced"].contains(&pair[0]);
                assert!(!same && pair != ["last", "frame"], "{statements}");
            }
        }
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
