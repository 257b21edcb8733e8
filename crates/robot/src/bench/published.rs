//! Results that Robot-R1 publishes (arXiv 2506.00070, Tables 2 and 3). Its questions are not public, so they are of
//! another question set than any other results.

/// A row of published mean scores from 0 to 3.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PublishedRow {
    /// The model.
    pub model: &'static str,
    /// Planning; not published for all models.
    pub planning: Option<f64>,
    /// High-level action; not published for all models.
    pub high_level_action: Option<f64>,
    /// Movement: tasks of the training, other tasks, all.
    pub movement: [f64; 3],
    /// Spatial: tasks of the training, other tasks, all.
    pub spatial: [f64; 3],
}

const fn row(
    model: &'static str,
    high_level: Option<(f64, f64)>,
    movement: [f64; 3],
    spatial: [f64; 3],
) -> PublishedRow {
    let (planning, high_level_action) = match high_level {
        Some((planning, action)) => (Some(planning), Some(action)),
        None => (None, None),
    };
    PublishedRow { model, planning, high_level_action, movement, spatial }
}

/// The rows, in the paper's order.
pub const ROWS: [PublishedRow; 13] = [
    row("GPT-4o-mini", None, [0.64, 0.56, 0.60], [1.73, 1.14, 1.48]),
    row("GPT-4o", Some((1.96, 2.02)), [0.92, 0.52, 0.72], [1.70, 1.07, 1.43]),
    row("Claude-3-Opus", None, [0.40, 0.24, 0.32], [0.97, 0.43, 0.74]),
    row("Claude-3.5-Haiku", None, [0.68, 0.48, 0.58], [1.41, 0.71, 1.11]),
    row("Claude-3.5-Sonnet-v2", None, [0.96, 0.28, 0.62], [1.49, 0.75, 1.17]),
    row("Claude-3.7-Sonnet", Some((1.72, 1.58)), [0.76, 0.48, 0.62], [1.65, 1.07, 1.40]),
    row("Gemini-1.5-Flash", None, [0.60, 0.16, 0.38], [1.57, 0.93, 1.29]),
    row("Gemini-1.5-Pro", None, [0.76, 0.40, 0.58], [1.49, 1.14, 1.34]),
    row("Gemini-2.0-Flash", Some((1.84, 1.12)), [0.52, 0.40, 0.46], [1.76, 1.14, 1.49]),
    row("Qwen2.5-VL-7B-Instruct", Some((1.66, 1.04)), [0.64, 0.52, 0.58], [1.62, 1.11, 1.40]),
    row("Qwen2.5-VL-7B, direct SFT", Some((0.0, 0.04)), [0.12, 0.0, 0.06], [0.08, 0.04, 0.06]),
    row("Qwen2.5-VL-7B, CoT SFT", Some((0.60, 1.28)), [0.84, 0.56, 0.70], [0.46, 0.07, 0.29]),
    row("Robot-R1", Some((1.44, 1.30)), [0.96, 0.56, 0.76], [1.76, 1.18, 1.51]),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn movement_averages_over_as_many_questions_of_both_splits() {
        for row in ROWS {
            let [seen, unseen, all] = row.movement;
            assert!(((seen + unseen) / 2.0 - all).abs() < 0.0051, "{}", row.model);
            let [seen, unseen, all] = row.spatial;
            assert!(unseen <= all && all <= seen, "{}", row.model);
        }
    }
}
