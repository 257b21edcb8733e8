//! The page of answers that point.

use std::path::Path;

use embodied_r_eval::predictions::PredictionOutput;
use embodied_r_eval::{Prediction, Report};
use embodied_r_files::write_atomic;
use embodied_r_report::{Drawn, DrawnAnswer, answers_page};

/// Writes a page with all answers that point drawn on their images, whose relative paths are in `images`; none without such
/// answers.
pub(super) fn write(
    path: &Path,
    title: &str,
    predictions: &[Prediction],
    report: &Report,
    images: &Path,
) -> anyhow::Result<()> {
    // In the order of the predictions, without those that are not scored; identifiers may repeat.
    let mut scores = report.questions.iter().peekable();
    let answers: Vec<DrawnAnswer<'_>> = predictions
        .iter()
        .filter_map(|prediction| {
            let Prediction { id, question, solution, .. } = prediction;
            let score = scores.next_if(|scored| scored.id == *id)?.score;
            let drawn = Drawn::of_columns(prediction.columns.clone())?;
            let completion = match &prediction.output {
                PredictionOutput::Completion(text) => text.clone(),
                PredictionOutput::Answer(text) => format!("<answer>{text}</answer>"),
                PredictionOutput::Missing | PredictionOutput::Unanswered => String::new(),
            };
            Some(DrawnAnswer { id, question, solution, completion, score, drawn })
        })
        .collect();
    if !answers.is_empty() {
        write_atomic(path, answers_page(title, answers, images).as_bytes())?;
    }
    Ok(())
}
