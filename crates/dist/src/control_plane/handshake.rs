//! Mutual challenge-response authentication with the job's token.
//!
//! The coordinator sends the magic bytes and a nonce; the member replies with the magic bytes, its own nonce and its
//! proof; the coordinator then sends one byte (1 if it accepts) and its own proof.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use super::frame::DeadlineReader;
use super::token::{JobToken, NONCE, PROOF, Prover, constant_time_eq, nonce};

/// The protocol and its version.
const MAGIC: &[u8; 16] = b"embodied-r-dist1";

/// Why a handshake failed.
#[derive(Debug)]
pub(crate) enum HandshakeError {
    /// The tokens differ.
    JobToken,
    /// The connection broke or timed out, or the other side speaks another protocol.
    Other(io::Error),
}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> Self {
        Self::Other(error)
    }
}

impl std::fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::JobToken => f.write_str("its token differs"),
            Self::Other(error) => error.fmt(f),
        }
    }
}

/// The coordinator's side.
pub(crate) fn accept(
    stream: &TcpStream,
    token: &JobToken,
    until: Instant,
) -> Result<(), HandshakeError> {
    let mine = draw()?;
    (&mut &*stream).write_all(&[MAGIC.as_slice(), &mine].concat())?;
    let mut from = DeadlineReader { stream, until };
    check_magic(&mut from)?;
    let theirs: [u8; NONCE] = bytes(&mut from)?;
    let proof: [u8; PROOF] = bytes(&mut from)?;
    if !constant_time_eq(proof, token.proof(Prover::Member, &mine, &theirs)) {
        (&mut &*stream).write_all(&[0])?;
        return Err(HandshakeError::JobToken);
    }
    let proof = token.proof(Prover::Coordinator, &mine, &theirs);
    (&mut &*stream).write_all(&[[1].as_slice(), &proof].concat())?;
    Ok(())
}

/// The member's side.
pub(crate) fn authenticate(
    stream: &TcpStream,
    token: &JobToken,
    until: Instant,
) -> Result<(), HandshakeError> {
    let mut from = DeadlineReader { stream, until };
    check_magic(&mut from)?;
    let theirs: [u8; NONCE] = bytes(&mut from)?;
    let mine = draw()?;
    let proof = token.proof(Prover::Member, &theirs, &mine);
    (&mut &*stream).write_all(&[MAGIC.as_slice(), &mine, &proof].concat())?;
    let [accepted] = bytes(&mut from)?;
    if accepted != 1 {
        return Err(HandshakeError::JobToken);
    }
    let proof: [u8; PROOF] = bytes(&mut from)?;
    if !constant_time_eq(proof, token.proof(Prover::Coordinator, &theirs, &mine)) {
        return Err(HandshakeError::JobToken);
    }
    Ok(())
}

fn draw() -> Result<[u8; NONCE], HandshakeError> {
    nonce().map_err(|error| HandshakeError::Other(io::Error::other(error.to_string())))
}

fn check_magic(from: &mut impl Read) -> Result<(), HandshakeError> {
    if bytes(from)? == *MAGIC {
        return Ok(());
    }
    let why = "protocol mismatch: it is another program, or another version of this one";
    Err(HandshakeError::Other(io::Error::new(io::ErrorKind::InvalidData, why)))
}

fn bytes<const N: usize>(from: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}
