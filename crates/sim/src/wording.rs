//! The wording that questions, rationales and pretraining text about rooms share.

pub use crate::caption_trace::bearing_text;
use crate::catalogue;
pub use crate::geometry::{Octant, wrap_whole};
pub use crate::judge_examples::sentence;
pub use crate::question_template::{choices, letter, named_in_step, step_text};
pub use crate::rationale::tagged;

/// The names of all object classes. A room has at most one object of each.
pub const OBJECT_NAMES: [&str; 20] = catalogue::NAMES;
