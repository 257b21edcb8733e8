//! Dropout keys of a packed batch's rows.

use embodied_r_random::hash;

use crate::packed::PackedBatch;

/// A key for each row of `batch`, a hash of the seed `stream` and the row's sequence up to that token.
///
/// A row's dropout mask therefore does not depend on packing, chunking or data parallelism: a completion
/// has the same masks within its group and alone after its prompt.
pub(crate) fn keys(batch: &PackedBatch, stream: u64) -> Vec<u64> {
    let mut keys = vec![0; batch.ids.len()];
    let mut walk = |rows: std::ops::Range<usize>, mut key: u64| {
        for row in rows {
            key = hash(hash(key) ^ batch.ids[row] as u64);
            keys[row] = key;
        }
        key
    };
    for span in &batch.spans {
        let prompt = walk(span.prompt.clone(), stream);
        for own in &span.completions {
            walk(own.clone(), prompt);
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packed::Group;

    fn of(groups: &[Group], stream: u64) -> Vec<u64> {
        keys(&PackedBatch::new(groups, 100, 100).unwrap(), stream)
    }

    fn group(prompt: &[u32], completions: &[&[u32]]) -> Group {
        let completions = completions.iter().map(|ids| ids.to_vec()).collect();
        Group { prompt: prompt.to_vec().into(), completions }
    }

    #[test]
    fn the_keys_stay_bit_for_bit() {
        let expected = [0xec4c_5bee_6270_11b3, 0x7c73_e5b9_ca35_ba9f, 0xae58_48fb_8339_c3b9];
        assert_eq!(of(&[group(&[1, 2], &[&[3, 4]])], 3), expected);
    }

    #[test]
    fn a_completion_has_the_same_keys_within_its_group_and_alone() {
        let together = of(&[group(&[9], &[&[8, 7]]), group(&[1, 2], &[&[3, 4, 5], &[6, 7]])], 3);
        let alone = of(&[group(&[1, 2], &[&[6, 7]])], 3);
        assert_eq!(together[2..4], alone[..2], "the prompt");
        assert_eq!(together[6], alone[2], "the second completion");
    }

    #[test]
    fn keys_differ_by_seed_token_and_position() {
        let keys = of(&[group(&[1, 1, 1], &[&[1, 2, 3]])], 3);
        let mut unique = keys.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), keys.len());
        assert!(of(&[group(&[1, 1, 1], &[&[1, 2, 3]])], 4).iter().all(|key| !keys.contains(key)));
    }
}
