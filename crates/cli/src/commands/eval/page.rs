//! The page of answers that point.

use std::collections::HashMap;
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
    let scores: HashMap<&str, f64> =
        report.questions.iter().map(|scored| (scored.id.as_str(), scored.score)).collect();
    let answer = |prediction: &'_ Prediction| {
        let completion = match &prediction.output {
            PredictionOutput::Completion(text) => text.clone(),
            PredictionOutput::Answer(text) => format!("<answer>{text}</answer>"),
            PredictionOutput::Missing | PredictionOutput::Unanswered => String::new(),
        };
        let drawn = Drawn::of_columns(prediction.columns.clone())?;
        Some((completion, drawn))
    };
    let answers: Vec<DrawnAnswer<'_>> = predictions
        .iter()
        .filter_map(|prediction| {
            let (completion, drawn) = answer(prediction)?;
            let score = *scores.get(prediction.id.as_str())?;
            let Prediction { id, question, solution, .. } = prediction;
            Some(DrawnAnswer { id, question, solution, completion, score, drawn })
        })
        .collect();
    if !answers.is_empty() {
        write_atomic(path, answers_page(title, answers, images).as_bytes())?;
    }
    Ok(())
}
