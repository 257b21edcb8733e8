//! A model and a tokenizer for tests of the crate.

pub(crate) mod toy;
