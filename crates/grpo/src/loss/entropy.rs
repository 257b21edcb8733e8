//! Selection of high-entropy tokens (TRL's `top_entropy_quantile`).

/// The entropy threshold of the `top` fraction of `entropies`; `None` if there are none.
///
/// The quantile `1 - top` with linear interpolation, computed in f32 as in PyTorch: if it falls on a token, the
/// threshold is that token's entropy to the bit.
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
    fn the_threshold_is_the_quantile_of_the_top_fraction() {
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
