//! How two sides prove to each other that they know the job's token.
//!
//! The coordinator sends a magic word and a number, the member a magic word, a number of its own and its
//! proof, the coordinator then a byte (whether it believes) and its own proof.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use super::frame::Until;
use super::token::{NONCE, PROOF, Prover, Token, nonce, same};

/// The protocol, with its version.
const MAGIC: &[u8; 16] = b"embodied-r-dist1";

/// Why a handshake failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The tokens differ.
    Token,
    /// The connection broke, was too slow, or the other side speaks something else.
    Other(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Other(error)
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Token => f.write_str("its token is another"),
            Self::Other(error) => error.fmt(f),
        }
    }
}

/// The coordinator's side.
pub(crate) fn receive(stream: &TcpStream, token: &Token, until: Instant) -> Result<(), Failure> {
    let mine = draw()?;
    (&mut &*stream).write_all(&[MAGIC.as_slice(), &mine].concat())?;
    let mut from = Until { stream, until };
    check_magic(&mut from)?;
    let theirs: [u8; NONCE] = bytes(&mut from)?;
    let proof: [u8; PROOF] = bytes(&mut from)?;
    if !same(proof, token.proof(Prover::Member, &mine, &theirs)) {
        (&mut &*stream).write_all(&[0])?;
        return Err(Failure::Token);
    }
    let proof = token.proof(Prover::Coordinator, &mine, &theirs);
    (&mut &*stream).write_all(&[[1].as_slice(), &proof].concat())?;
    Ok(())
}

/// The member's side.
pub(crate) fn present(stream: &TcpStream, token: &Token, until: Instant) -> Result<(), Failure> {
    let mut from = Until { stream, until };
    check_magic(&mut from)?;
    let theirs: [u8; NONCE] = bytes(&mut from)?;
    let mine = draw()?;
    let proof = token.proof(Prover::Member, &theirs, &mine);
    (&mut &*stream).write_all(&[MAGIC.as_slice(), &mine, &proof].concat())?;
    let [believed] = bytes(&mut from)?;
    if believed != 1 {
        return Err(Failure::Token);
    }
    let proof: [u8; PROOF] = bytes(&mut from)?;
    if !same(proof, token.proof(Prover::Coordinator, &theirs, &mine)) {
        return Err(Failure::Token);
    }
    Ok(())
}

fn draw() -> Result<[u8; NONCE], Failure> {
    nonce().map_err(|error| Failure::Other(io::Error::other(error.to_string())))
}

fn check_magic(from: &mut impl Read) -> Result<(), Failure> {
    if bytes(from)? == *MAGIC {
        return Ok(());
    }
    let why = "it speaks another protocol";
    Err(Failure::Other(io::Error::new(io::ErrorKind::InvalidData, why)))
}

fn bytes<const N: usize>(from: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}
