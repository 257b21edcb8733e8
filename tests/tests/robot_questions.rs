//! `robot questions`.
