//! The control plane: TCP connections from every rank (including rank 0) to the coordinator on rank 0, separate from
//! the collectives. It carries the rendezvous, heartbeats and failure reports.

mod acceptor;
mod client;
mod coordinator;
mod fault;
mod frame;
mod handshake;
mod message;
mod rendezvous;
mod roster;
mod token;
mod watchdog;

pub use fault::RendezvousFault;
pub use rendezvous::Rendezvous;
pub use token::JobToken;

pub(crate) use client::Client;
pub(crate) use rendezvous::listen;

#[cfg(test)]
mod tests;
