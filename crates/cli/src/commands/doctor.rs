//! `embodied-r doctor`.

mod check;
mod dataset;
mod ffmpeg;
mod gpu;
mod hub;
mod machine;
mod model;
#[cfg(feature = "cuda")]
mod nccl;

use std::path::Path;

use serde::Serialize;

use crate::args::doctor::DoctorArgs;
use crate::exit::Status;
use crate::output::{out, outln};
pub(super) use check::size;
use check::{Check, State};
pub(super) use machine::{description, free_bytes, memory_bytes};

/// What `--json` prints.
#[derive(Serialize)]
struct Findings {
    ok: bool,
    checks: Vec<Check>,
}

/// Check the installation and the machine.
pub(crate) fn run(args: DoctorArgs) -> anyhow::Result<Status> {
    let mut checks = ffmpeg::checks();
    checks.extend(machine::checks());
    checks.extend(gpu::checks());
    #[cfg(feature = "cuda")]
    checks.push(nccl::check());
    checks.push(machine::disk("disk", Path::new(".")));
    if let Some(folder) = &args.data {
        checks.push(machine::disk("disk of data", folder));
    }
    if let Some(folder) = &args.model {
        checks.push(machine::disk("disk of model", folder));
    }
    if let Some(folder) = &args.data {
        checks.extend(dataset::checks(folder));
    }
    if let Some(folder) = &args.model {
        checks.extend(model::checks(folder, memory_bytes()));
    }
    checks.extend(hub::checks(|name| std::env::var(name).ok()));

    let ok = checks.iter().all(|check| check.state != State::Missing);
    let findings = Findings { ok, checks };
    if args.json {
        outln!("{}", serde_json::to_string_pretty(&findings)?)?;
    } else {
        out!("{}", check::table(&findings.checks))?;
    }
    Ok(if ok { Status::Done } else { Status::Partial })
}
