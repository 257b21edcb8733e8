//! The report of `plan` as text.

use std::fmt::Write as _;

use embodied_r_policy::PAGE_SIZE;

use super::report::{Memory, Report, VisionEncoder};

/// Formats the report.
pub(super) fn of(report: &Report) -> String {
    let mut out = String::new();
    let mut line = |name: &str, what: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{name:<12} {what}");
    };
    line("model", model(report));
    line("device", device(report));
    line("rank", rank(report));
    line("memory", memory(&report.memory));
    parts(&report.memory).for_each(|(name, gb)| line("", format!("{name:<16} {gb:>8.2} GB")));
    if report.memory.host_gb > 0.0 {
        line("host memory", host_memory(&report.memory));
    }
    line("capacity", capacity(report));
    line("time", time(report));
    for phase in &report.time.phases {
        let hidden = match phase.hidden_s > 0.0 {
            true => format!(", {:.2} s overlapped with the update", phase.hidden_s),
            false => String::new(),
        };
        let what = match phase.tflop > 0.0 {
            true => format!("{:.1} TFLOP, {:.0} GB", phase.tflop, phase.gb),
            false => format!("{:.1} GB", phase.gb),
        };
        let (name, bound) = (phase.name, phase.bound);
        line("", format!("{name:<16} {:>8.2} s   bound by {bound}: {what}{hidden}", phase.seconds));
    }
    if let Some(run) = &report.run {
        let (steps, hours, all) = (run.steps, run.hours, run.device_hours);
        line("run", format!("{steps} steps, about {hours:.1} h ({all:.0} device-hours)"));
    }
    if !report.memory.fits {
        if report.advice.is_empty() {
            line("advice", "no settings found that fit: use GPUs with more memory".into());
        }
        for (index, advice) in report.advice.iter().enumerate() {
            let name = if index == 0 { "would fit" } else { "or" };
            line(name, format!("with {}: {:.1} GB", advice.what, advice.total_gb));
        }
    }
    out
}

fn host_memory(memory: &Memory) -> String {
    let images = memory.vision.as_ref().map_or(0.0, |vision| vision.host_gb);
    let images = match images > 0.0 {
        true => format!(", {images:.2} GB of them for image embeddings and patches"),
        false => String::new(),
    };
    format!("{:.2} GB per rank besides the program{images}", memory.host_gb)
}

fn model(report: &Report) -> String {
    let model = &report.model;
    let share = 100.0 * model.trainable as f64 / model.parameters.max(1) as f64;
    format!(
        "{}: {:.2} B parameters in {} layers, {share:.4} % trainable",
        model.name,
        model.parameters as f64 / 1e9,
        model.layers
    )
    .replace("100.0000 %", "all")
        + &model.vision_encoder.as_ref().map(vision_encoder).unwrap_or_default()
}

fn vision_encoder(encoder: &VisionEncoder) -> String {
    let trained = match encoder.trainable {
        0 => "frozen",
        trained if trained == encoder.parameters => "trained",
        _ => "trained in part",
    };
    format!(
        "; vision encoder of {:.2} B parameters, {trained}; {} with {} tokens per question",
        encoder.parameters as f64 / 1e9,
        counted(encoder.images, "image"),
        encoder.image_tokens
    )
}

fn device(report: &Report) -> String {
    let device = &report.device;
    let (name, tflops, rate) = (&device.name, device.tflops_per_s, device.gb_per_s);
    let nodes = match device.nodes {
        0 | 1 => String::new(),
        nodes => format!(" on {nodes} nodes"),
    };
    let links = device.links.as_ref().map(|links| format!("; {links}")).unwrap_or_default();
    let tflops = if tflops < 10.0 { format!("{tflops:.2}") } else { format!("{tflops:.0}") };
    format!("{} x {name}{nodes}: {tflops} TFLOP/s, {rate:.0} GB/s{links}", device.ranks)
}

fn rank(report: &Report) -> String {
    let (rank, ranks) = (&report.rank, report.device.ranks);
    let (prompts, each) = (rank.prompts, rank.completions_per_prompt);
    let idle = match rank.busy_ranks < ranks {
        true => format!("; only {} of {ranks} ranks have work", rank.busy_ranks),
        false => String::new(),
    };
    format!(
        "{} of {} completions per step ({} questions): {} of up to {} tokens, up to {} of each of up to {}{idle}",
        rank.completions,
        rank.completions_per_step,
        rank.questions_per_step,
        counted(prompts, "prompt"),
        rank.max_prompt_length,
        counted(each, "completion"),
        rank.max_completion_length
    )
}

fn counted(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

fn memory(memory: &Memory) -> String {
    let fits = if memory.fits { "fits" } else { "does not fit" };
    format!(
        "about {:.2} GB of {:.2} GB: {fits} (of the rollout and the update with its gradients, the larger counts)",
        memory.total_gb, memory.usable_gb
    )
}

fn parts(memory: &Memory) -> impl Iterator<Item = (&'static str, f64)> {
    [
        ("process", memory.base_gb),
        ("weights", memory.weights_gb),
        ("reference", memory.reference_gb),
        ("master weights", memory.masters_gb),
        ("optimizer state", memory.moments_gb),
        ("activation cache", memory.rollout_pass_gb),
        ("rollout", memory.rollout_gb),
        ("gradients", memory.gradients_gb),
        ("update", memory.update_gb),
    ]
    .into_iter()
    .chain(memory.vision.iter().flat_map(|vision| {
        [
            ("vision encoder", vision.weights_gb),
            ("its training", vision.training_gb),
            ("image embeddings", vision.embeddings_gb),
            ("image patches", vision.patches_gb),
            ("saved by encoder", vision.activations_gb),
            ("encoder pass", vision.workspace_gb),
        ]
    }))
    .filter(|(_, gb)| *gb > 0.0)
}

fn capacity(report: &Report) -> String {
    let fits = &report.fits;
    let largest = match fits.largest_batch_tokens {
        Some(tokens) => format!("micro-batches of up to {tokens} tokens"),
        None => "no micro-batch".into(),
    };
    format!(
        "{largest} with full recomputation; with `max_tokens_per_batch` {}, {} of {} layers are not recomputed \
         (`recompute` {}); {} KV cache pages of {PAGE_SIZE} tokens, {} sequences of full length",
        fits.max_tokens_per_batch,
        fits.kept_layers,
        fits.layers,
        fits.recompute,
        fits.kv_pages,
        fits.kv_sequences
    )
}

fn time(report: &Report) -> String {
    let time = &report.time;
    let splitting = match time.whole_groups_step_s > time.step_s {
        true => format!(", {:.1} s if groups were not split over ranks", time.whole_groups_step_s),
        false => String::new(),
    };
    format!(
        "about {:.1} s per step with prompts of {} and completions of {} tokens{splitting}; decodes {:.0} tokens/s",
        time.step_s, time.lengths.prompt, time.lengths.completion, time.new_tokens_per_s
    )
}
