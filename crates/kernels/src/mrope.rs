//! Multimodal RoPE.

/// Which of a token's three position ids each pair of M-RoPE uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MropeSections {
    /// Pairs for each id.
    pub sizes: [usize; 3],
    /// Whether the ids take turns, `i % 3` for pair i, as long as pairs are left for it; the first id has the others
    /// (Qwen3-VL). Otherwise each id has consecutive pairs (Qwen2-VL).
    pub interleaved: bool,
}

impl MropeSections {
    /// Each id has consecutive pairs.
    pub const fn consecutive(sizes: [usize; 3]) -> Self {
        Self { sizes, interleaved: false }
    }

    /// The ids take turns.
    pub const fn interleaved(sizes: [usize; 3]) -> Self {
        Self { sizes, interleaved: true }
    }

    /// The id that a pair uses.
    pub(crate) fn axis(self, pair: usize) -> usize {
        let [first, second, _] = self.sizes;
        match self.interleaved {
            true => {
                let turn = pair % 3;
                if pair < 3 * self.sizes[turn] { turn } else { 0 }
            }
            false => usize::from(pair >= first) + usize::from(pair >= first + second),
        }
    }
}
