//! Open questions about a robot's scene, answered by a model and scored from 0 to 3 by a judge, as in Robot-R1 Bench.
//!
//! [`read_questions`] reads them, [`system_prompt`] says how to answer one. [`JudgePrompt`] asks a model to compare an answer
//! with the reference answer; [`exact_score`] scores some questions of the simulated arm by rules. [`Summary`] has the
//! mean scores, beside the [`published`] ones.

mod answering;
mod exact;
mod judge;
pub mod published;
mod question;
mod summary;

pub use answering::{answer_of, system_prompt};
pub use exact::{Facts, exact_score};
pub use judge::{JudgePrompt, Judgement, MAX_SCORE, parse_judgement};
pub use question::{BenchQuestion, QuestionType, read_questions};
pub use summary::{Agreement, Interval, MeanScore, Summary, markdown};
