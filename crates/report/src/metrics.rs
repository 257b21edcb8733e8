//! Names of the metrics that several sections show.

pub(crate) const ACCURACY: &str = "rewards/accuracy/mean";
pub(crate) const FORMAT: &str = "rewards/format/mean";
pub(crate) const CONSISTENCY: &str = "rewards/consistency/mean";
pub(crate) const LENGTH: &str = "completions/mean_length";
