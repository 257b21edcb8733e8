//! `embodied-r merge`.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use embodied_r_files::Error;
use embodied_r_policy::tokenizer::Tokenizer;
use embodied_r_policy::weights::SaveOptions;
use embodied_r_policy::{Adapter, Policy, WeightDtype, lora};
use serde_json::json;

use crate::args::merge::{Dtype, MergeArgs};
use crate::exit::{self, Status, Usage};
use crate::hub;
use crate::output::outln;

/// Present in an adapter's folder if it has its own tokenizer.
const TOKENIZER: &str = "tokenizer.json";

/// Holds the stop tokens; adapters have no such file.
const GENERATION_CONFIG: &str = "generation_config.json";

/// Merge an adapter into its base model.
pub(crate) fn run(args: MergeArgs) -> anyhow::Result<Status> {
    refuse_non_empty(&args.output)?;
    let adapter_folder = hub::adapter(&args.adapter)?;
    let folder = hub::decoder(&args.model, None)?;
    if lora::base_model_dir(&folder)?.is_some() {
        let what = format!(
            "`--model {}` is an adapter: merge it into its base model first, and give the merged model",
            args.model
        );
        return Err(Usage(what).into());
    }
    if !args.force {
        lora::check_base(&adapter_folder, &folder).map_err(|error| {
            let advice = "give its base model with `--model`, or `--force` to merge into this one";
            exit::hint(error.to_string(), advice)
        })?;
    }
    let policy = Policy::load(&folder)?;
    let adapter = Arc::new(Adapter::open(&adapter_folder, policy.config())?);
    let policy = policy.merged(adapter.clone())?;
    let policy = if args.text_only { policy.text_only() } else { policy };
    let dtype = args.dtype.map_or(policy.config().dtype, WeightDtype::from);
    write_whole(&args.output, |temporary| {
        policy.save(temporary, &SaveOptions { dtype, ..SaveOptions::default() })?;
        save_tokenizer(&folder, &adapter_folder, temporary)
    })?;
    if args.json {
        let report = json!({
            "output": args.output,
            "weights": adapter.len(),
            "dtype": dtype.name(),
            "base_model": adapter.base_model(),
        });
        outln!("{report}")?;
    } else {
        let (changed, output) = (adapter.len(), args.output.display());
        outln!("merged {changed} weights, saved the model to {output} ({})", dtype.name())?;
    }
    Ok(Status::Done)
}

impl From<Dtype> for WeightDtype {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::Float32 => Self::F32,
            Dtype::Bfloat16 => Self::Bf16,
            Dtype::Float16 => Self::F16,
        }
    }
}

/// Writes the tokenizer that the adapter was trained with: its own, else the model's.
fn save_tokenizer(model: &Path, adapter: &Path, output: &Path) -> anyhow::Result<()> {
    if !adapter.join(TOKENIZER).is_file() {
        return Ok(Tokenizer::from_dir(model)?.save(output)?);
    }
    Tokenizer::from_dir(adapter)?.save(output)?;
    let (from, to) = (model.join(GENERATION_CONFIG), output.join(GENERATION_CONFIG));
    if from.is_file() && !to.exists() {
        fs::copy(&from, &to).map_err(Error::io("copy", from))?;
    }
    Ok(())
}

/// Fails if the output exists and is not an empty folder.
fn refuse_non_empty(output: &Path) -> anyhow::Result<()> {
    let is_non_empty = match fs::read_dir(output) {
        Ok(mut entries) => entries.next().is_some(),
        Err(_) => output.exists(),
    };
    if is_non_empty {
        let message = format!("`{}` is not empty", output.display());
        return Err(exit::hint(message, "give another `--output`, or remove its contents"));
    }
    Ok(())
}

/// Fills a temporary folder and renames it to `output`, so that `output` is never partial.
fn write_whole(
    output: &Path,
    fill: impl FnOnce(&Path) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let temporary = beside(output);
    if temporary.exists() {
        fs::remove_dir_all(&temporary).map_err(Error::io("remove", temporary.as_path()))?;
    }
    fs::create_dir_all(&temporary).map_err(Error::io("create", temporary.as_path()))?;
    let done = fill(&temporary)
        .and_then(|()| Ok(fs::rename(&temporary, output).map_err(Error::io("rename to", output))?));
    if done.is_err() {
        // The first error is the one to report.
        let _ = fs::remove_dir_all(&temporary);
    }
    done
}

fn beside(output: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(output.components().next_back().map_or("merged".as_ref(), |last| last.as_os_str()));
    name.push(".tmp");
    output.parent().unwrap_or(Path::new(".")).join(name)
}
