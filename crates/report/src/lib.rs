//! A training run as one self-contained HTML page, several runs compared on one page, and the reward curves as SVG.
//!
//! [`page()`] renders a run: its curves, evaluation scores, sample completions and settings. [`compare()`] overlays
//! several runs, with their final metrics and the settings that differ. [`figure()`] draws the reward curves alone.
//! [`samples`] reads the completions of a run.
//!
//! ```
//! use embodied_r_report::{Sources, page};
//!
//! # let folder = tempfile::tempdir()?;
//! # let run = folder.path();
//! std::fs::write(run.join("events.jsonl"), "{\"step\": 1, \"reward\": 0.5}\n")?;
//! let page = page(&Sources { run, evals: &[], title: Some("first run") })?;
//! assert!(page.html.contains("<h1>first run</h1>"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod answers;
mod chart;
mod compare;
mod completions;
mod consistency;
mod curves;
mod document;
mod drawing;
mod environment;
mod error;
mod events;
mod figure;
mod html;
mod metrics;
mod overlay;
mod page;
pub mod samples;
mod scores;
mod settings;
mod summary;

pub use answers::{DrawnAnswer, answers_page};
pub use compare::compare;
pub use document::Page;
pub use drawing::Drawn;
pub use error::{Error, Result};
pub use figure::figure;
pub use html::escape;
pub use page::{Sources, page};
pub use samples::Sample;
pub use scores::keep_scores;
