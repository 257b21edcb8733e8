//! MMSI-Bench: spatial questions about several images.

use std::sync::LazyLock;

use embodied_r_data::multimodal::annotations::{AnnotatedQuestion, Annotation};
use fancy_regex::Regex;

use super::{easi, reader};
use crate::benchmark::{
    Benchmark, Categories, Detection, InvalidSolution, Layout, Missing, Scored, Scorer,
};
use crate::error::Result;
use crate::extract::pattern::{Pattern, letter, pattern};
use crate::extract::reasoning::without_reasoning;
use crate::own_prompt::EMBODIED_R_PROMPT;
use crate::predictions::Prediction;
use crate::published::{PublishedTable, measured};

/// MMSI-Bench's eleven types of questions; overall is the mean over questions.
pub(super) static MMSI_BENCH: Benchmark = Benchmark {
    name: "mmsi-bench",
    title: "MMSI-Bench: questions about several images, mean over questions",
    categories: Categories::Listed { names: &CATEGORIES, levels: &SPELLINGS },
    detection: Detection::None,
    size: Some(1000),
    missing: Missing::Wrong,
    invalid_solution: InvalidSolution::Error,
    scorer: Scorer::micro(
        "official",
        "lmms-eval; not the authors' own code, in which a judge scores again",
        official,
    ),
    other_scorers: &[Scorer::micro("easi", easi::COMPARABLE, easi::matched)],
    layout: Some(&Layout {
        source: "RunsenXu/MMSI-Bench",
        files: &["MMSI_Bench.parquet", "data/test-*.parquet", "*.parquet"],
        columns: &["id", "images", "question_type", "answer"],
        prompts: &["official", EMBODIED_R_PROMPT],
        frames: &[],
        question,
    }),
    published: Some(&PublishedTable {
        source: "MMSI-Bench's paper, and EASI's verification of its scores",
        caveat: "EASI's prompt lists the options apart from the question",
        categories: &[],
        rows: &[
            measured("Qwen2.5-VL-3B", "paper", 26.5),
            measured("Qwen2.5-VL-3B", "VLMEvalKit", 28.6),
            measured("Qwen2.5-VL-3B", "lmms-eval", 29.3),
        ],
    }),
};

const CATEGORIES: [&str; 11] = [
    "Positional Relationship (Cam.–Cam.)",
    "Positional Relationship (Obj.–Obj.)",
    "Positional Relationship (Reg.–Reg.)",
    "Positional Relationship (Cam.–Obj.)",
    "Positional Relationship (Obj.–Reg.)",
    "Positional Relationship (Cam.–Reg.)",
    "Attribute (Meas.)",
    "Attribute (Appr.)",
    "Motion (Cam.)",
    "Motion (Obj.)",
    "MSR",
];

/// Later data has hyphens in place of dashes.
const SPELLINGS: [(&str, &str); 6] = [
    ("Positional Relationship (Cam.-Cam.)", CATEGORIES[0]),
    ("Positional Relationship (Obj.-Obj.)", CATEGORIES[1]),
    ("Positional Relationship (Reg.-Reg.)", CATEGORIES[2]),
    ("Positional Relationship (Cam.-Obj.)", CATEGORIES[3]),
    ("Positional Relationship (Obj.-Reg.)", CATEGORIES[4]),
    ("Positional Relationship (Cam.-Reg.)", CATEGORIES[5]),
];

/// A record, whose question has its options.
fn question(
    annotation: &Annotation<'_>,
    prompt: &str,
) -> embodied_r_data::Result<AnnotatedQuestion> {
    let text = annotation.text("question")?.trim();
    let text = match prompt {
        EMBODIED_R_PROMPT => format!("Question: {text}"),
        _ => format!(
            "{text}\nAnswer with the option's letter from the given choices directly. Enclose the option's letter within ``."
        ),
    };
    Ok(AnnotatedQuestion {
        category: annotation.text("question_type")?.to_owned(),
        content: reader::images_first(annotation.images("images"), text),
        answer: reader::answer_letter(annotation, "answer", 'F')?,
        ..reader::question(annotation, &["id"])
    })
}

/// A letter from A to F of either case that no word follows, of the first text between two backticks, then one, then
/// braces. Reasoning is removed.
fn official(prediction: &Prediction) -> Result<Scored> {
    let answer = prediction.output.answer().map(without_reasoning);
    let found = answer.as_deref().and_then(extracted);
    Ok(Scored::letter(found, prediction.solution.chars().next()))
}

fn extracted(answer: &str) -> Option<char> {
    static ENCLOSED: LazyLock<Vec<Option<Regex>>> =
        LazyLock::new(|| ["``([^`]*)``", "`([^`]*)`", r"\{([^}]*)\}"].map(pattern).into());
    static LETTER: Pattern = LazyLock::new(|| pattern(r"(?i)‹([a-f])›(?![\s\x1c-\x1f][a-zİı])"));
    let mut text = answer.to_owned();
    for pattern in ENCLOSED.iter().flatten() {
        if let Some(inner) = pattern.captures(&text).ok().flatten().and_then(|found| found.get(1)) {
            text = inner.as_str().to_owned();
        }
    }
    letter(&LETTER, &text)
}
