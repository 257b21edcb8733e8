//! The data of a training run: questions as text, or with the images and videos that a model sees.

use embodied_r_data::multimodal::{MediaUse, SampleSet, left_out_columns};
use embodied_r_data::progress::Silent;
use embodied_r_data::question::read_questions;
use embodied_r_data::{DataFiles, Progress, Question};
use embodied_r_grpo::settings::{MediaSettings, VisionSettings};
use embodied_r_media::laid_out::{LaidOutSample, left_out_warning};
use embodied_r_media::table::ImageTable;
use embodied_r_vision::is_vision_language_model;

use super::job::Job;
use super::settings::TrainingSettings;
use crate::exit::{self, Usage};
use crate::media;
use crate::progress::Bar;
use crate::run_images::image_table;

/// Questions as text.
#[derive(Default)]
pub(super) struct TextQuestions {
    pub(super) questions: Vec<Question>,
    /// A warning that bad records are left out, if some are.
    warning: Option<String>,
}

/// Reads the questions of all files as text. Other formats than the official one are for models that see, or about text.
///
/// # Errors
/// A file cannot be read, has an unknown format, or a record is bad and bad ones are not to be left out.
pub(super) fn questions(
    data: &DataFiles,
    settings: &MediaSettings,
) -> anyhow::Result<TextQuestions> {
    let official = match data.read(read_questions) {
        Ok(questions) if settings.columns.is_none() => {
            return Ok(TextQuestions { questions: questions.concat(), warning: None });
        }
        Ok(_) => None,
        Err(error) => Some(error),
    };
    match (media::read(data, settings, MediaUse::Ignored), official) {
        (Ok(set), _) => {
            let warning = left_out_warning(&set.skipped);
            let questions = set.samples.into_iter().map(|sample| sample.question).collect();
            Ok(TextQuestions { questions, warning })
        }
        (Err(_), Some(error)) if !media::has_known_format(data) => Err(error.into()),
        (Err(error), _) => Err(error),
    }
}

/// The questions of a run that a vision-language model sees, with their images.
pub(crate) struct SeenData {
    pub(crate) table: ImageTable,
    pub(crate) train: Vec<LaidOutSample>,
    pub(crate) eval: Vec<LaidOutSample>,
}

/// Warns of bad records that are left out, and of places of images and videos, which a text model does not see.
pub(super) fn warn_about<T: TrainingSettings>(job: &Job<'_, T>, read: &TextQuestions) {
    if let Some(warning) = &read.warning {
        job.warn(warning);
    }
    let has_place = |question: &Question| {
        ["<image>", "<video>"].iter().any(|marker| question.question.contains(marker))
    };
    let count = read.questions.iter().filter(|question| has_place(question)).count();
    if count > 0 {
        job.warn(&format!(
            "{count} questions have `<image>` or `<video>`, which the model does not see: it reads their text alone"
        ));
    }
}

/// Warns of the columns of the run's data that no reward gets.
///
/// # Errors
/// A file cannot be read.
pub(super) fn warn_about_columns<T: TrainingSettings>(
    job: &Job<'_, T>,
    settings: &MediaSettings,
) -> anyhow::Result<()> {
    let columns = media::read_options(settings, MediaUse::Ignored)?.columns;
    let mut names = Vec::new();
    for name in job.settings().run().data.read(|file| left_out_columns(file, &columns))?.concat() {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    if !names.is_empty() {
        let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
        job.warn(&format!(
            "the columns {} are binary and do not reach reward commands",
            names.join(", ")
        ));
    }
    Ok(())
}

/// Decodes the images and videos of the run's data, a share on each rank, if its model is to see them: as `direct` says, or
/// if the model has a vision encoder and the data names images without having captions.
///
/// # Errors
/// An image or a video is missing or broken, or a text model is to see.
pub(crate) fn seen<T: TrainingSettings>(
    job: &Job<'_, T>,
    media: &MediaSettings,
    vision: &VisionSettings,
) -> anyhow::Result<Option<SeenData>> {
    let run = job.settings().run();
    let has_vision = is_vision_language_model(job.folder());
    let is_direct = match media.direct {
        Some(true) if !has_vision => {
            let what = format!("`direct`: `{}` is a text model", run.model);
            return Err(Usage(format!("{what}; choose a vision-language model")).into());
        }
        Some(direct) => direct,
        None => has_vision && !media::is_captioned(&run.data, media)?,
    };
    if !is_direct {
        return Ok(None);
    }
    let set = match media::read(&run.data, media, MediaUse::Required) {
        // The data may name videos that no model needs.
        Err(error) if media.direct.is_none() => {
            let hint = "to train on the text of the questions alone, give `--set direct=false`";
            return Err(exit::hint(error.to_string(), hint));
        }
        read => read?,
    };
    if media.direct.is_none() && set.samples.iter().all(|sample| sample.media.is_empty()) {
        return Ok(None);
    }
    let mut table = image_table(job.folder(), vision)?;
    let train = laid_out(job, set, &mut table, media)?;
    let eval = match &run.eval_data {
        Some(data) => {
            laid_out(job, media::read(data, media, MediaUse::Required)?, &mut table, media)?
        }
        None => Vec::new(),
    };
    if train.is_empty() {
        let what = format!("{} has no usable questions", run.data);
        return Err(exit::hint(what, "see the reasons above"));
    }
    Ok(Some(SeenData { table, train, eval }))
}

fn laid_out<T: TrainingSettings>(
    job: &Job<'_, T>,
    set: SampleSet,
    table: &mut ImageTable,
    settings: &MediaSettings,
) -> anyhow::Result<Vec<LaidOutSample>> {
    let bar = Bar::default();
    let progress: &dyn Progress = if job.process_group.is_rank_zero() { &bar } else { &Silent };
    let found = media::lay_out(set, table, settings, job.process_group, progress)?;
    if let Some(warning) = found.warning() {
        job.warn(&warning);
    }
    Ok(found.samples)
}
