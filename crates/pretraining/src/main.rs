//! `embodied-r-pretrain`: makes the small base models that `embodied-r quickstart` starts from.
//!
//! The program has the models' files and none of this. `corpus` and `arm_corpus` make the text, `tokenizer` trains a
//! tokenizer on it, `lm` a decoder, and `detection` a vision encoder; `pretrain` is the curriculum of all three models.

mod allocator;
mod args;
mod arm_corpus;
mod corpus;
mod corpus_file;
mod detection;
mod lm;
mod mimetic;
mod pretrain;
mod progress;
mod tokenizer;

use clap::Parser as _;
use tracing_subscriber::EnvFilter;

use args::{Cli, Command};

fn main() -> anyhow::Result<()> {
    allocator::keep_freed_pages();
    run(Cli::parse()).or_else(|error| match error.downcast::<clap::Error>() {
        Ok(usage) => usage.exit(),
        Err(error) => Err(error),
    })
}

fn run(cli: Cli) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&cli.log)?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match cli.command {
        Command::Model(args) => pretrain::run(&args),
        Command::Corpus(args) => corpus_file::run(args),
    }
}
