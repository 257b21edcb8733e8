//! VSI-Bench, the paper's table and later entries of its leaderboard.

use super::table::{PublishedRow, PublishedTable, cells, overall, row};
use crate::protocol::VSI_BENCH;

pub(super) const TABLE: PublishedTable = PublishedTable {
    source: "VSI-Bench's paper and repository (vision-x-nyu/thinking-in-space) and its leaderboard",
    caveat: "overall is the mean over the eight tasks; rows marked `tiny` are on a subset of 400 \
             questions",
    categories: &VSI_BENCH,
    rows: &ROWS,
};

const CHANCE: [Option<f64>; 8] =
    [None, None, None, None, Some(25.0), Some(36.1), Some(28.3), Some(25.0)];

const ROWS: [PublishedRow; 24] = [
    PublishedRow { model: "Chance, random", overall: None, scores: &CHANCE },
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
];
