//! Polygons as truths, in shares of the image's width and height.

use crate::extract::literal::literal;
use crate::extract::python::strip;

/// A polygon of at least three corners.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Polygon {
    corners: Vec<(f64, f64)>,
}

impl Polygon {
    /// The polygon in a list of pairs, as data sets write it: `[(0.1, 0.2), …]`. Other items are skipped. `None` if the text
    /// is no such list, or a pair is not of numbers, or less than three are left.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let value = literal(strip(text))?;
        let pairs = value.items()?.iter().filter_map(|item| item.pair());
        let corners: Option<Vec<_>> = pairs.map(|(x, y)| Some((x.float()?, y.float()?))).collect();
        corners.filter(|corners| corners.len() >= 3).map(|corners| Self { corners })
    }

    /// Ray casting as VLMEvalKit has it. A vertical edge counts as crossed wherever the point lies, so an upright rectangle
    /// contains nothing.
    pub(crate) fn contains(&self, x: f64, y: f64) -> bool {
        let next = self.corners.iter().cycle().skip(1);
        let crossed =
            self.corners.iter().zip(next).filter(|(from, to)| crosses(**from, **to, x, y));
        crossed.count() % 2 == 1
    }
}

/// Whether a ray from the point crosses the edge.
fn crosses(from: (f64, f64), to: (f64, f64), x: f64, y: f64) -> bool {
    let spans = y > from.1.min(to.1) && y <= from.1.max(to.1);
    spans && (from.0 == to.0 || x <= (y - from.1) * (to.0 - from.0) / (to.1 - from.1) + from.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn polygon(text: &str) -> Polygon {
        Polygon::parse(text).unwrap()
    }

    #[test]
    fn pairs_are_corners_and_other_items_are_skipped() {
        let expected = [(0.1, 0.2), (0.5, 1.0), (0.0, 0.25)];
        for text in [
            "[(0.1, 0.2), (0.5, 1), (0, 0.25)]",
            " [[0.1, 0.2], (0.5, 1,), 7, (1, 2, 3), ('0', '0.25')]\n",
            "(0.1, 0.2), (0.5, 1), (0, 0.25)",
        ] {
            assert_eq!(polygon(text).corners, expected, "{text}");
        }
        for text in ["", "yes", "[(0, 1), (1, 2)]", "{'a': 1}", "[(0, 1), (1, 2), (2, 'x')]", "3"] {
            assert_eq!(Polygon::parse(text), None, "{text}");
        }
    }

    #[test]
    fn the_left_edge_is_outside_and_the_right_one_inside() {
        let triangle = polygon("[(0.2, 0.2), (0.8, 0.5), (0.25, 0.9)]");
        assert!(triangle.contains(0.4, 0.5));
        assert!(triangle.contains(0.8, 0.5));
        assert!(!triangle.contains(0.2, 0.2));
        assert!(!triangle.contains(0.81, 0.5));
        assert!(!triangle.contains(f64::NAN, 0.5));
        assert!(!triangle.contains(0.4, f64::NAN));
        assert!(!triangle.contains(f64::INFINITY, 0.5));
    }

    #[test]
    fn an_upright_rectangle_contains_nothing() {
        let rectangle = polygon("[(0.2, 0.2), (0.8, 0.2), (0.8, 0.8), (0.2, 0.8)]");
        for (x, y) in [(0.5, 0.5), (0.2, 0.5), (0.8, 0.5), (0.1, 0.5), (0.9, 0.5)] {
            assert!(!rectangle.contains(x, y), "{x} {y}");
        }
    }
}
