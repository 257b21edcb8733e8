//! The choice among too many corners.

use super::corners::Corner;

/// The share of the corners that are chosen by strength alone; the others are spread.
const BY_STRENGTH: f64 = 0.5;

/// At most `count` of `corners` of a plane of `width` × `height` pixels: first the strongest ones,
/// then turn by turn the next strongest of each cell of a grid.
pub(super) fn choose(
    mut corners: Vec<Corner>,
    count: usize,
    width: usize,
    height: usize,
) -> Vec<Corner> {
    let order = |a: &Corner, b: &Corner| {
        b.strength.total_cmp(&a.strength).then((a.row, a.column).cmp(&(b.row, b.column)))
    };
    corners.sort_unstable_by(order);
    if corners.len() <= count {
        return corners;
    }
    let rest = corners.split_off((count as f64 * BY_STRENGTH) as usize);
    let spread = count - corners.len();
    let side = ((width * height) as f64 / spread.max(1) as f64).sqrt().ceil().max(1.0) as usize;
    let across = width.div_ceil(side);
    let mut taken = vec![0usize; across * height.div_ceil(side)];
    let cell = |corner: &Corner| corner.row / side * across + corner.column / side;
    // The turn at which a corner's cell gives it away.
    let mut turns: Vec<(usize, Corner)> = Vec::with_capacity(rest.len());
    for corner in &corners {
        taken[cell(corner)] += 1;
    }
    for corner in rest {
        let turn = &mut taken[cell(&corner)];
        turns.push((*turn, corner));
        *turn += 1;
    }
    turns.sort_by(|a, b| a.0.cmp(&b.0).then(order(&a.1, &b.1)));
    corners.extend(turns.into_iter().take(spread).map(|(_, corner)| corner));
    corners
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strong_corners_in_one_place_leave_room_for_weak_ones_elsewhere() {
        let crowd = (0..100).map(|i| Corner { column: i % 10, row: i / 10, strength: 9.0 });
        let lonely =
            [(90, 5), (5, 90), (90, 90)].map(|(column, row)| Corner { column, row, strength: 0.1 });
        let chosen = choose(crowd.chain(lonely).collect(), 20, 100, 100);
        assert_eq!(chosen.len(), 20);
        assert!(lonely.iter().all(|corner| chosen.contains(corner)));
    }

    #[test]
    fn few_corners_are_all_kept_the_strongest_first() {
        let corners = [1.0, 3.0, 2.0].map(|strength| Corner { column: 0, row: 0, strength });
        let chosen = choose(corners.to_vec(), 5, 10, 10);
        assert_eq!(chosen.iter().map(|c| c.strength).collect::<Vec<_>>(), [3.0, 2.0, 1.0]);
    }
}
