//! `embodied-r inspect loss`.

use std::path::Path;

use embodied_r_grpo::inspect::batch_file::BatchFile;
use embodied_r_grpo::inspect::{LossReport, loss};
use embodied_r_grpo::settings::InspectSettings;
use embodied_r_policy::{Policy, tokenizer};

use super::{base_of, vision_policy};
use crate::args::inspect::LossArgs;
use crate::commands::train::explain::explain;
use crate::device;
use crate::exit::Status;
use crate::hub;
use crate::output::outln;
use crate::run_images::image_table;
use crate::settings::{self, Layers};

/// Print the loss on given tokens and its gradient norms.
pub(super) fn run(args: &LossArgs) -> anyhow::Result<Status> {
    let batch = BatchFile::read(&args.data).map_err(explain)?;
    let layers = match &batch.settings {
        Some(own) => Layers::default().text(
            &args.data,
            &settings::text(&InspectSettings { loss: *own, ..InspectSettings::default() })?,
        )?,
        None => Layers::default(),
    };
    let settings: InspectSettings = layers.pairs(&args.sets).resolve(&[])?;
    let trainable = settings.trainable(&args.model);
    let InspectSettings { loss: settings, vision, .. } = settings;
    let folder = hub::decoder(&args.model, None)?;
    let stop_ids = tokenizer::stop_ids(&folder)?;
    let device = device::open(args.device)?;
    let precision = args.precision.into();
    let report = if batch.has_images() || vision.frozen_parts().is_some() {
        let mut table = image_table(&folder, &vision)?;
        let relative_to = args.data.parent().unwrap_or(Path::new(""));
        let prompts = batch.prompts(Some(&mut table), relative_to).map_err(explain)?;
        let policy = vision_policy(&folder, table, (&vision, trainable), precision, &device)?;
        loss(&policy, (&batch, &prompts), &settings, &stop_ids)
    } else {
        let prompts = batch.prompts(None, Path::new("")).map_err(explain)?;
        let base = base_of(&folder, &trainable)?;
        let folders = (folder.as_path(), base.as_path());
        let policy = Policy::load_trainable_on(&device, folders, &trainable, 0, precision)?;
        loss(&policy, (&batch, &prompts), &settings, &stop_ids)
    };
    let report = report.map_err(explain)?;
    match args.json {
        true => outln!("{}", serde_json::to_string(&report)?)?,
        false => print(&report)?,
    }
    Ok(Status::Done)
}

fn print(report: &LossReport) -> anyhow::Result<()> {
    let clip = &report.clip_ratio;
    let metrics = [
        ("loss", Some(report.loss)),
        ("kl", report.kl),
        ("entropy", Some(report.entropy)),
        ("mean_logp", Some(report.mean_logp)),
        ("clip_ratio/low_mean", Some(clip.low_mean)),
        ("clip_ratio/low_min", Some(clip.low_min)),
        ("clip_ratio/high_mean", Some(clip.high_mean)),
        ("clip_ratio/high_max", Some(clip.high_max)),
        ("clip_ratio/region_mean", Some(clip.region_mean)),
        ("grad_norm", Some(report.grad_norm)),
    ];
    for (name, value) in metrics {
        if let Some(value) = value {
            outln!("{name:<24} {value:>14.8}")?;
        }
    }
    for (name, norm) in &report.grad_norms {
        outln!("{norm:>14.8}  {name}")?;
    }
    Ok(())
}
