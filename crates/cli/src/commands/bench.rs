//! `embodied-r bench`.

mod caption;
mod generate;
mod gpu;
mod grpo;
mod make_model;
mod ops;
mod report;

use crate::args::bench::{BenchArgs, BenchCommand};
use crate::exit::Status;

/// Run benchmarks.
pub(crate) fn run(args: BenchArgs) -> anyhow::Result<Status> {
    match args.command {
        BenchCommand::Generate(work) => generate::run(&work),
        BenchCommand::Caption(args) => caption::run(&args),
        BenchCommand::Grpo(work) => grpo::run(&work),
        BenchCommand::MakeModel(args) => make_model::run(&args),
        BenchCommand::Ops(args) => ops::run(&args),
        BenchCommand::Gpu(args) => gpu::run(&args),
    }
}
