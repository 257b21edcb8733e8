//! VSI-Bench: eight tasks about videos of rooms, four of them numeric.

use embodied_r_data::multimodal::annotations::{AnnotatedQuestion, Annotation};
use embodied_r_rewards::numeric::mean_relative_accuracy;

use super::easi;
use super::reader;
use crate::benchmark::{
    Benchmark, Categories, Detection, InvalidSolution, Layout, Missing, Scored, Scorer,
    wrong_solution,
};
use crate::error::Result;
use crate::extract::python::{float, strip};
use crate::extract::reasoning::without_reasoning;
use crate::extract::vsi_numbers::{easi_number, lmms_number};
use crate::fuzzy;
use crate::own_prompt::EMBODIED_R_PROMPT;
use crate::predictions::Prediction;
use crate::published::{PublishedRow, PublishedTable, cells, measured, overall, row};

/// VSI-Bench's eight tasks, with mean relative accuracy for numeric ones; overall is the mean over tasks.
pub(super) static VSI_BENCH: Benchmark = Benchmark {
    name: "vsi-bench",
    title: "VSI-Bench: eight tasks including numeric ones, mean over tasks",
    categories: Categories::Listed { names: &CATEGORIES, levels: &DIRECTION_LEVELS },
    detection: Detection::Shared,
    size: Some(5130),
    missing: Missing::Wrong,
    invalid_solution: InvalidSolution::Error,
    scorer: SCORER,
    other_scorers: &OTHER_SCORERS,
    layout: Some(&LAYOUT),
    published: Some(&TABLE),
};

/// The questions of VSI-Bench that cannot be answered from statistics of the answers; scored alike.
pub(super) static VSI_BENCH_DEBIASED: Benchmark = Benchmark {
    name: "vsi-bench-debiased",
    title: "VSI-Bench-Debiased: the 2,362 questions of VSI-Bench that resist guessing, mean over tasks",
    detection: Detection::None,
    size: Some(2362),
    layout: Some(&DEBIASED_LAYOUT),
    published: Some(&DEBIASED_TABLE),
    categories: Categories::Listed { names: &CATEGORIES, levels: &DIRECTION_LEVELS },
    missing: Missing::Wrong,
    invalid_solution: InvalidSolution::Error,
    scorer: SCORER,
    other_scorers: &OTHER_SCORERS,
};

const SCORER: Scorer =
    Scorer::macro_("official", "VSI-Bench's paper, and lmms-eval before 2026-07-14", official);

static OTHER_SCORERS: [Scorer; 2] = [
    Scorer::macro_("lmms-2026", "lmms-eval since 2026-07-14 (0.7.3)", lmms),
    Scorer::macro_("easi", easi::COMPARABLE, easi),
];

const LAYOUT: Layout = Layout {
    source: "nyu-visionx/VSI-Bench",
    files: &["test-00000-of-00001.parquet", "full/*.parquet", "test.jsonl"],
    columns: &["scene_name", "question_type", "ground_truth"],
    prompts: &["official", "easi", EMBODIED_R_PROMPT],
    frames: &["linspace=32", "fps=2", "key"],
    question,
};

const DEBIASED_LAYOUT: Layout =
    Layout { files: &["debiased/*.parquet", "*debiased*.parquet", "*debiased*.jsonl"], ..LAYOUT };

/// The merged name of direction questions of all levels.
pub(super) const DIRECTION: &str = "object_rel_direction";

pub(super) const DIRECTION_LEVELS: [(&str, &str); 3] = [
    ("object_rel_direction_easy", DIRECTION),
    ("object_rel_direction_medium", DIRECTION),
    ("object_rel_direction_hard", DIRECTION),
];

const NUMERIC: [&str; 4] =
    ["object_counting", "object_abs_distance", "object_size_estimation", "room_size_estimation"];

/// In the order of its published table.
const CATEGORIES: [&str; 8] = [
    "object_counting",
    "object_abs_distance",
    "object_size_estimation",
    "room_size_estimation",
    "object_rel_distance",
    DIRECTION,
    "route_planning",
    "obj_appearance_order",
];

/// A record; its video is below the folder of the data set that it is from.
fn question(
    annotation: &Annotation<'_>,
    prompt: &str,
) -> embodied_r_data::Result<AnnotatedQuestion> {
    let (text, category) = (annotation.text("question")?, annotation.text("question_type")?);
    let options = match annotation.value("options") {
        Some(_) if !NUMERIC.contains(&category) => annotation.texts("options")?,
        _ => Vec::new(),
    };
    let is_numeric = options.is_empty();
    let end = match (is_numeric, prompt) {
        (true, "easi") => "Answer briefly and directly in one float number.",
        (true, _) => "Please answer the question using a single word or phrase.",
        (false, _) => "Answer with the option's letter from the given choices directly.",
    };
    let listed = (!is_numeric).then(|| options.join("\n"));
    let head = (!is_numeric && prompt == "official").then_some("Options:");
    let lines = ["These are frames of a video.", text].into_iter().chain(head);
    let message = match prompt {
        EMBODIED_R_PROMPT => reader::own_text(text, &options),
        _ => lines.chain(listed.as_deref()).chain([end]).collect::<Vec<_>>().join("\n"),
    };
    let (source, scene) = (annotation.text("dataset")?, annotation.scalar("scene_name")?);
    Ok(AnnotatedQuestion {
        category: category.to_owned(),
        content: reader::video_first(message),
        answer: annotation.scalar("ground_truth")?,
        video: Some(format!("{source}/{scene}.mp4")),
        ..reader::question(annotation, &["id"])
    })
}

/// The first word, compared as an option letter without case, or as a number.
fn official(prediction: &Prediction) -> Result<Scored> {
    let answer = prediction.output.answer().map(strip);
    match target(prediction)? {
        Some(target) => Ok(number(answer.and_then(fuzzy::number), target)),
        None => Ok(choice(answer, &prediction.solution)),
    }
}

/// The first number anywhere, also in words; choices as by [`official`]. Reasoning is removed.
fn lmms(prediction: &Prediction) -> Result<Scored> {
    let answer = prediction.output.answer().map(without_reasoning);
    match target(prediction)? {
        Some(target) => Ok(number(answer.as_deref().and_then(lmms_number), target)),
        None => Ok(choice(answer.as_deref(), &prediction.solution)),
    }
}

/// The number of an `<answer>` tag, or else the last one; choices by VLMEvalKit's matcher.
fn easi(prediction: &Prediction) -> Result<Scored> {
    match target(prediction)? {
        Some(target) => Ok(number(prediction.output.answer().and_then(easi_number), target)),
        None => easi::matched(prediction),
    }
}

/// The target of a numeric question; `None` for one with choices.
fn target(prediction: &Prediction) -> Result<Option<f64>> {
    let Prediction { category, solution, .. } = prediction;
    if !NUMERIC.contains(&category.as_str()) {
        return match solution.trim() {
            "" => Err(wrong_solution(prediction, "an option letter")),
            _ => Ok(None),
        };
    }
    match float(solution) {
        Some(target) if target.is_finite() => Ok(Some(target)),
        _ => Err(wrong_solution(prediction, "a number")),
    }
}

pub(super) fn number(found: Option<f64>, target: f64) -> Scored {
    Scored {
        extracted: found.map(|number| number.to_string()),
        score: found.map_or(0.0, |number| mean_relative_accuracy(number, target)),
    }
}

pub(super) fn choice(answer: Option<&str>, solution: &str) -> Scored {
    let word = answer.map(fuzzy::first_word).filter(|word| !word.is_empty());
    let is_right = word.is_some_and(|word| word.to_lowercase() == solution.to_lowercase());
    Scored::choice(word.map(str::to_owned), is_right)
}

static TABLE: PublishedTable = PublishedTable {
    source: "VSI-Bench's paper and repository (vision-x-nyu/thinking-in-space) and its leaderboard; rows with a \
             harness: EASI's verification of its scores",
    caveat: "overall is the mean over the eight tasks; rows marked `tiny` are on a subset of 400 \
             questions",
    categories: &CATEGORIES,
    rows: &ROWS,
};

const CHANCE: [Option<f64>; 8] =
    [None, None, None, None, Some(25.0), Some(36.1), Some(28.3), Some(25.0)];

static DEBIASED_TABLE: PublishedTable = PublishedTable {
    source: "VSI-Bench-Debiased's paper, and EASI's verification of its scores",
    caveat: "overall is the mean over the eight tasks; its authors report the mean over questions too",
    categories: &[],
    rows: &[
        measured("Qwen2.5-VL-3B", "paper", 22.7),
        measured("Qwen2.5-VL-7B", "paper", 29.6),
        measured("InternVL3.5-8B", "official", 49.7),
        measured("Cambrian-S-7B (32 frames)", "official", 55.6),
    ],
};

const ROWS: [PublishedRow; 42] = [
    PublishedRow { model: "Chance, random", harness: "", overall: None, scores: &CHANCE },
    row("Chance, most frequent", 34.0, cells![62.1, 32.0, 29.9, 33.1, 25.1, 47.9, 28.4, 25.2]),
    row("Human (tiny)", 79.2, cells![94.3, 47.0, 60.4, 45.9, 94.7, 95.8, 95.8, 100.0]),
    overall("Gemini-1.5-Flash (tiny)", 45.7),
    row("Gemini-1.5-Pro (tiny)", 48.8, cells![49.6, 28.8, 58.6, 49.4, 46.0, 48.1, 42.0, 68.0]),
    row("Gemini-2.0-Flash (tiny)", 45.4, cells![52.4, 30.6, 66.7, 31.8, 56.0, 46.3, 24.5, 55.1]),
    row("GPT-4o (16 frames)", 34.0, cells![46.2, 5.3, 43.8, 38.2, 37.0, 41.3, 31.5, 28.5]),
    overall("GPT-4o (64 frames)", 47.8),
    overall("Gemini-1.5-Flash", 42.1),
    row("Gemini-1.5-Pro", 45.4, cells![56.2, 30.9, 64.1, 43.6, 51.3, 46.3, 36.0, 34.6]),
    overall("InternVL2-2B", 27.4),
    overall("InternVL2-8B", 34.6),
    overall("InternVL2-40B", 36.0),
    overall("LongVILA-8B", 21.6),
    overall("VILA-1.5-8B", 28.9),
    overall("VILA-1.5-40B", 31.2),
    overall("LongVA-7B", 29.2),
    row("LLaVA-NeXT-Video-7B", 35.6, cells![48.5, 14.0, 47.8, 24.2, 43.5, 42.4, 34.0, 30.6]),
    row("LLaVA-NeXT-Video-72B", 40.9, cells![48.9, 22.8, 57.4, 35.3, 42.4, 36.7, 35.0, 48.6]),
    overall("LLaVA-OneVision-0.5B", 28.0),
    overall("LLaVA-OneVision-7B", 32.4),
    overall("LLaVA-OneVision-72B", 40.2),
    overall("InternVL3-78B", 48.4),
    overall("VLM-3R-7B", 58.8),
    measured("Qwen2.5-VL-3B (128 frames)", "official", 26.8),
    measured("Qwen2.5-VL-3B (128 frames)", "VLMEvalKit", 26.6),
    measured("Qwen2.5-VL-3B (128 frames)", "lmms-eval", 29.6),
    measured("Qwen2.5-VL-7B (128 frames)", "official", 33.5),
    measured("Qwen2.5-VL-7B (128 frames)", "VLMEvalKit", 33.7),
    measured("Qwen2.5-VL-7B (128 frames)", "lmms-eval", 38.7),
    measured("InternVL3.5-8B (128 frames)", "official", 56.3),
    measured("InternVL3.5-8B (128 frames)", "VLMEvalKit", 54.2),
    measured("InternVL3.5-8B (128 frames)", "lmms-eval", 54.6),
    measured("Cambrian-S-3B (32 frames)", "official", 54.7),
    measured("Cambrian-S-3B (32 frames)", "VLMEvalKit", 56.1),
    measured("Cambrian-S-3B (32 frames)", "lmms-eval", 54.8),
    measured("Cambrian-S-7B (32 frames)", "official", 63.6),
    measured("Cambrian-S-7B (32 frames)", "VLMEvalKit", 62.9),
    measured("Cambrian-S-7B (32 frames)", "lmms-eval", 63.5),
    measured("SenseNova-SI-1.1-Qwen3-VL-8B", "official", 62.9),
    measured("SenseNova-SI-1.1-Qwen3-VL-8B", "lmms-eval", 64.3),
    measured("SenseNova-SI-1.2-InternVL3-8B", "official", 68.7),
];
