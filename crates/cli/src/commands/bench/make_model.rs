//! `embodied-r bench make-model`.

use std::path::Path;

use anyhow::Context as _;
use embodied_r_bench::RandomModel;
use embodied_r_policy::WeightDtype;
use serde_json::json;

use crate::args::bench::{MakeModelArgs, ModelDtype};
use crate::commands::doctor::{free_bytes, size};
use crate::exit::{Status, Usage, hint};
use crate::output::outln;
use crate::progress::Bar;

/// Disk space for the configuration and the tokenizer.
const CONFIG_BYTES: u64 = 32 << 20;

/// Writes a model with random weights.
pub(super) fn run(args: &MakeModelArgs) -> anyhow::Result<Status> {
    let dtype = args.dtype.map(|dtype| match dtype {
        ModelDtype::Float32 => WeightDtype::F32,
        ModelDtype::Bfloat16 => WeightDtype::Bf16,
    });
    let model =
        RandomModel::new(args.preset, dtype).context("the preset has no published shape")?;
    check_room(&args.output, model.weight_bytes())?;
    std::fs::create_dir_all(&args.output)
        .with_context(|| format!("cannot create `{}`", args.output.display()))?;
    let took = model.write(&args.output, args.seed, &Bar::default())?;
    let (config, dtype, bytes) = (model.config(), model.dtype().name(), model.weight_bytes());
    let report = json!({
        "preset": args.preset.name(),
        "path": args.output,
        "dtype": dtype,
        "seed": args.seed,
        "parameters": model.parameters(),
        "vocab_size": config.vocab_size,
        "weight_bytes": bytes,
        "seconds": (took.as_secs_f64() * 1e3).round() / 1e3,
    });
    if args.json {
        outln!("{report}")?;
    } else {
        let (parameters, out) = (model.parameters(), args.output.display());
        outln!("`{out}`: {parameters} parameters in {dtype}, {}", size(bytes))?;
    }
    Ok(Status::Done)
}

/// Fails if the folder is not empty or the disk has too little space.
fn check_room(out: &Path, bytes: u64) -> anyhow::Result<()> {
    match std::fs::read_dir(out).map(|mut entries| entries.next().is_some()) {
        Ok(true) => {
            let what = format!("`{}` is not empty: give a new directory", out.display());
            return Err(Usage(what).into());
        }
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot read `{}`", out.display()));
        }
        _ => {}
    }
    // If the free space is unknown, a full disk shows while writing.
    match free_bytes(out) {
        Some(free) if free < bytes + CONFIG_BYTES => Err(hint(
            format!(
                "`{}` has {} free, but the model needs {}",
                out.display(),
                size(free),
                size(bytes)
            ),
            "free some space, or use another directory, a smaller preset or `--dtype bfloat16`",
        )),
        _ => Ok(()),
    }
}
