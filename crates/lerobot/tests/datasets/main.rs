//! Data sets that the writer, LeRobot or an attacker wrote.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod by_lerobot;
mod demos;
mod hostile;
mod layout;
mod round_trip;
