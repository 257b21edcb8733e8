//! The secret that the ranks of a job share, and how it is proved without being told.

use std::fmt;
use std::io;

use crate::error::{Error, Result};

/// Bytes of a number that is used once.
pub(crate) const NONCE: usize = 32;
/// Bytes of a proof.
pub(crate) const PROOF: usize = 32;

/// A job's secret. It never crosses the wire, and has no `Display` form.
#[derive(Clone)]
pub struct Token([u8; 32]);

/// Who proves that it knows the token; a proof of one is none of the other.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Prover {
    Coordinator,
    Member,
}

impl Token {
    /// The token of the words `secret`, which the ranks of a job have alike and nobody else.
    pub fn new(secret: &str) -> Self {
        Self(blake3::derive_key("embodied-r-dist 1 token", secret.as_bytes()))
    }

    /// A token that nobody can guess.
    ///
    /// # Errors
    ///
    /// The system has no random numbers.
    pub fn random() -> Result<Self> {
        Ok(Self(nonce()?))
    }

    /// The token as bytes, for whoever hands it round by other means.
    #[cfg_attr(not(any(feature = "mpi", test)), expect(dead_code, reason = "MPI hands it round"))]
    pub(crate) fn to_bytes(&self) -> [u8; 32] {
        self.0
    }

    #[cfg_attr(not(feature = "mpi"), expect(dead_code, reason = "MPI hands it round"))]
    pub(crate) fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// What `prover` shows to have the token, for the numbers that both sides drew.
    pub(crate) fn proof(
        &self,
        prover: Prover,
        coordinators: &[u8; NONCE],
        members: &[u8; NONCE],
    ) -> [u8; PROOF] {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(match prover {
            Prover::Coordinator => b"coordinator",
            Prover::Member => b"member     ",
        });
        hasher.update(coordinators).update(members);
        hasher.finalize().into()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token([hidden])")
    }
}

/// Whether two proofs are the same, in a time that tells nothing about where they differ.
pub(crate) fn same(one: [u8; PROOF], other: [u8; PROOF]) -> bool {
    blake3::Hash::from_bytes(one) == blake3::Hash::from_bytes(other)
}

/// A number that is used once.
pub(crate) fn nonce() -> Result<[u8; NONCE]> {
    let mut bytes = [0; NONCE];
    getrandom::fill(&mut bytes).map_err(|error| Error::System {
        what: "draw random numbers",
        source: io::Error::other(error.to_string()),
    })?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_of_one_side_one_token_and_one_pair_of_numbers() {
        let (a, b) = ([1; NONCE], [2; NONCE]);
        let token = Token::new("secret");
        let proof = token.proof(Prover::Member, &a, &b);
        assert!(same(proof, Token::new("secret").proof(Prover::Member, &a, &b)));
        assert!(!same(proof, token.proof(Prover::Coordinator, &a, &b)));
        assert!(!same(proof, token.proof(Prover::Member, &b, &a)));
        assert!(!same(proof, Token::new("other").proof(Prover::Member, &a, &b)));
    }

    #[test]
    fn the_debug_form_hides_the_token() {
        assert_eq!(format!("{:?}", Token::new("secret")), "Token([hidden])");
    }
}
