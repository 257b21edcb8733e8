//! The shared secret of a job, and proofs of knowing it that do not reveal it.

use std::fmt;
use std::io;

use crate::error::{Error, Result};

/// Bytes of a nonce.
pub(crate) const NONCE: usize = 32;
/// Bytes of a proof.
pub(crate) const PROOF: usize = 32;

/// A job's shared secret. It never crosses the wire and has no `Display` form.
#[derive(Clone)]
pub struct JobToken([u8; 32]);

/// The side that proves to know the token. Proofs are bound to a side, so neither can be replayed as the other's.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Prover {
    Coordinator,
    Member,
}

impl JobToken {
    /// Derives the token from `secret`, which only the ranks of the job know.
    pub fn new(secret: &str) -> Self {
        Self(blake3::derive_key("embodied-r-dist 1 token", secret.as_bytes()))
    }

    /// A random token.
    ///
    /// # Errors
    ///
    /// The system's random number generator failed.
    pub fn random() -> Result<Self> {
        Ok(Self(nonce()?))
    }

    /// The token as bytes, for a backend that distributes it itself.
    #[cfg_attr(
        not(any(feature = "mpi", test)),
        expect(dead_code, reason = "only MPI broadcasts it")
    )]
    pub(crate) fn to_bytes(&self) -> [u8; 32] {
        self.0
    }

    #[cfg_attr(not(feature = "mpi"), expect(dead_code, reason = "only MPI broadcasts it"))]
    pub(crate) fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// `prover`'s proof of knowing the token, for the nonces of both sides.
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

impl fmt::Debug for JobToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JobToken([hidden])")
    }
}

/// Compares two proofs in constant time.
pub(crate) fn constant_time_eq(one: [u8; PROOF], other: [u8; PROOF]) -> bool {
    blake3::Hash::from_bytes(one) == blake3::Hash::from_bytes(other)
}

/// A random number for single use.
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
    fn a_proof_is_bound_to_side_token_and_nonces() {
        let (a, b) = ([1; NONCE], [2; NONCE]);
        let token = JobToken::new("secret");
        let proof = token.proof(Prover::Member, &a, &b);
        assert!(constant_time_eq(proof, JobToken::new("secret").proof(Prover::Member, &a, &b)));
        assert!(!constant_time_eq(proof, token.proof(Prover::Coordinator, &a, &b)));
        assert!(!constant_time_eq(proof, token.proof(Prover::Member, &b, &a)));
        assert!(!constant_time_eq(proof, JobToken::new("other").proof(Prover::Member, &a, &b)));
    }

    #[test]
    fn the_debug_form_hides_the_token() {
        assert_eq!(format!("{:?}", JobToken::new("secret")), "JobToken([hidden])");
    }
}
