//! Dropout of the inputs of adapters in training.

use embodied_r_kernels::dropout::DropoutMask;
use embodied_r_random::hash;

use crate::grid::Grid;

/// The dropout of an adapter's input.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Dropout {
    /// Distinguishes the layers of a tower.
    pub(crate) site: u64,
    /// Probability, below 1.
    pub(crate) p: f64,
}

impl Dropout {
    /// The mask of a pass with these keys; `None` without dropout.
    pub(crate) fn mask<'a>(self, keys: Option<&'a [u64]>) -> Option<DropoutMask<'a>> {
        let keys = keys.filter(|_| self.p > 0.0)?;
        Some(DropoutMask { keys, site: self.site, p: self.p })
    }
}

/// A key of each row of a pass, which determines its dropout masks: a hash of the seed of its image and of its place in it,
/// so that masks do not depend on the other images.
pub(crate) struct DropoutKeys {
    /// Of the patches, in the tower's order.
    pub(crate) patches: Vec<u64>,
    /// Of the merged tokens.
    pub(crate) tokens: Vec<u64>,
}

impl DropoutKeys {
    /// The keys of images of `grids` with `seeds`, whose patches have the `order`; `merged` adjacent patches form a token.
    pub(crate) fn new(seeds: &[u64], grids: &[Grid], order: &[usize], merged: usize) -> Self {
        let of_image = |(grid, seed): (&Grid, &u64)| {
            let seed = hash(*seed);
            (0..grid.patches() as u64).map(move |patch| hash(seed ^ patch))
        };
        let all: Vec<u64> = grids.iter().zip(seeds).flat_map(of_image).collect();
        let patches: Vec<u64> = order.iter().map(|patch| all[*patch]).collect();
        let tokens = patches.iter().step_by(merged).map(|key| hash(*key)).collect();
        Self { patches, tokens }
    }
}
