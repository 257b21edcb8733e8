//! BLINK: perception in fourteen tasks.

use std::sync::LazyLock;

use embodied_r_data::multimodal::annotations::{AnnotatedQuestion, Annotation, Content};
use fancy_regex::Regex;
use serde_json::Value;

use super::{easi, leading_letter, reader};
use crate::benchmark::{
    Benchmark, Categories, Detection, InvalidSolution, Layout, Missing, Scored, Scorer,
};
use crate::error::Result;
use crate::extract::pattern::{Pattern, letter, letters, pattern};
use crate::extract::python::strip;
use crate::extract::reasoning::without_reasoning;
use crate::own_prompt::EMBODIED_R_PROMPT;
use crate::predictions::Prediction;
use crate::published::{PublishedTable, measured};

/// BLINK's fourteen tasks; overall is the mean over tasks, of `easi` over questions.
pub(super) static BLINK: Benchmark = Benchmark {
    name: "blink",
    title: "BLINK: perception in fourteen tasks, mean over tasks",
    categories: Categories::Any,
    detection: Detection::None,
    size: None,
    missing: Missing::Wrong,
    invalid_solution: InvalidSolution::Error,
    scorer: Scorer::macro_("official", "lmms-eval before 0.7.3", leading_letter::official),
    other_scorers: &[
        Scorer::macro_("lmms-2026", "lmms-eval 0.7.3", lmms),
        Scorer::micro("easi", easi::COMPARABLE, easi::inferred),
    ],
    layout: Some(&Layout {
        source: "BLINK-Benchmark/BLINK",
        files: &["*/val-*.parquet", "val-*.parquet", "*/val*.parquet"],
        columns: &["sub_task", "image_1", "choices"],
        prompts: &["official", "easi", EMBODIED_R_PROMPT],
        frames: &[],
        question,
    }),
    published: Some(&PublishedTable {
        source: "Qwen3-VL's report, and EASI's verification of its scores",
        caveat: "EASI's overall score is the mean over questions",
        categories: &[],
        rows: &[
            measured("Qwen3-VL-2B", "own report", 53.8),
            measured("Qwen3-VL-2B", "VLMEvalKit", 53.2),
            measured("Qwen3-VL-2B", "lmms-eval", 52.5),
            measured("Qwen3-VL-8B", "own report", 69.1),
            measured("Qwen3-VL-8B", "VLMEvalKit", 66.7),
            measured("Qwen3-VL-8B", "lmms-eval", 64.9),
        ],
    }),
};

/// Columns of images.
const IMAGES: [&str; 4] = ["image_1", "image_2", "image_3", "image_4"];

/// A record, whose `prompt` has the options.
fn question(
    annotation: &Annotation<'_>,
    prompt: &str,
) -> embodied_r_data::Result<AnnotatedQuestion> {
    let options = annotation.texts("choices")?;
    let letters: Vec<String> = ('A'..='Z').take(options.len()).map(String::from).collect();
    let message = match prompt {
        EMBODIED_R_PROMPT => reader::own_text(annotation.text("question")?, &options),
        "easi" => format!(
            "Question: {}\nOptions:\n{}\nPlease select the correct answer from the options above. \n",
            annotation.text("question")?,
            reader::lettered(&options, ". ").join("\n")
        ),
        _ => format!(
            "Note: You only need to respond with {} without providing any additional information.\n{}",
            letters.join(", "),
            annotation.text("prompt")?
        ),
    };
    let images = IMAGES.into_iter().filter(|column| annotation.image_count(column) > 0);
    let images = images.map(|column| Content::Image(column, 0)).collect();
    Ok(AnnotatedQuestion {
        category: annotation.text("sub_task")?.to_owned(),
        content: reader::images_first(images, message),
        answer: reader::answer_letter(annotation, "answer", 'Z')?,
        columns: [reader::options_column(&options)].into_iter().collect(),
        ..reader::question(annotation, &["idx"])
    })
}

/// A reply of a letter alone; else the last one behind "answer"; else the last one in brackets; else the one at the start:
/// of the question's letters. Reasoning is removed.
fn lmms(prediction: &Prediction) -> Result<Scored> {
    let options = prediction.columns.get("options").and_then(Value::as_array);
    let count = options.map_or(0, Vec::len);
    let last = reader::letter(count.wrapping_sub(1)).unwrap_or('Z');
    let answer = prediction.output.answer().map(without_reasoning);
    let found = answer.as_deref().and_then(|answer| extracted(answer, last));
    Ok(Scored::letter(found, prediction.solution.chars().next()))
}

/// The letter from A to `last`.
fn extracted(answer: &str, last: char) -> Option<char> {
    const MAX_ALONE: usize = 4;
    static ALONE: Pattern = LazyLock::new(|| pattern(r"(?i)\A\(?([a-z])\)?[.:,)\s\x1c-\x1f]*\z"));
    static BRACKETED: Pattern = LazyLock::new(|| pattern(r"\(([A-Z])\)"));
    static LEADING: Pattern = LazyLock::new(|| pattern(r"(?i)\A[(\s\x1c-\x1f]*([a-z])"));
    let first_line = strip(answer.split('\n').next().unwrap_or_default());
    let is_option = |letter: &char| ('A'..=last).contains(letter);
    let alone = || match first_line.chars().count() <= MAX_ALONE {
        true => letter(&ALONE, first_line).filter(is_option),
        false => None,
    };
    alone()
        .or_else(|| letters(&behind_answer(last), answer).last())
        .or_else(|| letters(&BRACKETED, answer).filter(is_option).last())
        .or_else(|| letter(&LEADING, answer).filter(is_option))
}

/// A letter from A to `last` behind "answer" that no letter follows.
fn behind_answer(last: char) -> Option<Regex> {
    let last = last.to_ascii_lowercase();
    pattern(&format!(r"(?i)answers?(?:[\s\x1c-\x1f]+[iİı]s)?~[:\-]?~\(?([a-{last}])\)?(?![a-zİı])"))
}
