//! RefSpatial-Bench: points at objects and places that take several steps to find.

use std::ops::Range;

use embodied_r_data::multimodal::annotations::{AnnotatedQuestion, Annotation};

use super::{pointing, reader, where2place};
use crate::benchmark::{
    Benchmark, Categories, Detection, InvalidSolution, Layout, Missing, Scored, Scorer,
};
use crate::error::Result;
use crate::own_prompt::EMBODIED_R_PROMPT;
use crate::pointing::mask::{Inside, Mask, SummedArea};
use crate::pointing::points::easi::{self, Size, Target};
use crate::predictions::Prediction;
use crate::published::{PublishedTable, measured};

/// RefSpatial-Bench by split; overall is the mean over questions.
pub(super) static REFSPATIAL: Benchmark = Benchmark {
    name: "refspatial",
    title: "RefSpatial-Bench: points at objects and places, mean share of points inside the region",
    categories: Categories::listed(&SPLITS),
    detection: Detection::None,
    size: Some(277),
    missing: Missing::Wrong,
    invalid_solution: InvalidSolution::Error,
    scorer: Scorer::micro("official", "lmms-eval's group `refspatial`", pointing::official),
    other_scorers: &[
        Scorer::micro("json", "lmms-eval's tasks `refspatial_…_json`, by split", pointing::json),
        Scorer::micro(
            "easi",
            "VLMEvalKit's `RefSpatial_wo_unseen` (0.0.20 with its logger restored)",
            scored_by_easi,
        ),
    ],
    layout: Some(&Layout {
        source: "BAAI/RefSpatial-Bench",
        files: &["data/*-*.parquet", "*-*.parquet"],
        columns: &["object", "prompt", "suffix", "mask"],
        prompts: &["official", "json", "easi", EMBODIED_R_PROMPT],
        frames: &[],
        question,
    }),
    published: Some(&PublishedTable {
        source: "Qwen3-VL's report, and EASI's verification of its scores",
        caveat: "without the split `unseen`",
        categories: &[],
        rows: &[
            measured("Qwen3-VL-8B", "own report", 54.2),
            measured("Qwen3-VL-8B", "VLMEvalKit", 56.5),
        ],
    }),
};

const SPLITS: [&str; 3] = ["location", "placement", "unseen"];

/// A record; its split is in the file's name.
fn question(
    annotation: &Annotation<'_>,
    prompt: &str,
) -> embodied_r_data::Result<AnnotatedQuestion> {
    let name = annotation.file().file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let split = SPLITS.into_iter().find(|split| name.starts_with(split));
    let split = split.ok_or_else(|| {
        annotation
            .error("split", "the file must be named after `location`, `placement` or `unseen`")
    })?;
    let text = annotation.text("prompt")?;
    let message = match prompt {
        EMBODIED_R_PROMPT => format!("Question: {} {}", text.trim(), where2place::TUPLES),
        "json" => format!(
            "Locate {} in this image and output the point coordinates in JSON format.",
            annotation.text("object")?
        ),
        "easi" => format!(
            "{text}Output the point coordinates in JSON format.\nFor example:\n[\n  {{\"point_2d\": [x, y], \"label\": \
             \"point_1\"}}\n]\n"
        ),
        _ => format!(
            "{text} {} Return only list of tuples, don't add anything else.",
            annotation.text("suffix")?
        ),
    };
    Ok(AnnotatedQuestion {
        // Identifiers begin again in each split.
        id: format!("{split}-{}", annotation.scalar("id")?).into(),
        category: split.to_owned(),
        content: reader::images_first(annotation.images("image"), message),
        answer: pointing::MASK.to_owned(),
        columns: [pointing::required_mask(annotation)?].into_iter().collect(),
        ..reader::question(annotation, &[])
    })
}

/// The share of points inside, moved into the image before: of dictionaries, or else of tuples of two or four numbers.
fn scored_by_easi(prediction: &Prediction) -> Result<Scored> {
    let mask = pointing::mask(prediction)?;
    let size = Size { width: mask.width(), height: mask.height() };
    let targets = easi::targets(prediction.output.answer().unwrap_or_default(), size);
    Ok(Scored { extracted: easi::shown(&targets), score: share(&targets, &mask) })
}

/// The share of the targets' pixels inside the mask, all moved into the image before.
fn share(targets: &[Target], mask: &Mask) -> f64 {
    let size = Size { width: mask.width(), height: mask.height() };
    let mut sums = None;
    let (mut count, mut total) = (0_u128, 0_u128);
    for target in targets {
        match target {
            Target::Point { x, y } => {
                count += u128::from(mask.contains(easi::clipped(*x, *y, size), Inside::Positive));
                total += 1;
            }
            Target::Rectangle { columns, rows } => {
                let sums = sums.get_or_insert_with(|| SummedArea::new(mask, Inside::Positive));
                count += sums.count_clipped(columns.clone(), rows.clone());
                let length = |range: &Range<i64>| u128::from(range.end.abs_diff(range.start));
                total += length(columns) * length(rows);
            }
        }
    }
    if total == 0 { 0.0 } else { count as f64 / total as f64 }
}

#[cfg(test)]
mod tests;
