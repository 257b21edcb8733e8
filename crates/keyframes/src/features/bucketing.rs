//! Selecting corners by score and by grid bucketing, so that they cover the image.

use super::corners::Corner;

/// Share of the corners selected by score alone; the rest is distributed over a grid.
const GLOBAL_SHARE: f64 = 0.5;

/// At most `count` of `corners` of a plane of `width` × `height` pixels, given in row-major order: first the
/// strongest ones, then round by round the next strongest of each grid cell.
pub(super) fn select(
    corners: Vec<Corner>,
    count: usize,
    width: usize,
    height: usize,
) -> Vec<Corner> {
    let mut selected = counting_sort(corners, |corner| usize::from(u8::MAX - corner.score));
    if selected.len() <= count {
        return selected;
    }
    let rest = selected.split_off((count as f64 * GLOBAL_SHARE) as usize);
    let remaining = count - selected.len();
    let side = ((width * height) as f64 / remaining.max(1) as f64).sqrt().ceil().max(1.0) as usize;
    let across = width.div_ceil(side);
    let mut counts = vec![0usize; across * height.div_ceil(side)];
    let cell = |corner: &Corner| corner.row / side * across + corner.column / side;
    for corner in &selected {
        counts[cell(corner)] += 1;
    }
    // A corner's rank within its cell.
    let ranked: Vec<(usize, Corner)> = rest
        .into_iter()
        .map(|corner| {
            let rank = &mut counts[cell(&corner)];
            *rank += 1;
            (*rank, corner)
        })
        .collect();
    let ranked = counting_sort(ranked, |(rank, _)| *rank);
    selected.extend(ranked.into_iter().take(remaining).map(|(_, corner)| corner));
    selected
}

/// A stable counting sort by small keys, which is faster than comparing many corners.
fn counting_sort<T: Copy>(items: Vec<T>, key: impl Fn(&T) -> usize) -> Vec<T> {
    let Some(max) = items.iter().map(&key).max() else { return items };
    let mut offsets = vec![0usize; max + 2];
    for item in &items {
        offsets[key(item) + 1] += 1;
    }
    for k in 0..=max {
        offsets[k + 1] += offsets[k];
    }
    let mut sorted = items.clone();
    for item in items {
        let offset = &mut offsets[key(&item)];
        sorted[*offset] = item;
        *offset += 1;
    }
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clustered_strong_corners_leave_room_for_weak_ones_elsewhere() {
        let crowd = (0..100).map(|i| Corner { column: i % 10, row: i / 10, score: 90 });
        let lonely =
            [(90, 5), (5, 90), (90, 90)].map(|(column, row)| Corner { column, row, score: 8 });
        let selected = select(crowd.chain(lonely).collect(), 20, 100, 100);
        assert_eq!(selected.len(), 20);
        assert!(lonely.iter().all(|corner| selected.contains(corner)));
    }

    #[test]
    fn few_corners_are_all_kept_strongest_first() {
        let corners = [10, 30, 20].map(|score| Corner { column: 0, row: 0, score });
        let selected = select(corners.to_vec(), 5, 10, 10);
        assert_eq!(selected.iter().map(|c| c.score).collect::<Vec<_>>(), [30, 20, 10]);
    }
}
