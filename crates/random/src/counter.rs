//! Counter-based random numbers: each depends on its coordinates only, not on earlier draws, so that runs are
//! reproducible under any parallelism and after resuming.

use crate::bits::{GAMMA, START, below, hash, mix, normal, shuffle, unit};

/// Hashes `words`, such as (seed, step, question), into a seed of 64 bits.
pub fn stream(words: &[u64]) -> u64 {
    words
        .iter()
        .fold(START, |state, &word| mix(state.wrapping_add(GAMMA) ^ mix(word.wrapping_add(state))))
}

/// A permutation of `0..n` determined by the seed `stream`.
pub fn permutation(n: usize, stream: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    shuffle(&mut order, |n| below(self::stream(&[stream, n as u64 - 1]), n as u64) as usize);
    order
}

/// A stream of random numbers, addressed by position.
#[derive(Debug, Clone, Copy)]
pub struct Stream {
    key: u64,
}

impl Stream {
    /// The stream with these two coordinates.
    pub fn new(a: u64, b: u64) -> Self {
        Self { key: hash(hash(a) ^ b.wrapping_mul(GAMMA)) }
    }

    #[inline]
    fn bits(self, position: u64) -> u64 {
        hash(self.key ^ hash(position.wrapping_add(0x632b_e59b_d9b4_e019)))
    }

    /// Uniform in [0, 1), with 53 bits.
    #[inline]
    pub fn uniform(self, position: u64) -> f64 {
        unit(self.bits(position))
    }

    /// Approximately normal with mean 0 and variance 1: the sum of four 16-bit uniforms of one hash, within
    /// ±√12. A hundred times as fast as [`Self::normal`], for billions of random weights.
    #[inline]
    pub fn bell(self, position: u64) -> f32 {
        let bits = self.bits(position);
        let sum: u32 = (0..4).map(|part| (bits >> (16 * part)) as u32 & 0xffff).sum();
        // Each uniform has mean (2^16 - 1) / 2 and a variance of nearly 2^32 / 12.
        (sum as f32 - 131_070.0) * (3f32.sqrt() / 65_536.0)
    }

    /// Standard normal, by Box and Muller.
    pub fn normal(self, position: u64) -> f64 {
        normal(1.0 - self.uniform(2 * position), self.uniform(2 * position + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_streams_stay_bit_for_bit() {
        let stream = Stream::new(3, 4);
        let uniform = [0.5080897348103607, 0.20183691007205762, 0.3526979730264921];
        assert_eq!([0, 9, u64::MAX].map(|position| stream.uniform(position)), uniform);
        assert_eq!(stream.bell(7), -1.003_799_8);
        assert!((stream.normal(5) - -0.015570574486731995).abs() < 1e-15);
    }

    #[test]
    fn normals_have_mean_0_and_variance_1() {
        let stream = Stream::new(3, 4);
        mean_0_and_variance_1(&(0..20_000).map(|i| stream.normal(i)).collect::<Vec<_>>());
    }

    #[test]
    fn bells_have_mean_0_and_variance_1() {
        let stream = Stream::new(3, 5);
        let values: Vec<f64> = (0..20_000).map(|i| f64::from(stream.bell(i))).collect();
        mean_0_and_variance_1(&values);
        assert!(values.iter().all(|x| x.abs() <= 12f64.sqrt()));
    }

    #[track_caller]
    fn mean_0_and_variance_1(values: &[f64]) {
        let n = values.len();
        let mean = values.iter().sum::<f64>() / n as f64;
        let variance = values.iter().map(|x| x * x).sum::<f64>() / n as f64;
        // Four standard errors of each.
        assert!(mean.abs() < 4.0 / (n as f64).sqrt(), "mean {mean}");
        assert!((variance - 1.0).abs() < 4.0 * (2.0 / n as f64).sqrt(), "variance {variance}");
    }

    #[test]
    fn neighboring_coordinates_give_different_numbers() {
        let first = |a, b| Stream::new(a, b).uniform(0);
        assert!((first(0, 0) - first(0, 1)).abs() > 1e-6);
        assert!((first(0, 1) - first(1, 0)).abs() > 1e-6);
    }

    #[test]
    fn streams_and_permutations_stay_bit_for_bit() {
        let words = [&[][..], &[1, 2, 3], &[u64::MAX, 0]];
        let expected = [0x243f_6a88_85a3_08d3, 0x5849_ddb7_250c_a3cb, 0xc67b_f17d_24d8_c984];
        assert_eq!(words.map(stream), expected);
        assert_eq!(permutation(10, 7), [3, 2, 7, 9, 5, 4, 0, 8, 1, 6]);
    }

    #[test]
    fn a_permutation_holds_every_index_once() {
        let mut order = permutation(1000, 7);
        order.sort_unstable();
        assert!(order.into_iter().eq(0..1000));
    }

    #[test]
    fn all_orders_of_three_are_about_equally_frequent() {
        let mut counts = std::collections::HashMap::new();
        for key in 0..6000 {
            *counts.entry(permutation(3, key)).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 6);
        assert!(counts.values().all(|&n| (850..1150).contains(&n)), "{counts:?}");
    }

    #[test]
    fn streams_depend_on_every_word_and_on_their_order() {
        let streams = [&[1, 2, 3][..], &[1, 2, 4], &[1, 3, 2], &[2, 2, 3], &[1, 2]];
        let distinct: std::collections::HashSet<u64> = streams.map(stream).into_iter().collect();
        assert_eq!(distinct.len(), streams.len());
    }
}
