//! Small models and token sequences for tests.

use std::path::Path;

use embodied_r_policy::Policy;

/// The fixture model `name`.
pub(crate) fn model(name: &str) -> Policy {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models").join(name);
    Policy::load(&folder).unwrap()
}

/// `n` token ids that depend on the seed.
pub(crate) fn ids(n: usize, seed: usize) -> Vec<u32> {
    (0..n).map(|i| ((i * 31 + seed * 17 + i * i * 7) % 90) as u32).collect()
}
