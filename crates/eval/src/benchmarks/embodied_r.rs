//! Embodied-R's eight multiple-choice tasks, of both benchmarks that it trains on.

use super::letter;
use super::vsi_bench::{DIRECTION, DIRECTION_LEVELS};
use crate::benchmark::{Benchmark, Categories, Detection, InvalidSolution, Missing};
use crate::published::{PublishedRow, PublishedTable, cells, row};

/// Embodied-R's eight multiple-choice tasks; overall is the mean over questions.
pub static EMBODIED_R: Benchmark = Benchmark {
    name: "embodied-r",
    title: "Embodied-R: eight multiple-choice tasks, mean over questions",
    categories: Categories::Listed { names: &CATEGORIES, levels: &DIRECTION_LEVELS },
    detection: Detection::Shared,
    size: Some(5464),
    missing: Missing::Wrong,
    invalid_solution: InvalidSolution::Error,
    scorer: letter::SCORER,
    other_scorers: &[],
    layout: None,
    published: Some(&TABLE),
};

/// In the order of its published table.
const CATEGORIES: [&str; 8] = [
    "Landmark Position",
    "Counterfactual",
    "Progress Evaluation",
    "Action Generation",
    "object_rel_distance",
    DIRECTION,
    "route_planning",
    "obj_appearance_order",
];

/// Table 1 and Table 3.
static TABLE: PublishedTable = PublishedTable {
    source: "Embodied-R (arXiv 2504.12680), Table 1; the row without collaboration is from Table 3",
    caveat: "overall is the mean over questions; the trained models, OpenAI-o1 and Gemini-2.5-Pro \
             were evaluated on a different mix of questions, so their overall scores are up to 1.3 \
             points higher than their columns average to on the full benchmarks",
    categories: &CATEGORIES,
    rows: &ROWS,
};

const ROWS: [PublishedRow; 20] = [
    row("Random", 24.0, cells![19.7, 25.0, 21.8, 16.4, 25.0, 36.1, 28.3, 25.0]),
    row("Qwen-VL-Max (32 frames)", 34.1, cells![44.8, 49.2, 38.8, 29.6, 28.0, 33.3, 29.6, 28.3]),
    row("GPT-4o (32 frames)", 35.7, cells![36.8, 44.7, 34.2, 33.8, 37.0, 41.3, 31.5, 28.5]),
    row("Gemini-1.5-Flash (1 fps)", 38.3, cells![37.8, 42.4, 43.3, 34.4, 37.7, 41.0, 31.5, 37.8]),
    row("Gemini-1.5-Pro (1 fps)", 39.7, cells![37.4, 46.2, 38.8, 31.9, 51.3, 46.3, 36.0, 34.6]),
    row("OpenAI-o1 (32 frames)", 37.2, cells![34.6, 53.3, 39.1, 28.0, 39.7, 35.8, 52.9, 39.8]),
    row("Gemini-2.5-Pro (1 fps)", 40.8, cells![40.0, 75.0, 38.7, 23.5, 42.0, 34.5, 52.4, 63.6]),
    row(
        "LLaVA-NeXT-Video-7B (32 frames)",
        29.5,
        cells![49.5, 20.5, 36.6, 19.2, 25.2, 26.3, 29.9, 24.5],
    ),
    row("Phi-3.5-vision (32 frames)", 29.0, cells![49.2, 34.8, 33.2, 15.6, 25.4, 26.5, 36.9, 25.2]),
    row("Kangaroo (64 frames)", 30.0, cells![35.5, 42.4, 32.5, 32.4, 25.2, 26.8, 23.5, 24.9]),
    row("InternVL2-2B (32 frames)", 24.5, cells![19.3, 45.5, 29.2, 20.9, 25.1, 25.0, 32.6, 23.9]),
    row("InternVL2-8B (32 frames)", 25.5, cells![23.1, 45.5, 31.5, 21.4, 24.7, 25.7, 28.3, 24.8]),
    row("InternVL2-40B (32 frames)", 25.8, cells![23.2, 41.7, 32.4, 22.3, 24.9, 25.7, 29.4, 24.5]),
    row("Qwen2.5-VL-3B (1 fps)", 33.1, cells![32.1, 47.8, 34.0, 31.0, 27.9, 32.6, 39.0, 38.9]),
    row("Qwen2.5-VL-7B (1 fps)", 33.3, cells![33.3, 21.7, 25.0, 27.8, 35.8, 39.7, 48.8, 38.8]),
    row("Qwen2.5-VL-72B (1 fps)", 34.9, cells![34.7, 34.8, 26.4, 37.7, 40.8, 29.0, 32.5, 43.9]),
    row("Qwen2.5-VL-3B SFT (1 fps)", 41.7, cells![47.7, 33.4, 34.8, 39.2, 42.6, 42.3, 41.2, 43.9]),
    row("Qwen2.5-VL-7B SFT (1 fps)", 45.4, cells![40.2, 53.4, 38.0, 40.8, 47.8, 46.3, 44.1, 56.1]),
    row(
        "Qwen2.5-VL-72B on the same key frames, without the 3B reasoner",
        34.8,
        cells![31.8, 45.7, 28.3, 28.1, 41.0, 29.7, 37.5, 46.0],
    ),
    row(
        "Embodied-R, 72B and 3B (up to 32 frames)",
        51.1,
        cells![55.1, 59.9, 39.7, 47.6, 50.0, 44.3, 36.8, 72.0],
    ),
];
