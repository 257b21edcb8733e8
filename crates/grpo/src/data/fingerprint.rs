//! Fingerprints of training data.

use crate::model::Prompt;

/// A prompt, completion tokens and the ground-truth answer.
type Item<'a> = (&'a Prompt, &'a [u32], &'a str);

/// A hash over all parts of all items, in order.
pub(crate) fn fingerprint<'a>(items: impl Iterator<Item = Item<'a>>) -> String {
    let mut hasher = blake3::Hasher::new();
    for (prompt, completion, answer) in items {
        for tokens in [prompt.ids(), completion] {
            hasher.update(&(tokens.len() as u64).to_le_bytes());
            for token in tokens {
                hasher.update(&token.to_le_bytes());
            }
        }
        hasher.update(&(answer.len() as u64).to_le_bytes());
        hasher.update(answer.as_bytes());
        for image in prompt.images() {
            hasher.update(&(image.offset() as u64).to_le_bytes());
            hasher.update(&image.digest.to_le_bytes());
        }
    }
    hasher.finalize().to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use embodied_r_policy::PromptImage;

    use super::*;

    #[test]
    fn every_part_of_every_item_and_its_boundaries_count() {
        let with_image = |digest| {
            let position_ids = vec![[0; 3]];
            let image = PromptImage::consecutive(1, position_ids, digest);
            Prompt::with_images(vec![1, 2], vec![image]).unwrap()
        };
        let ids = |ids: &[u32]| Prompt::from(ids.to_vec());
        let (p12, p1, p4) = (ids(&[1, 2]), ids(&[1]), ids(&[4]));
        let items: [&[Item<'_>]; 9] = [
            &[],
            &[(&p12, &[3], "A")],
            &[(&p1, &[2, 3], "A")],
            &[(&p12, &[3], "B")],
            &[(&p12, &[3], "A"), (&p4, &[], "B")],
            &[(&p4, &[], "B"), (&p12, &[3], "A")],
            &[(&p12, &[3], ""), (&p4, &[], "AB")],
            &[(&with_image(7), &[3], "A")],
            &[(&with_image(8), &[3], "A")],
        ];
        let found: std::collections::BTreeSet<String> =
            items.iter().map(|items| fingerprint(items.iter().copied())).collect();
        assert_eq!(found.len(), items.len());
    }
}
