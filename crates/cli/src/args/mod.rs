//! What may be typed: clap's types, and nothing but them.

pub(crate) mod ask;
pub(crate) mod bench;
pub(crate) mod chat;
pub(crate) mod device;
pub(crate) mod doctor;
pub(crate) mod eval;
pub(crate) mod filter;
pub(crate) mod infer;
pub(crate) mod inspect;
pub(crate) mod keyframes;
pub(crate) mod merge;
pub(crate) mod model;
pub(crate) mod parallel;
pub(crate) mod perceive;
pub(crate) mod perceiver;
pub(crate) mod plan;
pub(crate) mod preprocess;
pub(crate) mod quickstart;
pub(crate) mod report;
pub(crate) mod rewards;
pub(crate) mod run;
pub(crate) mod runs;
pub(crate) mod serve;
pub(crate) mod sft;
pub(crate) mod show;
pub(crate) mod sim;
pub(crate) mod train;
pub(crate) mod video;

use clap::{Parser, Subcommand};

/// From egocentric videos and questions to a trained spatial reasoner.
#[derive(Debug, Parser)]
#[command(name = "embodied-r", version, about, propagate_version = true)]
pub(crate) struct Cli {
    /// What to log to standard error, such as `info` or `embodied_r_grpo=debug`.
    #[arg(long, global = true, env = "EMBODIED_R_LOG", default_value = "warn")]
    pub(crate) log: String,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// A command without a comment here has that of its arguments, which `--help` shows whole.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Unify VSI-Bench and UrbanVideo-Bench into one question set, split by scene.
    Preprocess(preprocess::PreprocessArgs),
    /// Show which frames of a video are key frames, and why.
    Keyframes(keyframes::KeyframesArgs),
    /// Turn videos into text with a captioner.
    Perceive(Box<perceive::PerceiveArgs>),
    /// Score saved outputs with the trainer's rewards.
    Rewards(rewards::RewardsArgs),
    /// Fine-tune on conversations (cold start).
    Sft(sft::SftArgs),
    /// Train with GRPO.
    Train(train::TrainArgs),
    /// Estimate the memory and the time of a run on GPUs, or here.
    Plan(plan::PlanArgs),
    Eval(eval::EvalArgs),
    Infer(infer::InferArgs),
    /// Serve a model over HTTP as OpenAI's API does.
    Serve(serve::ServeArgs),
    /// Ask a question about a video.
    Ask(ask::AskArgs),
    /// Talk with a model.
    Chat(chat::ChatArgs),
    /// Make rooms, videos, questions and text to train on.
    Sim(sim::SimArgs),
    /// Run the whole way on built-in rooms.
    Quickstart(quickstart::QuickstartArgs),
    Filter(filter::FilterArgs),
    Runs(runs::RunsArgs),
    Show(show::ShowArgs),
    Report(report::ReportArgs),
    /// Check what the machine has and what is missing.
    Doctor(doctor::DoctorArgs),
    /// Merge a LoRA adapter into its model.
    Merge(merge::MergeArgs),
    /// Look into a model: tokens in, numbers out.
    Inspect(inspect::InspectArgs),
    /// Measure speed.
    Bench(bench::BenchArgs),
}

/// Reads the command line; wrong usage ends the process with code 2, as clap does.
pub(crate) fn parse() -> anyhow::Result<Cli> {
    Ok(Cli::parse())
}
