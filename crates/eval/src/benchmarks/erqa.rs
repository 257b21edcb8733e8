//! ERQA: embodied reasoning about scenes, actions and trajectories of robots.

use embodied_r_data::multimodal::annotations::{AnnotatedQuestion, Annotation};

use super::{easi, reader};
use crate::benchmark::{
    Benchmark, Categories, Detection, InvalidSolution, Layout, Missing, Scored, Scorer,
};
use crate::error::Result;
use crate::extract::python::strip;
use crate::extract::reasoning::without_reasoning;
use crate::own_prompt::EMBODIED_R_PROMPT;
use crate::predictions::Prediction;
use crate::published::{PublishedTable, measured};

/// ERQA by type of question; overall is the mean over questions.
pub(super) static ERQA: Benchmark = Benchmark {
    name: "erqa",
    title: "ERQA: embodied reasoning, 400 questions, mean over questions",
    categories: Categories::Any,
    detection: Detection::None,
    size: Some(400),
    missing: Missing::Wrong,
    invalid_solution: InvalidSolution::Error,
    scorer: Scorer::micro("official", "lmms-eval since 2026-07-14", official),
    other_scorers: &[Scorer::micro("easi", easi::COMPARABLE, easi::matched)],
    layout: Some(&Layout {
        source: "FlagEval/ERQA",
        files: &["data/test-*.parquet", "test-*.parquet", "*.parquet"],
        columns: &["question_id", "images", "question_type", "answer"],
        prompts: &["official", EMBODIED_R_PROMPT],
        frames: &[],
        question,
    }),
    published: Some(&PublishedTable {
        source: "Qwen3-VL's report, and EASI's verification of its scores",
        caveat: "VLMEvalKit puts the images between the words of the question, this program before it",
        categories: &[],
        rows: &[
            measured("Qwen3-VL-8B", "own report", 45.8),
            measured("Qwen3-VL-8B", "VLMEvalKit", 43.0),
        ],
    }),
};

/// A record, whose question has its options.
fn question(
    annotation: &Annotation<'_>,
    prompt: &str,
) -> embodied_r_data::Result<AnnotatedQuestion> {
    let text = annotation.text("question")?;
    let text = match prompt {
        EMBODIED_R_PROMPT => format!("Question: {}", text.trim()),
        _ => text.to_owned(),
    };
    Ok(AnnotatedQuestion {
        category: annotation.text("question_type")?.to_owned(),
        content: reader::images_first(annotation.images("images"), text),
        answer: reader::answer_letter(annotation, "answer", 'H')?,
        ..reader::question(annotation, &["question_id"])
    })
}

const LETTERS: [char; 4] = ['A', 'B', 'C', 'D'];

/// Phrases behind which an answer stands.
const PHRASES: [&str; 27] = [
    "the answer is",
    "answer is",
    "the correct answer is",
    "correct answer is",
    "the best answer is",
    "best answer is",
    "the correct option is",
    "correct option is",
    "the best option is",
    "best option is",
    "the choice is",
    "choice is",
    "the correct choice is",
    "correct choice is",
    "i choose",
    "i select",
    "i pick",
    "my answer is",
    "my choice is",
    "옵션",
    "정답은",
    "답은",
    "답:",
    "答案是",
    "答案为",
    "选",
    "答えは",
];

/// The candidate with the highest weight, then the last one. Reasoning is removed.
fn official(prediction: &Prediction) -> Result<Scored> {
    let answer = prediction.output.answer().map(without_reasoning);
    let found = answer.as_deref().and_then(extracted);
    Ok(Scored::letter(found, prediction.solution.chars().next()))
}

fn extracted(answer: &str) -> Option<char> {
    let mut text = strip(answer);
    for mark in [',', '.', '!', '?', ';', ':', '\'', '"'] {
        text = text.trim_matches(mark);
    }
    let stripped: Vec<char> = strip(text).chars().collect();
    // A space at either end.
    let text: Vec<char> = format!(" {text} ").chars().collect();
    let mut all = candidates(&text, &stripped);
    if all.is_empty() {
        let last =
            |letter: &char| Some((0, text.iter().rposition(|char| char == letter)?, *letter));
        all = LETTERS.iter().filter_map(last).collect();
    }
    // Of equals, the first one counts.
    let best = all.iter().map(|(weight, place, _)| (*weight, *place)).max()?;
    all.into_iter().find(|(weight, place, _)| (*weight, *place) == best).map(|(.., letter)| letter)
}

/// Letters with the weight of their form and their place.
fn candidates(text: &[char], stripped: &[char]) -> Vec<(u8, usize, char)> {
    let mut all = Vec::new();
    for (weight, before, after) in
        [(6, "(", ")"), (5, "", "."), (4, "", ":"), (3, "", ")"), (2, "", " ")]
    {
        for letter in LETTERS {
            let form: Vec<char> = format!("{before}{letter}{after}").chars().collect();
            let place = text.windows(form.len()).rposition(|part| part == form);
            all.extend(place.map(|place| (weight, place, letter)));
        }
    }
    let lower: Vec<char> = text.iter().flat_map(|char| char.to_lowercase()).collect();
    for phrase in PHRASES {
        let phrase: Vec<char> = phrase.chars().collect();
        let Some(place) = lower.windows(phrase.len()).position(|part| part == phrase) else {
            continue;
        };
        let after = place + phrase.len();
        for letter in LETTERS {
            let place = text.iter().skip(after).position(|char| *char == letter);
            all.extend(place.map(|place| (7, after + place, letter)));
        }
    }
    for letter in LETTERS {
        if stripped.first() == Some(&letter)
            && !stripped.get(1).is_some_and(|it| it.is_alphabetic())
        {
            all.push((10, 0, letter));
        }
    }
    for letter in LETTERS {
        let before = stripped.len().checked_sub(2).map(|at| stripped[at]);
        if stripped.last() == Some(&letter) && !before.is_some_and(char::is_alphabetic) {
            all.push((9, text.len() - 1, letter));
        }
    }
    all
}
