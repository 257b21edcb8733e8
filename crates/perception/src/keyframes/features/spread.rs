//! The choice among too many corners.

use super::corners::Corner;

/// The share of the corners that are chosen by strength alone; the others are spread.
const BY_STRENGTH: f64 = 0.5;

/// At most `count` of `corners` of a plane of `width` × `height` pixels, given row by row: first the
/// strongest ones, then turn by turn the next strongest of each cell of a grid.
pub(super) fn choose(
    corners: Vec<Corner>,
    count: usize,
    width: usize,
    height: usize,
) -> Vec<Corner> {
    let mut chosen = in_order(corners, |corner| usize::from(u8::MAX - corner.score));
    if chosen.len() <= count {
        return chosen;
    }
    let rest = chosen.split_off((count as f64 * BY_STRENGTH) as usize);
    let spread = count - chosen.len();
    let side = ((width * height) as f64 / spread.max(1) as f64).sqrt().ceil().max(1.0) as usize;
    let across = width.div_ceil(side);
    let mut taken = vec![0usize; across * height.div_ceil(side)];
    let cell = |corner: &Corner| corner.row / side * across + corner.column / side;
    for corner in &chosen {
        taken[cell(corner)] += 1;
    }
    // The turn at which a corner's cell gives it away.
    let turns: Vec<(usize, Corner)> = rest
        .into_iter()
        .map(|corner| {
            let turn = &mut taken[cell(&corner)];
            *turn += 1;
            (*turn, corner)
        })
        .collect();
    let turns = in_order(turns, |(turn, _)| *turn);
    chosen.extend(turns.into_iter().take(spread).map(|(_, corner)| corner));
    chosen
}

/// Sorts by small numbers and keeps the order of equals: corners are too many to be compared.
fn in_order<T: Copy>(items: Vec<T>, key: impl Fn(&T) -> usize) -> Vec<T> {
    let Some(most) = items.iter().map(&key).max() else { return items };
    let mut places = vec![0usize; most + 2];
    for item in &items {
        places[key(item) + 1] += 1;
    }
    for k in 0..=most {
        places[k + 1] += places[k];
    }
    let mut sorted = items.clone();
    for item in items {
        let place = &mut places[key(&item)];
        sorted[*place] = item;
        *place += 1;
    }
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strong_corners_in_one_place_leave_room_for_weak_ones_elsewhere() {
        let crowd = (0..100).map(|i| Corner { column: i % 10, row: i / 10, score: 90 });
        let lonely =
            [(90, 5), (5, 90), (90, 90)].map(|(column, row)| Corner { column, row, score: 8 });
        let chosen = choose(crowd.chain(lonely).collect(), 20, 100, 100);
        assert_eq!(chosen.len(), 20);
        assert!(lonely.iter().all(|corner| chosen.contains(corner)));
    }

    #[test]
    fn few_corners_are_all_kept_the_strongest_first() {
        let corners = [10, 30, 20].map(|score| Corner { column: 0, row: 0, score });
        let chosen = choose(corners.to_vec(), 5, 10, 10);
        assert_eq!(chosen.iter().map(|c| c.score).collect::<Vec<_>>(), [30, 20, 10]);
    }
}
