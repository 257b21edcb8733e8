//! Pre-training text for a small model: captions of rooms followed by true statements.
//!
//! The statements are the building blocks of rationales (lookups, running sums, comparisons, letters
//! of choices), mixed at random. The benchmarks' questions do not occur in it.

mod choices;
mod drills;
mod key_phrase;
mod recall;
mod statements;

use embodied_r_data::prompts::{judge_system_prompt, judge_user_prompt, video_prompt};

use self::choices::Choices;
use self::statements::Statements;
use crate::caption_trace::CaptionTrace;
use crate::captions::captions_at;
use crate::question_template::Category;
use crate::questions::text_question;
use crate::rng::Rng;
use crate::world::{draw, keyframes_by_pose, names};

/// Fraction of documents that are lists for recall.
const RECALL: f64 = 0.25;
/// Fraction of documents without context: sums, comparisons and letters only.
const DRILLS_ONLY: f64 = 0.08;
/// Within a room document, the fraction of statements unrelated to the room.
const DRILLS_BETWEEN: f64 = 0.12;
/// Fraction of room documents with choices.
const CHOICES: f64 = 0.75;
/// Within a document with choices, the fraction of statements about them.
const CHOICES_BETWEEN: f64 = 0.5;
/// Within a room document, the fraction of the remaining statements about the prompt's subject.
const SUBJECT_BETWEEN: f64 = 0.2;

/// A pre-training document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// The context, such as captions. It is unpredictable and thus masked from the loss.
    pub context: String,
    /// The statements that follow from it; the loss is computed on these.
    pub statements: String,
}

/// Recall document `index` of `seed`: a plain list of bearings or letters by name, repeated in
/// random order.
pub fn recall_document(seed: u64, index: u64) -> Document {
    recall::pairs(&mut Rng::new(&[seed, index, 10]))
}

/// Lookup document `index` of `seed`: lookups by name in a plain list, in lettered choices, or in a
/// video in which every object is visible once.
pub fn lookup_document(seed: u64, index: u64) -> Document {
    let mut rng = Rng::new(&[seed, index, 11]);
    match rng.below(4) {
        0 => recall::pairs(&mut rng),
        1 => recall::choices(&mut rng),
        _ => recall::sights(&mut rng),
    }
}

/// Document `index` of `seed`: a room's captions in the prompt format (`Frame 0: Observe: …`), a
/// named subject and mostly choices, followed by groups of statements, one group per line, of which
/// the first is about the subject. Some documents have a list or no context in place of captions.
pub fn document(seed: u64, index: u64) -> Document {
    generate(&mut Rng::new(&[seed, index, 7]), &[seed, index, 8], true)
}

/// Like [`document`], but without a subject: the statements are about random objects.
pub fn document_without_subject(seed: u64, index: u64) -> Document {
    generate(&mut Rng::new(&[seed, index, 12]), &[seed, index, 13], false)
}

fn generate(rng: &mut Rng, scene: &[u64], with_subject: bool) -> Document {
    if rng.chance(RECALL) {
        return recall::any(rng);
    }
    let words = 150 + rng.below(150);
    if rng.chance(DRILLS_ONLY) {
        let statements = lines_of(words, || drills::any(rng));
        return Document { context: String::new(), statements };
    }
    let scene = draw(scene);
    let captions = captions_at(&scene, &keyframes_by_pose(&scene));
    let names = names(&scene);
    let choices = rng.chance(CHOICES).then(|| Choices::of(&names, rng));
    let context = video_prompt(&captions);
    let Some(trace) = CaptionTrace::from_captions(&captions) else {
        return Document { context, statements: String::new() };
    };
    let all = Statements::new(&names, &trace);
    let named = if with_subject { all.subject(rng) } else { None };
    let context = prompt(context, named.as_deref(), choices.as_ref(), rng);
    let mut is_first = named.is_some();
    let statements = lines_of(words, || {
        let first = std::mem::take(&mut is_first);
        match (&choices, &named) {
            (Some(choices), _) if first || rng.chance(CHOICES_BETWEEN) => {
                let subject = named.clone().or_else(|| all.subject(rng));
                let reasoned = subject.filter(|_| first || rng.chance(0.7));
                let reasoned = reasoned.and_then(|subject| choices.reasoned(&subject, &trace));
                reasoned.unwrap_or_else(|| choices.with_some_letters(rng))
            }
            (_, Some(subject)) if first || rng.chance(SUBJECT_BETWEEN) => all.about(subject, rng),
            _ if rng.chance(DRILLS_BETWEEN) => drills::any(rng),
            _ => all.any(rng),
        }
    });
    Document { context, statements }
}

/// Captions, then the subject, then choices.
fn prompt(
    captions: String,
    subject: Option<&str>,
    choices: Option<&Choices>,
    rng: &mut Rng,
) -> String {
    let mut key: Vec<String> = subject.map(key_phrase::object).into_iter().collect();
    key.extend(choices.into_iter().flat_map(Choices::key));
    rng.shuffle(&mut key);
    let mut parts = vec![captions];
    if !key.is_empty() {
        parts.push(key_phrase::among_filler_words(&key, rng));
    }
    parts.extend(choices.map(Choices::listed));
    parts.join("\n")
}

/// Generates lines until they have `words` words or more.
fn lines_of(words: usize, mut line: impl FnMut() -> String) -> String {
    let (mut lines, mut count) = (Vec::new(), 0);
    while count < words {
        let line = line();
        count += line.split_whitespace().count().max(1);
        lines.push(line);
    }
    lines.join("\n")
}

/// An example of the consistency judge's task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JudgeExample {
    /// The system prompt.
    pub system: String,
    /// The question and a rationale.
    pub user: String,
    /// The option that the rationale concludes.
    pub letter: char,
}

/// Example `index` of `seed`, about a question of one of `categories`. In half of the examples the
/// conclusion is replaced by a random option, since the judge must follow the reasoning whether it
/// is correct or not. `None` without categories.
pub fn judge_example(seed: u64, index: u64, categories: &[Category]) -> Option<JudgeExample> {
    let found = text_question(seed, index, categories)?;
    let mut rng = Rng::new(&[seed, index, 9]);
    let options = &found.question.options;
    let rationale = match rng.chance(0.5) {
        true => found.rationale.concluding(options, rng.below(options.len())),
        false => found.rationale,
    };
    Some(JudgeExample {
        system: judge_system_prompt().to_owned(),
        user: judge_user_prompt(&found.question.text, &rationale.think()),
        letter: rationale.answer,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;
    use crate::rationale::so_text;

    /// Context and statements.
    fn text(seed: u64, index: u64) -> String {
        let Document { context, statements } = document(seed, index);
        format!("{context}\n{statements}")
    }

    /// The subject named after a context's captions.
    fn named(context: &str) -> Option<String> {
        let (_, behind) = context.split_once("\n>\n")?;
        let key = behind.lines().next()?.replace("at the start", "");
        let (_, name) = key.split_once("the ")?;
        name.split(' ').next().map(str::to_owned)
    }

    #[test]
    fn documents_start_with_their_subject_and_others_have_none() {
        let (mut about, mut rooms) = (0, 0);
        for index in 0..300 {
            let Document { context, statements } = document(1, index);
            let Some(name) = named(&context) else { continue };
            rooms += 1;
            // Choices of sides, steps, orders and rotations are not about a single object.
            let first = statements.lines().next().unwrap();
            let kind = ["first ", "last ", "all "].into_iter().find(|kind| first.starts_with(kind));
            let chain = first.split_once(". last ").map(|(_, rest)| rest);
            if let Some(subject) = kind.and_then(|kind| first.strip_prefix(kind)).or(chain) {
                assert!(subject.starts_with(&name), "{name}: {first}");
                about += 1;
            }
        }
        assert!(rooms > 150 && about > 60, "{rooms} {about}");
        assert!((0..300).all(|index| named(&document_without_subject(1, index).context).is_none()));
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
            let text = text(3, index);
            assert!(!text.contains('?') && !text.contains("Question"), "{text}");
        }
    }

    #[test]
    fn the_vocabulary_is_small_and_every_word_is_frequent() {
        let mut counts: HashMap<String, usize> = HashMap::new();
        for index in 0..500 {
            for word in text(4, index).split(|c: char| !c.is_ascii_alphanumeric()) {
                *counts.entry(word.to_owned()).or_default() += 1;
            }
        }
        assert!(counts.len() < 160, "{} words", counts.len());
        let rare: Vec<_> = counts.iter().filter(|(_, count)| **count < 5).collect();
        assert!(rare.len() <= 5, "{rare:?}");
    }

    #[test]
    fn every_word_of_a_rationale_is_in_the_corpus() {
        let words = |text: &str| -> HashSet<String> {
            text.split(|c: char| !c.is_ascii_alphanumeric()).map(str::to_owned).collect()
        };
        let known = words(&(0..500).map(|index| text(4, index)).collect::<Vec<_>>().join(" "));
        for category in Category::ALL {
            for index in 0..50 {
                let found = text_question(9, index, &[category]).unwrap();
                let think = found.rationale.think();
                let unknown: Vec<_> = words(&think).difference(&known).cloned().collect();
                assert_eq!(unknown, Vec::<String>::new(), "{think}");
            }
        }
    }

    #[test]
    fn the_judge_follows_correct_and_wrong_reasoning() {
        let mut changed = 0;
        for index in 0..100 {
            let example = judge_example(2, index, &[Category::LandmarkPosition]).unwrap();
            let found = text_question(2, index, &[Category::LandmarkPosition]).unwrap();
            changed += usize::from(example.letter != found.question.answer);
            let (_, content) = example
                .user
                .lines()
                .find_map(|line| line.split_once(&format!("{}. ", example.letter)))
                .unwrap();
            assert!(example.user.contains(&so_text(content, example.letter)), "{}", example.user);
            assert!(!example.user.contains("Observe"));
        }
        assert!((20..60).contains(&changed), "{changed}");
    }
}
