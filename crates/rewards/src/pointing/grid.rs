//! What a record's coordinates count.

use serde_json::{Map, Value};

use super::geometry::Place;

/// The sides of the grid that everything is compared on.
const SIDE: f64 = 1000.0;

/// What the coordinates of a record count, in its reference answer and in completions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Grid {
    /// The coordinates of the right edge and of the bottom one.
    width: f64,
    height: f64,
    /// Whether coordinates outside of the image are places, too.
    is_open: bool,
}

impl Default for Grid {
    /// `norm1000`.
    fn default() -> Self {
        Self { width: SIDE, height: SIDE, is_open: false }
    }
}

impl Grid {
    /// The grid that a record's columns name: `coordinates` is `norm1000` (the default), `norm1`, or `pixels` with `width` and
    /// `height`.
    ///
    /// # Errors
    /// What is wrong with which column.
    pub fn of_columns(columns: Option<&Map<String, Value>>) -> Result<Self, String> {
        match column(columns, "coordinates") {
            None => Ok(Self::default()),
            Some(Value::String(name)) if name == "norm1000" => Ok(Self::default()),
            Some(Value::String(name)) if name == "norm1" => {
                Ok(Self { width: 1.0, height: 1.0, is_open: false })
            }
            Some(Value::String(name)) if name == "pixels" => {
                let side = |name: &str| match column(columns, name).and_then(Value::as_f64) {
                    Some(size) if size >= 1.0 && size.is_finite() => Ok(size),
                    _ => Err(format!(
                        "`coordinates` are `pixels`, so `{name}` must be the image's in pixels"
                    )),
                };
                Ok(Self { width: side("width")?, height: side("height")?, is_open: false })
            }
            Some(other) => {
                Err(format!("`coordinates` must be `norm1000`, `norm1` or `pixels`, not {other}"))
            }
        }
    }

    /// `norm1000`, where coordinates outside of the image are places, too.
    pub(crate) fn open() -> Self {
        Self { is_open: true, ..Self::default() }
    }

    /// The place with these coordinates; `None` if it is outside of the image, or one is no number.
    pub fn place(&self, x: f64, y: f64) -> Option<Place> {
        let inside = (0.0..=self.width).contains(&x) && (0.0..=self.height).contains(&y);
        let known = inside || self.is_open && x.is_finite() && y.is_finite();
        known.then(|| self.scaled(x, y))
    }

    /// The place with these coordinates, inside of the image or not.
    pub(crate) fn scaled(&self, x: f64, y: f64) -> Place {
        let scaled = |value: f64, side: f64| if side == SIDE { value } else { value / side * SIDE };
        Place { x: scaled(x, self.width), y: scaled(y, self.height) }
    }
}

/// A column that is there and not null.
fn column<'a>(columns: Option<&'a Map<String, Value>>, name: &str) -> Option<&'a Value> {
    columns.and_then(|columns| columns.get(name)).filter(|value| !value.is_null())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn grid(columns: Value) -> Result<Grid, String> {
        Grid::of_columns(columns.as_object())
    }

    #[test]
    fn a_record_says_its_grid() {
        for (columns, x, y) in [
            (json!({}), 250.0, 500.0),
            (json!({"coordinates": null}), 250.0, 500.0),
            (json!({"coordinates": "norm1000", "width": 4}), 250.0, 500.0),
            (json!({"coordinates": "norm1"}), 0.25, 0.5),
            (json!({"coordinates": "pixels", "width": 640, "height": 480}), 160.0, 240.0),
        ] {
            let place = grid(columns.clone()).unwrap().place(x, y);
            assert_eq!(place, Some(Place { x: 250.0, y: 500.0 }), "{columns}");
        }
        assert_eq!(Grid::of_columns(None), Ok(Grid::default()));
    }

    #[test]
    fn a_place_outside_is_none() {
        let pixels = grid(json!({"coordinates": "pixels", "width": 640, "height": 480})).unwrap();
        for (x, y) in [(-1e-9, 5.0), (640.1, 5.0), (5.0, 480.1), (f64::NAN, 5.0), (5.0, 1e9)] {
            assert_eq!(pixels.place(x, y), None, "{x} {y}");
        }
        assert_eq!(pixels.place(640.0, 480.0), Some(Place { x: 1000.0, y: 1000.0 }));
        assert_eq!(grid(json!({"coordinates": "norm1"})).unwrap().place(2.0, 0.0), None);
    }

    #[test]
    fn a_column_that_is_missing_or_wrong_is_named() {
        for (columns, named) in [
            (json!({"coordinates": "pixels"}), "`width`"),
            (json!({"coordinates": "pixels", "width": 640}), "`height`"),
            (json!({"coordinates": "pixels", "width": 640, "height": 0}), "`height`"),
            (json!({"coordinates": "pixels", "width": "640", "height": 1}), "`width`"),
            (json!({"coordinates": "percent"}), "`norm1`"),
            (json!({"coordinates": 3}), "not 3"),
        ] {
            let error = grid(columns).unwrap_err();
            assert!(error.contains(named), "{error}");
        }
    }
}
