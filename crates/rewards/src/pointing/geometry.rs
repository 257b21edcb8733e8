//! Places, rectangles, polygons and paths on the grid of 0 to 1000.

/// A place: 0 is the left or upper edge of the image, 1000 the right or lower one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Place {
    /// The horizontal coordinate.
    pub x: f64,
    /// The vertical coordinate.
    pub y: f64,
}

impl Place {
    /// The distance of two places.
    pub(crate) fn distance(self, other: Self) -> f64 {
        (self.x - other.x).hypot(self.y - other.y)
    }
}

/// A rectangle with upright sides.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rectangle {
    /// The upper left corner.
    pub from: Place,
    /// The lower right corner.
    pub to: Place,
}

impl Rectangle {
    /// Whether a place is in it, on its edges too.
    pub(crate) fn contains(&self, place: Place) -> bool {
        (self.from.x..=self.to.x).contains(&place.x) && (self.from.y..=self.to.y).contains(&place.y)
    }

    fn area(&self) -> f64 {
        (self.to.x - self.from.x) * (self.to.y - self.from.y)
    }

    /// The intersection's area over the union's; 0 if the union has none.
    pub(crate) fn intersection_over_union(&self, other: &Self) -> f64 {
        let side = |from: f64, to: f64| (to - from).max(0.0);
        let shared = side(self.from.x.max(other.from.x), self.to.x.min(other.to.x))
            * side(self.from.y.max(other.from.y), self.to.y.min(other.to.y));
        let union = self.area() + other.area() - shared;
        if union > 0.0 { shared / union } else { 0.0 }
    }
}

/// Whether a place is in a polygon, by ray casting: on its right and lower edges it is, on its left and upper ones it is not.
pub(crate) fn polygon_contains(corners: &[Place], place: Place) -> bool {
    let next = corners.iter().cycle().skip(1);
    let crossed = corners.iter().zip(next).filter(|(from, to)| crosses(**from, **to, place));
    crossed.count() % 2 == 1
}

/// Whether a ray to the right from the place crosses the edge.
fn crosses(from: Place, to: Place, place: Place) -> bool {
    let spans = place.y > from.y.min(to.y) && place.y <= from.y.max(to.y);
    let at = || (place.y - from.y) * (to.x - from.x) / (to.y - from.y) + from.x;
    spans && place.x <= from.x.max(to.x) && (from.x == to.x || place.x <= at())
}

/// The mean over `of` of the distance to the nearest of `targets`, neither of which is empty.
pub(crate) fn mean_nearest_distance(of: &[Place], targets: &[Place]) -> f64 {
    let nearest = |place: &Place| {
        targets.iter().map(|target| place.distance(*target)).fold(f64::INFINITY, f64::min)
    };
    of.iter().map(nearest).sum::<f64>() / of.len() as f64
}

/// `count` values over the path of `values`, linear over the index; a single value is repeated.
pub(crate) fn resampled(values: &[f64], count: usize) -> Vec<f64> {
    let last = values.len() - 1;
    let value = |index: usize| {
        let at = index as f64 * last as f64 / (count.max(2) - 1) as f64;
        let before = (at.floor() as usize).min(last);
        let after = (before + 1).min(last);
        values[before] + (at - before as f64) * (values[after] - values[before])
    };
    (0..count).map(value).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn place(x: f64, y: f64) -> Place {
        Place { x, y }
    }

    fn rectangle((x1, y1, x2, y2): (f64, f64, f64, f64)) -> Rectangle {
        Rectangle { from: place(x1, y1), to: place(x2, y2) }
    }

    #[test]
    fn only_right_and_lower_edges_of_a_polygon_are_inside() {
        let square = [place(2.0, 2.0), place(8.0, 2.0), place(8.0, 8.0), place(2.0, 8.0)];
        for (x, y, inside) in [
            (5.0, 5.0, true),
            (8.0, 5.0, true),
            (5.0, 8.0, true),
            (2.0, 5.0, false),
            (5.0, 2.0, false),
            (8.1, 5.0, false),
            (1.0, 5.0, false),
            (f64::NAN, 5.0, false),
        ] {
            assert_eq!(polygon_contains(&square, place(x, y)), inside, "{x} {y}");
        }
        let edge = rectangle((2.0, 2.0, 8.0, 8.0));
        assert!(edge.contains(place(2.0, 2.0)) && edge.contains(place(8.0, 8.0)));
        assert!(!edge.contains(place(8.1, 5.0)));
    }

    #[test]
    fn paths_are_resampled_over_the_index() {
        assert_eq!(resampled(&[0.0, 10.0], 3), [0.0, 5.0, 10.0]);
        assert_eq!(resampled(&[1.0, 3.0, 9.0], 5), [1.0, 2.0, 3.0, 6.0, 9.0]);
        assert_eq!(resampled(&[4.0], 3), [4.0, 4.0, 4.0]);
        assert_eq!(resampled(&[4.0, 5.0], 2), [4.0, 5.0]);
    }

    prop_compose! {
        fn any_rectangle()(x in 0.0..900.0, y in 0.0..900.0, width in 0.0..100.0, height in 0.0..100.0)
            -> Rectangle {
            rectangle((x, y, x + width, y + height))
        }
    }

    proptest! {
        #[test]
        fn intersection_over_union_is_symmetric(a in any_rectangle(), b in any_rectangle()) {
            let share = a.intersection_over_union(&b);
            prop_assert_eq!(share, b.intersection_over_union(&a));
            prop_assert!((0.0..=1.0).contains(&share));
            if a.area() > 0.0 {
                prop_assert_eq!(a.intersection_over_union(&a), 1.0);
            }
        }

        #[test]
        fn a_path_resampled_to_its_own_length_is_itself(values in prop::collection::vec(-9e3..9e3, 1..9)) {
            prop_assert_eq!(resampled(&values, values.len()), values);
        }
    }
}
