//! `embodied-r inspect loss`.

use embodied_r_grpo::inspect::batch_file::BatchFile;
use embodied_r_grpo::inspect::{LossReport, loss};
use embodied_r_grpo::settings::LossSettings;
use embodied_r_policy::{Policy, tokenizer};

use crate::args::inspect::LossArgs;
use crate::commands::train::explain::explain;
use crate::device;
use crate::exit::Status;
use crate::hub;
use crate::output::outln;
use crate::settings::{self, Layers};

/// Print the loss on given tokens and its gradient norms.
pub(super) fn run(args: &LossArgs) -> anyhow::Result<Status> {
    let batch = BatchFile::read(&args.data).map_err(explain)?;
    let layers = match &batch.settings {
        Some(own) => Layers::default().text(&args.data, &settings::text(own)?)?,
        None => Layers::default(),
    };
    let settings: LossSettings = layers.pairs(&args.sets).resolve(&[])?;
    let folder = hub::decoder(&args.model, None)?;
    let stop_ids = tokenizer::stop_ids(&folder)?;
    let device = device::open(args.device)?;
    let policy = Policy::load(&folder)?.with_precision(args.precision.into()).to_device(&device)?;
    let report = loss(&policy, &batch, &settings, &stop_ids).map_err(explain)?;
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
