//! SplitMix64's finalizer, and numbers from random bits.

/// SplitMix64's increment: 2^64 divided by the golden ratio, made odd.
pub const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// The state before the first key or word: the first bits of the fraction of pi.
pub(crate) const START: u64 = 0x243f_6a88_85a3_08d3;

/// SplitMix64's finalizer: a bijection whose outputs look random. 0 stays 0.
#[inline]
pub const fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// SplitMix64's first number after the state `x`: a hash without the fixed point of [`mix`].
#[inline]
pub const fn hash(x: u64) -> u64 {
    mix(x.wrapping_add(GAMMA))
}

/// A number in [0, 1) from the upper 53 bits.
#[inline]
pub(crate) fn unit(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

/// A number in `0..bound` by multiply-shift, with a bias below `bound / 2^64`; 0 for the bound 0.
#[inline]
pub(crate) fn below(bits: u64, bound: u64) -> u64 {
    ((u128::from(bits) * u128::from(bound)) >> 64) as u64
}

/// A standard normal number from two uniform ones, `u` in (0, 1] and `v` in [0, 1), by Box and Muller.
#[inline]
pub fn normal(u: f64, v: f64) -> f64 {
    (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

/// Shuffles `items` in place by Fisher and Yates; `below(n)` is a random number in `0..n`.
pub(crate) fn shuffle<T>(items: &mut [T], mut below: impl FnMut(usize) -> usize) {
    for last in (1..items.len()).rev() {
        items.swap(last, below(last + 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hashes_stay_bit_for_bit() {
        assert_eq!([1, 2].map(mix), [0x5692_161d_100b_05e5, 0xdbd2_3897_3a2b_148a]);
        let hashes = [0xe220_a839_7b1d_cdaf, 0x910a_2dec_8902_5cc1, 0xe4d9_7177_1b65_2c20];
        assert_eq!([0, 1, u64::MAX].map(hash), hashes);
    }
}
