//! The control plane: TCP connections between rank 0 and every rank (itself too), beside the
//! collectives. Over it ranks come together, tell that they are alive, and learn why a job ends.

mod client;
mod coordinator;
mod frame;
mod gathering;
mod handshake;
mod meeting;
mod message;
mod reception;
mod token;
mod watchdog;

pub use gathering::Fault;
pub use meeting::Meeting;
pub use token::Token;

pub(crate) use client::Client;
pub(crate) use meeting::listen;

#[cfg(test)]
mod tests;
