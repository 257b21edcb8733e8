//! Which tokens are uncertain enough to learn from (TRL's `top_entropy_quantile`).

/// The entropy from which on a token belongs to the `top` share of `entropies`; `None` if there are
/// none.
///
/// The quantile `1 - top` with linear interpolation between neighbours, computed in f32 as PyTorch
/// does: where it falls on a token, that token's entropy is the threshold to the bit.
///
/// Source: TRL's `get_high_entropy_mask`.
pub fn entropy_threshold(mut entropies: Vec<f32>, top: f64) -> Option<f32> {
    entropies.sort_unstable_by(f32::total_cmp);
    let last = entropies.len().checked_sub(1)?;
    let rank = (1.0 - top) as f32 * last as f32;
    let below = rank.floor();
    let (low, high) = (entropies[below as usize], entropies[(below as usize + 1).min(last)]);
    let weight = rank - below;
    Some(match weight < 0.5 {
        true => low + weight * (high - low),
        false => high - (high - low) * (1.0 - weight),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_top_share_is_what_lies_at_or_above_the_quantile() {
        let entropies = vec![0.5, 0.1, 0.4, 0.2, 0.3];
        assert_eq!(entropy_threshold(entropies.clone(), 0.5), Some(0.3));
        assert_eq!(entropy_threshold(entropies.clone(), 1.0), Some(0.1));
        let between = entropy_threshold(entropies, 0.4).unwrap();
        assert!((between - 0.34).abs() < 1e-6, "{between}");
    }

    #[test]
    fn without_tokens_there_is_no_threshold() {
        assert_eq!(entropy_threshold(Vec::new(), 0.5), None);
    }
}
