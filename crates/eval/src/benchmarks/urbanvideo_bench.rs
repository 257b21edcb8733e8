//! UrbanVideo-Bench: sixteen tasks about flights of drones through cities.

use crate::benchmark::{
    Benchmark, Categories, Detection, InvalidSolution, Missing, Scored, Scorer, wrong_solution,
};
use crate::error::Result;
use crate::option_line;
use crate::predictions::Prediction;
use crate::published::{PublishedRow, PublishedTable, cells, overall, row};

/// UrbanVideo-Bench's sixteen tasks; overall is the mean over questions.
pub(super) static URBANVIDEO_BENCH: Benchmark = Benchmark {
    name: "urbanvideo-bench",
    title: "UrbanVideo-Bench: sixteen tasks, mean over questions",
    categories: Categories::listed(&CATEGORIES),
    detection: Detection::Shared,
    size: Some(5355),
    missing: Missing::Skipped,
    invalid_solution: InvalidSolution::Error,
    scorer: Scorer::micro("official", "UrbanVideo-Bench's official script", official),
    other_scorers: &[],
    layout: None,
    published: Some(&TABLE),
};

const CATEGORIES: [&str; 16] = [
    "Trajectory Captioning",
    "Sequence Recall",
    "Object Recall",
    "Scene Recall",
    "Start/End Position",
    "Proximity",
    "Duration",
    "Landmark Position",
    "Goal Detection",
    "Cognitive Map",
    "Causal",
    "Counterfactual",
    "Association Reasoning",
    "Progress Evaluation",
    "High-level Planning",
    "Action Generation",
];

/// The option of the `Option:` line, in its case.
fn official(prediction: &Prediction) -> Result<Scored> {
    let Prediction { solution, output, .. } = prediction;
    if solution.trim().is_empty() {
        return Err(wrong_solution(prediction, "an option letter"));
    }
    let option = output.answer().and_then(option_line::option);
    let is_right = option.as_ref() == Some(solution);
    Ok(Scored::choice(option, is_right))
}

/// Its project page; four of its tasks are also in Embodied-R's table.
static TABLE: PublishedTable = PublishedTable {
    source: "UrbanVideo-Bench's project page; the four columns also in Embodied-R \
             (arXiv 2504.12680), Table 1",
    caveat: "overall is the mean over the questions of all sixteen tasks",
    categories: &embodied_r_data::urban::CATEGORIES,
    rows: &ROWS,
};

const ROWS: [PublishedRow; 16] = [
    row("Random", 19.7, cells![19.7, 25.0, 21.8, 16.4]),
    row("Qwen-VL-Max (32 frames)", 45.5, cells![44.8, 49.2, 38.8, 29.6]),
    row("GPT-4o (32 frames)", 43.6, cells![36.8, 44.7, 34.2, 33.8]),
    row("Gemini-1.5-Pro (1 fps)", 42.5, cells![37.4, 46.2, 38.8, 31.9]),
    row("Gemini-1.5-Flash (1 fps)", 40.5, cells![37.8, 42.4, 43.3, 34.4]),
    overall("Gemini-2.0-Flash", 38.3),
    overall("GPT-4o-mini", 36.5),
    row("Kangaroo (64 frames)", 39.2, cells![35.5, 42.4, 32.5, 32.4]),
    row("Phi-3.5-vision (32 frames)", 38.7, cells![49.2, 34.8, 33.2, 15.6]),
    row("LLaVA-NeXT-Video-7B (32 frames)", 38.6, cells![49.5, 20.5, 36.6, 19.2]),
    overall("Qwen2-VL-7B", 36.2),
    overall("Qwen2-VL-2B", 31.9),
    overall("InternVL2-4B", 28.3),
    overall("InternVL2-4B, fine-tuned", 31.5),
    overall("InternVL2-8B", 26.5),
    overall("InternVL2-8B, fine-tuned", 31.7),
];
