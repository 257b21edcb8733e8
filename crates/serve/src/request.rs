//! Request bodies, validated field by field.

pub(crate) mod chat;
pub(crate) mod completion;
mod effect;
mod fields;
pub(crate) mod message;
pub(crate) mod responses;
mod settings;
#[cfg(test)]
mod tests;
pub(crate) mod tokenize;

pub(crate) use settings::{Include, Model, ResponseMode, Settings};
