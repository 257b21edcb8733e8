//! Request bodies, validated field by field.

pub(crate) mod chat;
pub(crate) mod completion;
mod fields;
mod settings;
#[cfg(test)]
mod tests;

pub(crate) use settings::{Include, Model, ResponseMode, Settings};
