use super::weights::larger_first;
use super::*;
use proptest::prelude::*;

/// Reference: weights in f64, fully sorted.
struct Plain {
    /// Weights after truncation, by index.
    weights: Vec<f64>,
    /// Distance of the closest decision, as a share of the total: rounding may flip it.
    margin: f64,
}

fn plain(logits: &[f32], scale: f64, to: &Truncation) -> Plain {
    let top = logits.iter().copied().filter(|x| !x.is_nan()).fold(f32::NEG_INFINITY, f32::max);
    let weight = |x: &f32| match f64::from(x - top) * scale {
        y if y > -87.0 => y.exp(),
        _ => 0.0,
    };
    let mut weights: Vec<f64> = logits.iter().map(weight).collect();
    let mut margin = f64::INFINITY;
    if to.min_p > 0.0 {
        for w in &mut weights {
            margin = if *w == 1.0 { margin } else { margin.min((*w / to.min_p - 1.0).abs()) };
            *w = if *w >= to.min_p { *w } else { 0.0 };
        }
    }
    let mut order: Vec<usize> = (0..logits.len()).filter(|i| weights[*i] > 0.0).collect();
    order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]).then(a.cmp(b)));
    if to.top_k > 0 && to.top_k < order.len() {
        let last = logits[order[to.top_k - 1]];
        order.retain(|i| logits[*i] >= last);
    }
    let total: f64 = order.iter().map(|i| weights[*i]).sum();
    let mut sum = 0.0;
    order.retain(|i| {
        let open = to.top_p >= 1.0 || sum < to.top_p * total;
        margin = if to.top_p < 1.0 { margin.min((sum / total - to.top_p).abs()) } else { margin };
        sum += weights[*i];
        open
    });
    for (i, w) in weights.iter_mut().enumerate() {
        *w = if order.contains(&i) { *w } else { 0.0 };
    }
    Plain { weights, margin }
}

/// The entry at `uniform`, and the distance to its edges.
fn plain_draw(weights: &[f64], uniform: f64) -> (usize, f64) {
    let total: f64 = weights.iter().sum();
    let mut sum = 0.0;
    for (i, w) in weights.iter().enumerate().filter(|(_, w)| **w > 0.0) {
        let below = uniform - sum / total;
        sum += w;
        if sum > uniform * total {
            return (i, below.min(sum / total - uniform));
        }
    }
    (weights.iter().rposition(|w| *w > 0.0).unwrap_or(0), 0.0)
}

fn row() -> impl Strategy<Value = Vec<f32>> {
    let entry = prop_oneof![
        6 => -12f32..12.0,
        // Ties, as bf16 rounding produces.
        3 => (-8i8..8).prop_map(f32::from),
        1 => Just(f32::NEG_INFINITY),
    ];
    prop::collection::vec(entry, 1..700)
}

fn truncation() -> impl Strategy<Value = Truncation> {
    let min_p = prop_oneof![Just(0.0), 0.0..1.0f64, 1e-6..1e-2f64];
    let top_k = prop_oneof![Just(0), 1..8usize, 1..800usize];
    let top_p = prop_oneof![Just(1.0), 1e-3..1.0f64, 0.99..1.0f64];
    (min_p, top_k, top_p).prop_map(|(min_p, top_k, top_p)| Truncation { min_p, top_k, top_p })
}

proptest! {
    #[test]
    fn a_draw_equals_the_reference(
        logits in row(),
        scale in prop_oneof![Just(1.0), 0.05..20.0f64],
        to in truncation(),
        uniform in 0.0..1.0f64,
    ) {
        let plain = plain(&logits, scale, &to);
        let scan = Scan::new(&logits, scale);
        let drawn = scan.truncated(&to).draw(uniform);
        if plain.weights.iter().all(|w| *w == 0.0) {
            prop_assert_eq!(drawn, None);
        } else if plain.margin > 1e-5 {
            let (expected, edge) = plain_draw(&plain.weights, uniform);
            prop_assert!(drawn == Some(expected) || edge < 1e-5, "{drawn:?}, not {expected}: {edge}");
        }
    }

    #[test]
    fn top_logits_are_the_first_of_all_sorted(logits in row(), count in 0..900usize) {
        let mut sorted: Vec<(u32, f32)> = (0..).zip(logits.iter().copied()).collect();
        sorted.sort_by(larger_first);
        sorted.truncate(count);
        prop_assert_eq!(Scan::new(&logits, 1.0).top_logits(count), sorted);
    }

    #[test]
    fn a_log_probability_equals_log_softmax(
        logits in prop::collection::vec(-30f32..30.0, 1..700),
        scale in 0.05..5.0f64,
    ) {
        let scan = Scan::new(&logits, scale);
        let top = f64::from(logits.iter().copied().fold(f32::MIN, f32::max));
        let total: f64 = logits.iter().map(|x| ((f64::from(*x) - top) * scale).exp()).sum();
        for (i, x) in logits.iter().enumerate() {
            let expected = (f64::from(*x) - top) * scale - total.ln();
            prop_assert!((scan.log_probability(i) - expected).abs() < 3e-6 * (1.0 + expected.abs()));
        }
    }
}

#[test]
fn the_nucleus_of_many_equal_entries_is_the_first_of_them() {
    let logits = vec![1.5; 10_000];
    let scan = Scan::new(&logits, 1.0);
    let kept = scan.truncated(&Truncation { top_p: 0.25, ..Truncation::default() });
    assert_eq!(kept.draw(0.0), Some(0));
    assert_eq!(kept.draw(1.0 - 1e-12), Some(2_499));
}

#[test]
fn the_nucleus_is_found_where_all_entries_fall_into_few_bins() {
    // One entry far above 20,000 that differ by less than a bin's width.
    let mut logits: Vec<f32> = (0..20_000).map(|i| ((i * 7919) % 20_000) as f32 * 1e-7).collect();
    logits[123] = 9.0;
    let to = Truncation { top_p: 0.9, ..Truncation::default() };
    let plain = plain(&logits, 1.0, &to);
    let scan = Scan::new(&logits, 1.0);
    for uniform in [0.2, 0.5, 0.7, 0.95] {
        let (expected, _) = plain_draw(&plain.weights, uniform);
        let drawn = scan.truncated(&to).draw(uniform).unwrap();
        assert!(drawn.abs_diff(expected) <= 1, "{drawn}, not {expected}");
    }
}

#[test]
fn top_k_keeps_ties_with_the_last() {
    let logits = [1.0, 3.0, 2.0, 2.0, 0.0];
    let scan = Scan::new(&logits, 1.0);
    let kept = scan.truncated(&Truncation { top_k: 2, ..Truncation::default() });
    assert_eq!(kept.draw(0.0), Some(1));
    assert_eq!(kept.draw(1.0 - 1e-12), Some(3));
}

#[test]
fn negative_infinity_and_nan_are_never_drawn() {
    let logits = [f32::NAN, 1.0, f32::NEG_INFINITY, 1.0];
    let scan = Scan::new(&logits, 1.0);
    assert_eq!((scan.draw(0.0), scan.draw(0.75), scan.argmax()), (Some(1), Some(3), Some(1)));
    assert!((scan.log_probability(3) - 0.5f64.ln()).abs() < 1e-6);
    let nothing = [f32::NAN, f32::NEG_INFINITY];
    let scan = Scan::new(&nothing, 1.0);
    assert_eq!((scan.draw(0.5), scan.argmax()), (None, None));
    assert_eq!(scan.truncated(&Truncation { top_p: 0.5, ..Truncation::default() }).draw(0.5), None);
    assert_eq!((Scan::new(&[], 1.0).draw(0.5), Scan::new(&[], 1.0).argmax()), (None, None));
}

#[test]
fn extreme_scales_still_draw_an_entry() {
    let logits = [1.0, 2.0, 3.0];
    assert_eq!(Scan::new(&logits, 1e300).draw(0.0), Some(2));
    assert_eq!(Scan::new(&logits, 1e-300).draw(0.4), Some(1));
}
