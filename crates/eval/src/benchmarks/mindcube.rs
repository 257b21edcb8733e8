//! MindCube-tiny: scenes seen from limited views.

use std::sync::LazyLock;

use embodied_r_data::multimodal::annotations::{AnnotatedQuestion, Annotation, Content};
use fancy_regex::Regex;

use super::{easi, reader};
use crate::benchmark::{
    Benchmark, Categories, Detection, InvalidSolution, Layout, Missing, Scored, Scorer,
};
use crate::error::Result;
use crate::extract::pattern::{Pattern, letter, letters, pattern};
use crate::extract::python::strip;
use crate::own_prompt::EMBODIED_R_PROMPT;
use crate::predictions::Prediction;
use crate::published::{PublishedTable, measured};

/// MindCube-tiny, by setting; overall is the mean over questions, of the official scorer without `translation`.
pub(super) static MINDCUBE_TINY: Benchmark = Benchmark {
    name: "mindcube-tiny",
    title: "MindCube-tiny: scenes from limited views, by setting, mean over questions",
    categories: Categories::listed(&["among", "around", "rotation", "translation", "other"]),
    detection: Detection::None,
    size: None,
    missing: Missing::Wrong,
    invalid_solution: InvalidSolution::Error,
    scorer: Scorer {
        uncounted: &["translation"],
        ..Scorer::micro(
            "official",
            "MindCube's own code; its data was corrected on 2026-03-23",
            official,
        )
    },
    other_scorers: &[Scorer::micro("easi", easi::COMPARABLE, easi::matched)],
    layout: Some(&Layout {
        source: "MLL-Lab/MindCube",
        files: &[
            "MindCube_tinybench_raw_qa.jsonl",
            "prompts/general/MindCube_tinybench_raw_qa.jsonl",
            "data/prompts/general/MindCube_tinybench_raw_qa.jsonl",
            "MindCube_tinybench.jsonl",
            "raw/MindCube_tinybench.jsonl",
            "data/raw/MindCube_tinybench.jsonl",
            "tiny/combined*.parquet",
        ],
        columns: &["gt_answer", "images"],
        prompts: &["official", "easi", EMBODIED_R_PROMPT],
        frames: &[],
        question,
    }),
    published: Some(&PublishedTable {
        source: "MindCube's paper, and EASI's verification of its scores",
        caveat: "the data was corrected on 2026-03-23: compare only with scores on data of the same SHA-256 digest",
        categories: &[],
        rows: &[
            measured("Qwen2.5-VL-3B", "paper", 37.8),
            measured("Qwen2.5-VL-3B", "VLMEvalKit", 37.9),
            measured("Qwen2.5-VL-3B", "lmms-eval", 36.9),
        ],
    }),
};

/// What the authors' prompts say before the question, for files without prompts.
const TASK: &str = "[Task]\nYour task is to analyze the spatial arrangement of objects in the scene by examining the provided \
images, which show the scene from different viewpoints.\n[Answer Instruction]\nYou only need to provide *ONE* correct answer \
selecting from the options listed below. For example, if you think the correct answer is 'A. Above' from 'A. Above B. Under C. \
Front D. Behind', your response should **only** be '<answer>A. Above</answer>'.\n\n[Question]\n";

/// A record; the stored prompt has a marker for each image.
fn question(
    annotation: &Annotation<'_>,
    prompt: &str,
) -> embodied_r_data::Result<AnnotatedQuestion> {
    let text = match (prompt, annotation.value("question")) {
        (EMBODIED_R_PROMPT, Some(_)) => format!("Question: {}", annotation.text("question")?),
        _ if annotation.value("input_prompt").is_some() => {
            annotation.text("input_prompt")?.to_owned()
        }
        _ => format!("{TASK}{}", annotation.text("question")?),
    };
    let id = annotation.id(&["id"]);
    let category = setting(id.as_str().unwrap_or_default()).to_owned();
    Ok(AnnotatedQuestion {
        category,
        content: interleaved(annotation, &text),
        answer: reader::answer_letter(annotation, "gt_answer", 'J')?,
        id,
        ..reader::question(annotation, &[])
    })
}

/// The pieces of the text, with the images at its markers; images without a marker come first.
fn interleaved(annotation: &Annotation<'_>, text: &str) -> Vec<Content> {
    const MARKER: &str = "<image>";
    let images = annotation.images("images");
    let pieces: Vec<&str> = text.split(MARKER).collect();
    let unmarked = images.len().saturating_sub(pieces.len() - 1);
    let mut images = images.into_iter();
    let mut content: Vec<Content> = images.by_ref().take(unmarked).collect();
    for (index, piece) in pieces.iter().enumerate() {
        if index > 0 {
            content.extend(images.next());
        }
        let piece = piece.trim();
        if !piece.is_empty() {
            content.push(Content::Text(piece.to_owned()));
        }
    }
    content
}

/// The setting that an identifier names.
fn setting(id: &str) -> &'static str {
    let id = id.to_lowercase();
    let known = ["around", "rotation", "translation", "among"];
    known.into_iter().find(|name| id.contains(name)).unwrap_or("other")
}

/// The letter by the authors' extraction, of the whole output.
fn official(prediction: &Prediction) -> Result<Scored> {
    let answer = prediction.output.answer().map(strip);
    Ok(Scored::letter(answer.and_then(extracted), prediction.solution.chars().next()))
}

/// Patterns of the section behind `<Answer>`, the first that matches counts.
static IN_SECTION: LazyLock<Vec<Option<Regex>>> = LazyLock::new(|| {
    let patterns = [
        "[Mm]y answer is ([A-E])",
        "[Tt]he answer is ([A-E])",
        r"(?:Answer: )?([A-E])\.",
        "‹([A-E])›",
    ];
    patterns.map(pattern).into()
});

/// Patterns of the whole text without a letter before a full stop, the first that matches counts.
static IN_TEXT: LazyLock<Vec<Option<Regex>>> = LazyLock::new(|| {
    let patterns = [
        r"(?:^|\n)(?:Answer: )?([A-E])(?:\z|[\s\x1c-\x1f])",
        r#"[*"]([A-E])[*"]"#,
        "‹Answer:?~([A-E])›",
        "[Mm]y answer is ([A-E])",
        "answer is ([A-E])",
    ];
    patterns.map(pattern).into()
});

static SECTION: Pattern = LazyLock::new(|| pattern(r"(?s)<Answer>(.*?)(?:<|\z)"));

static WORD: Pattern = LazyLock::new(|| pattern("‹([A-E])›"));

/// The last letter before a full stop; else the last one of the first pattern that matches, in the section behind `<Answer>`
/// or in the whole text; else the first word letter of the lowest line that has one.
fn extracted(text: &str) -> Option<char> {
    let chars: Vec<char> = text.chars().collect();
    let before_stop = chars.windows(2).rev().find(|pair| is_letter(pair[0]) && pair[1] == '.');
    if let Some(pair) = before_stop {
        return Some(pair[0]);
    }
    let section = SECTION.as_ref().and_then(|section| section.captures(text).ok()?);
    let section = section.as_ref().and_then(|found| found.get(1)).map(|found| found.as_str());
    section
        .and_then(|section| last_of_first(&IN_SECTION, section))
        .or_else(|| last_of_first(&IN_TEXT, text))
        .or_else(|| text.split('\n').rev().find_map(|line| letter(&WORD, line)))
}

fn is_letter(char: char) -> bool {
    ('A'..='E').contains(&char)
}

/// The last letter that the first matching pattern captures.
fn last_of_first(patterns: &[Option<Regex>], text: &str) -> Option<char> {
    patterns.iter().find_map(|pattern| letters(pattern, text).last())
}
