//! Element types of reductions, and the reduction itself, always in rank order.

use bytemuck::Pod;

use crate::operation::Reduce;

/// An element of a reduction.
pub(crate) trait Element: Pod + Send {
    fn add(self, other: Self) -> Self;
    /// The maximum; NaN if either is.
    fn greater(self, other: Self) -> Self;
    /// The minimum; NaN if either is.
    fn lesser(self, other: Self) -> Self;
}

macro_rules! element {
    ($type:ty) => {
        impl Element for $type {
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

element!(f32);
element!(f64);

/// Reduces the equal chunks of `parts`, one per rank, into `into` in rank order. The bits therefore depend only on the
/// number of ranks, not on a backend's algorithm.
pub(crate) fn reduce<T: Element>(parts: &[T], into: &mut [T], how: Reduce) {
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
        for (sum, &element) in into.iter_mut().zip(part) {
            *sum = step(*sum, element);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_accumulate_in_rank_order() {
        let parts = [1e8f32, 1.0, -1e8, 2.0, 1.0, 3.0];
        let mut sums = [0.0; 2];
        reduce(&parts, &mut sums, Reduce::Sum);
        assert_eq!(sums, [(1e8f32 - 1e8) + 1.0, 6.0]);
    }

    #[test]
    fn max_and_min_propagate_nan() {
        for parts in [[f32::NAN, 1.0], [1.0, f32::NAN]] {
            for how in [Reduce::Max, Reduce::Min] {
                let mut result = [0.0];
                reduce(&parts, &mut result, how);
                assert!(result[0].is_nan());
            }
        }
    }

    #[test]
    fn max_and_min_are_found() {
        let parts = [3.0f64, -1.0, 2.0, -5.0];
        let mut result = [0.0; 2];
        reduce(&parts, &mut result, Reduce::Max);
        assert_eq!(result, [3.0, -1.0]);
        reduce(&parts, &mut result, Reduce::Min);
        assert_eq!(result, [2.0, -5.0]);
    }
}
