//! Answers as harnesses extract them, for several benchmarks.

pub(crate) mod cursor;
pub(crate) mod json;
pub(crate) mod literal;
pub(crate) mod option_infer;
pub(crate) mod option_match;
pub(crate) mod pattern;
pub(crate) mod python;
pub(crate) mod reasoning;
pub(crate) mod value;
pub(crate) mod vsi_numbers;
