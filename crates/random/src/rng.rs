//! A generator that draws one number after the other.

use crate::bits::{GAMMA, START, below, mix, shuffle, unit};

/// SplitMix64.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// The generator of `seed`, its first state.
    pub fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// A generator for `keys`, such as seed and index. Different keys give independent streams.
    pub fn new(keys: &[u64]) -> Self {
        let mut rng = Self(START);
        for &key in keys {
            rng.0 ^= key.wrapping_mul(0xd129_0d3b_3ad2_53c5);
            rng.0 = rng.next_u64();
        }
        rng
    }

    /// The next 64 bits.
    #[inline]
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GAMMA);
        mix(self.0)
    }

    /// A number in `[0, 1)`.
    #[inline]
    pub fn unit(&mut self) -> f64 {
        unit(self.next_u64())
    }

    /// A number in `[low, high)`.
    #[inline]
    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// An integer in `0..n`; 0 for `n` = 0.
    #[inline]
    pub fn below(&mut self, n: usize) -> usize {
        below(self.next_u64(), n as u64) as usize
    }

    /// True with probability `p`.
    #[inline]
    pub fn chance(&mut self, p: f64) -> bool {
        self.unit() < p
    }

    /// A random item; `None` if `items` is empty.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        items.get(self.below(items.len()))
    }

    /// Shuffles `items` in place.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        shuffle(items, |n| self.below(n));
    }

    /// Up to `n` distinct items in random order.
    pub fn sample<T: Clone>(&mut self, items: &[T], n: usize) -> Vec<T> {
        let mut all = items.to_vec();
        self.shuffle(&mut all);
        all.truncate(n);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_stay_bit_for_bit() {
        let mut rng = Rng::new(&[7, 2]);
        assert_eq!(rng.next_u64(), 0x1564_d64d_d02a_2b51);
        assert_eq!(
            (rng.unit(), rng.between(-1.0, 3.0)),
            (0.036630542849926506, -0.1850377391259146)
        );
        assert_eq!((rng.below(1000), rng.chance(0.5)), (736, false));
        assert_eq!(rng.pick(&[0, 1, 2, 3, 4]), Some(&1));
        let mut items: Vec<usize> = (0..8).collect();
        rng.shuffle(&mut items);
        assert_eq!(items, [4, 1, 5, 3, 6, 0, 2, 7]);
        assert_eq!(rng.sample(&[10, 11, 12, 13, 14, 15, 16, 17], 3), [14, 15, 11]);
        assert_eq!(rng.next_u64(), 0x4812_b7a6_4f1c_0dee);
    }

    #[test]
    fn neighbouring_keys_give_independent_numbers() {
        let draw = |keys: &[u64]| Rng::new(keys).below(1000);
        let mut values: Vec<_> = (0..64).flat_map(|i| [draw(&[i, 0]), draw(&[0, i + 1])]).collect();
        values.sort_unstable();
        values.dedup();
        assert!(values.len() > 110, "{} different values", values.len());
    }

    #[test]
    fn numbers_below_the_bound_are_uniform() {
        let mut rng = Rng::new(&[7]);
        let mut counts = [0; 5];
        for _ in 0..5000 {
            counts[rng.below(5)] += 1;
        }
        assert!(counts.iter().all(|count| (850..1150).contains(count)), "{counts:?}");
    }

    #[test]
    fn a_sample_has_distinct_items() {
        let mut sample = Rng::new(&[1]).sample(&[1, 2, 3, 4, 5], 3);
        sample.sort_unstable();
        sample.dedup();
        assert_eq!(sample.len(), 3);
    }
}
