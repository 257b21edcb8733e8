//! What tells one set of training data from another.

/// The tokens of a prompt, those of a completion to learn, and the right answer.
type Item<'a> = (&'a [u32], &'a [u32], &'a str);

/// A short text that changes with any part of any item, and with their order.
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
    fn every_part_of_every_item_counts_and_where_it_ends() {
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
