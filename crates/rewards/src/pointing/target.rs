//! Reference answers of questions about points.

use serde_json::Value;

use super::geometry::{Place, Rectangle, polygon_contains};
use super::grid::Grid;
use super::notation::{numbers, points_of};

/// What a question about points asks for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Target {
    /// Where its points are.
    pub(crate) shape: Shape,
    /// How many points are asked for, if the reference answer says so.
    pub(crate) count: Option<usize>,
}

/// Where points are.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Shape {
    /// In any of these regions, at least one.
    Regions(Vec<Region>),
    /// At these places, at least one.
    Places(Vec<Place>),
}

/// A part of the image.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Region {
    /// A polygon of at least three corners.
    Polygon(Vec<Place>),
    /// A box.
    Rectangle(Rectangle),
}

impl Region {
    /// Whether a place is in it.
    pub(crate) fn contains(&self, place: Place) -> bool {
        match self {
            Self::Polygon(corners) => polygon_contains(corners, place),
            Self::Rectangle(rectangle) => rectangle.contains(place),
        }
    }
}

impl Target {
    /// The target that a reference answer is: points in any form of [`notation`](super::notation), or an object or a list of them
    /// with `segmentation` (polygons of pairs, or of numbers as in COCO), else with `box_2d`, else with `point_2d`; `count` is that
    /// of the first one with it. `None` if it is none.
    pub(crate) fn parse(solution: &str, grid: Grid) -> Option<Self> {
        let Ok(value) = serde_json::from_str::<Value>(solution) else {
            let places = super::notation::points(solution, grid).ok()?;
            let places = places.iter().map(|point| point.place).collect();
            return Some(Self { shape: Shape::Places(places), count: None });
        };
        let items = match &value {
            Value::Array(items) => items.as_slice(),
            item => std::slice::from_ref(item),
        };
        let of = |key: &str| items.iter().filter_map(|item| item.get(key)).collect::<Vec<_>>();
        let count = match of("count").first() {
            None => None,
            Some(count) => Some(usize::try_from(count.as_u64()?).ok()?),
        };
        let (polygons, boxes) = (of("segmentation"), of("box_2d"));
        let shape = if !polygons.is_empty() {
            let mut regions = Vec::new();
            for value in polygons {
                add_polygons(value, grid, &mut regions)?;
            }
            Shape::Regions(regions)
        } else if !boxes.is_empty() {
            let rectangle = |value: &&Value| match *numbers(value)?.as_slice() {
                [x1, y1, x2, y2] => {
                    let (from, to) = (grid.scaled(x1, y1), grid.scaled(x2, y2));
                    Some(Region::Rectangle(Rectangle { from, to }))
                }
                _ => None,
            };
            Shape::Regions(boxes.iter().map(rectangle).collect::<Option<_>>()?)
        } else {
            let points = points_of(&value, grid).ok()?;
            Shape::Places(points.iter().map(|point| point.place).collect())
        };
        let is_empty = matches!(&shape, Shape::Regions(regions) if regions.is_empty());
        (!is_empty).then_some(Self { shape, count })
    }
}

/// A polygon, or those in a list.
fn add_polygons(value: &Value, grid: Grid, regions: &mut Vec<Region>) -> Option<()> {
    let pairs = match numbers(value) {
        Some(flat) if flat.len() % 2 == 0 => {
            flat.chunks(2).map(|pair| grid.scaled(pair[0], pair[1])).collect()
        }
        Some(_) => return None,
        None => {
            let items = value.as_array()?;
            let pair = |item: &Value| match *numbers(item)?.as_slice() {
                [x, y] => Some(grid.scaled(x, y)),
                _ => None,
            };
            match items.iter().map(pair).collect::<Option<Vec<Place>>>() {
                Some(pairs) => pairs,
                None => return items.iter().try_for_each(|item| add_polygons(item, grid, regions)),
            }
        }
    };
    (pairs.len() >= 3).then(|| regions.push(Region::Polygon(pairs)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(solution: &str) -> Option<Target> {
        Target::parse(solution, Grid::default())
    }

    fn places(pairs: &[(f64, f64)]) -> Vec<Place> {
        pairs.iter().map(|&(x, y)| Place { x, y }).collect()
    }

    #[test]
    fn points_are_targets_in_any_form() {
        let expected = Shape::Places(places(&[(1.0, 2.0), (30.0, 4.5)]));
        for (solution, count) in [
            (r#"[{"point_2d": [1, 2]}, {"point_2d": [30, 4.5]}]"#, None),
            (
                r#"[{"point_2d": [1, 2], "label": "x"}, {"point_2d": [30, 4.5], "count": 2}]"#,
                Some(2),
            ),
            ("[[1, 2], [30, 4.5]]", None),
            ("(1, 2), (30, 4.5)", None),
        ] {
            let found = target(solution).unwrap();
            assert_eq!((found.shape, found.count), (expected.clone(), count), "{solution}");
        }
    }

    #[test]
    fn polygons_go_before_boxes_and_boxes_before_points() {
        let triangle = Region::Polygon(places(&[(0.0, 0.0), (9.0, 0.0), (0.0, 9.0)]));
        let (from, to) = (Place { x: 1.0, y: 2.0 }, Place { x: 3.0, y: 4.0 });
        let rectangle = Region::Rectangle(Rectangle { from, to });
        for (solution, expected) in [
            (r#"{"segmentation": [[0, 0], [9, 0], [0, 9]]}"#, vec![triangle.clone()]),
            (r#"{"segmentation": [[[0, 0], [9, 0], [0, 9]]]}"#, vec![triangle.clone()]),
            (r#"{"segmentation": [0, 0, 9, 0, 0, 9]}"#, vec![triangle.clone()]),
            (
                r#"[{"segmentation": [[0, 0, 9, 0, 0, 9], [0, 0, 9, 0, 0, 9]], "box_2d": [0, 0, 1, 1]}]"#,
                vec![triangle.clone(); 2],
            ),
            (r#"[{"box_2d": [1, 2, 3, 4], "point_2d": [0, 0]}]"#, vec![rectangle]),
        ] {
            assert_eq!(target(solution).unwrap().shape, Shape::Regions(expected), "{solution}");
        }
    }

    #[test]
    fn other_texts_are_no_target() {
        for solution in [
            "",
            "B",
            "3",
            "[]",
            "{}",
            r#"{"point_2d": [1]}"#,
            r#"{"point_2d": [1, 2000]}"#,
            r#"{"box_2d": [1, 2, 3]}"#,
            r#"{"segmentation": []}"#,
            r#"{"segmentation": [[0, 0], [9, 0]]}"#,
            r#"{"segmentation": [0, 0, 9, 0, 1]}"#,
            r#"[{"point_2d": [1, 2], "count": "two"}]"#,
        ] {
            assert_eq!(target(solution), None, "{solution}");
        }
    }
}
