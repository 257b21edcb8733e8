//! Numbers that ranks reduce, always in the order of the ranks.

use bytemuck::Pod;

use crate::operation::Reduce;

/// A number on the wire.
pub(crate) trait Number: Pod + Send {
    fn add(self, other: Self) -> Self;
    /// NaN where either is.
    fn greater(self, other: Self) -> Self;
    /// NaN where either is.
    fn lesser(self, other: Self) -> Self;
}

macro_rules! number {
    ($type:ty) => {
        impl Number for $type {
            fn add(self, other: Self) -> Self {
                self + other
            }

            fn greater(self, other: Self) -> Self {
                if self.is_nan() || self > other { self } else { other }
            }

            fn lesser(self, other: Self) -> Self {
                if self.is_nan() || self < other { self } else { other }
            }
        }
    };
}

number!(f32);
number!(f64);

/// Reduces the equal parts of `parts`, one of each rank, into `into`: rank 0's, then rank 1's, and so on.
/// So the bits depend on the number of ranks alone, and not on a backend's algorithm.
pub(crate) fn reduce<T: Number>(parts: &[T], into: &mut [T], how: Reduce) {
    if into.is_empty() {
        return;
    }
    let step = match how {
        Reduce::Sum => T::add,
        Reduce::Max => T::greater,
        Reduce::Min => T::lesser,
    };
    let mut parts = parts.chunks_exact(into.len());
    if let Some(first) = parts.next() {
        into.copy_from_slice(first);
    }
    for part in parts {
        for (sum, &number) in into.iter_mut().zip(part) {
            *sum = step(*sum, number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_made_in_the_order_of_the_ranks() {
        let parts = [1e8f32, 1.0, -1e8, 2.0, 1.0, 3.0];
        let mut sums = [0.0; 2];
        reduce(&parts, &mut sums, Reduce::Sum);
        assert_eq!(sums, [(1e8f32 - 1e8) + 1.0, 6.0]);
    }

    #[test]
    fn a_nan_of_any_rank_is_the_greatest_and_the_least() {
        for parts in [[f32::NAN, 1.0], [1.0, f32::NAN]] {
            for how in [Reduce::Max, Reduce::Min] {
                let mut result = [0.0];
                reduce(&parts, &mut result, how);
                assert!(result[0].is_nan());
            }
        }
    }

    #[test]
    fn the_greatest_and_the_least_are_found() {
        let parts = [3.0f64, -1.0, 2.0, -5.0];
        let mut result = [0.0; 2];
        reduce(&parts, &mut result, Reduce::Max);
        assert_eq!(result, [3.0, -1.0]);
        reduce(&parts, &mut result, Reduce::Min);
        assert_eq!(result, [2.0, -5.0]);
    }
}
