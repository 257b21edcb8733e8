//! Counter-based random numbers: each depends only on its key, never on earlier draws.
//!
//! Results are therefore independent of resumes and of the order of execution.

/// Hashes `words`, such as (seed, step, question), into a 64-bit stream key.
///
/// The rounds are those of SplitMix64 (Steele, Lea, Flood 2014).
pub fn stream(words: &[u64]) -> u64 {
    words.iter().fold(0x243f_6a88_85a3_08d3, |state, &word| {
        mix(state.wrapping_add(0x9e37_79b9_7f4a_7c15) ^ mix(word.wrapping_add(state)))
    })
}

/// A permutation of `0..n` determined by `stream` (Fisher-Yates).
pub fn permutation(n: usize, stream: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    for last in (1..n).rev() {
        order.swap(last, below(stream, last as u64, last as u64 + 1) as usize);
    }
    order
}

/// A number in `0..bound` by multiply-shift, with a bias below `bound / 2^64`.
fn below(key: u64, counter: u64, bound: u64) -> u64 {
    let random = stream(&[key, counter]);
    ((u128::from(random) * u128::from(bound)) >> 64) as u64
}

fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

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
