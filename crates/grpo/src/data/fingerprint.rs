//! Fingerprints of training data.

/// Prompt tokens, completion tokens and the ground-truth answer.
type Item<'a> = (&'a [u32], &'a [u32], &'a str);

/// A hash over all parts of all items, in order.
pub(crate) fn fingerprint<'a>(items: impl Iterator<Item = Item<'a>>) -> String {
    let mut hasher = blake3::Hasher::new();
    for (prompt, completion, answer) in items {
        for tokens in [prompt, completion] {
            hasher.update(&(tokens.len() as u64).to_le_bytes());
            for token in tokens {
                hasher.update(&token.to_le_bytes());
            }
        }
        hasher.update(&(answer.len() as u64).to_le_bytes());
        hasher.update(answer.as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_every_item_and_its_boundaries_count() {
        let items: [&[Item<'_>]; 7] = [
            &[],
            &[(&[1, 2], &[3], "A")],
            &[(&[1], &[2, 3], "A")],
            &[(&[1, 2], &[3], "B")],
            &[(&[1, 2], &[3], "A"), (&[4], &[], "B")],
            &[(&[4], &[], "B"), (&[1, 2], &[3], "A")],
            &[(&[1, 2], &[3], ""), (&[4], &[], "AB")],
        ];
        let found: std::collections::BTreeSet<String> =
            items.iter().map(|items| fingerprint(items.iter().copied())).collect();
        assert_eq!(found.len(), items.len());
    }
}
