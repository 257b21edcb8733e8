//! Black-box tests of the binary, in one executable: each on its own would link the same crates again.
//!
//! `cargo test -p embodied-r-tests --test black_box serve::` runs those of `serve`.

mod architecture;
mod ask;
mod bench;
mod chat;
mod durability;
mod eval;
mod filter;
mod folds;
mod hub;
mod images;
mod infer;
mod inspect;
mod keyframes;
mod launch;
mod lora;
mod merge;
mod non_finite;
mod output;
mod pass_at;
mod perceive;
mod perceive_kills;
mod perceive_local;
mod perceive_ranks;
mod plan;
mod preprocess;
mod quickstart;
mod rank_faults;
mod ranks;
mod reasoner;
mod report;
mod reward_services;
mod rewards;
mod run_folders;
mod run_settings;
mod runs;
mod security;
mod serve;
mod sft;
mod show;
mod sim;
mod stages;
mod terminal;
mod train;
mod vocabulary;
