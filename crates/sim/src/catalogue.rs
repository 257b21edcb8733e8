//! The catalogue of objects: names, colours and shapes.

/// The solid used to render an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Box,
    Cylinder,
}

/// An object class. Footprints of all classes have the same distribution, so that a name reveals
/// nothing about its object's position; only colour, shape and height differ.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kind {
    /// A single word.
    pub(crate) name: &'static str,
    /// Red, green and blue.
    pub(crate) colour: [u8; 3],
    pub(crate) shape: Shape,
    /// Metres.
    pub(crate) height_m: f64,
}

const fn kind(name: &'static str, colour: [u8; 3], shape: Shape, height_m: f64) -> Kind {
    Kind { name, colour, shape, height_m }
}

/// All object classes; a room has at most one object of each.
pub(crate) const KINDS: [Kind; 20] = [
    kind("bed", [205, 92, 92], Shape::Box, 0.7),
    kind("bench", [160, 110, 50], Shape::Box, 0.8),
    kind("bin", [70, 130, 70], Shape::Cylinder, 0.8),
    kind("cabinet", [240, 220, 170], Shape::Box, 1.6),
    kind("chair", [220, 40, 40], Shape::Box, 1.0),
    kind("clock", [30, 30, 40], Shape::Cylinder, 1.8),
    kind("desk", [120, 70, 30], Shape::Box, 0.9),
    kind("drum", [250, 130, 20], Shape::Cylinder, 0.9),
    kind("fridge", [235, 240, 245], Shape::Box, 1.8),
    kind("lamp", [250, 230, 50], Shape::Cylinder, 1.6),
    kind("mirror", [150, 210, 230], Shape::Box, 1.7),
    kind("oven", [90, 90, 100], Shape::Box, 1.0),
    kind("piano", [20, 20, 90], Shape::Box, 1.3),
    kind("plant", [30, 160, 50], Shape::Cylinder, 1.4),
    kind("shelf", [180, 140, 220], Shape::Box, 1.9),
    kind("sink", [90, 200, 200], Shape::Cylinder, 1.0),
    kind("sofa", [40, 80, 210], Shape::Box, 0.8),
    kind("stool", [240, 100, 180], Shape::Cylinder, 0.7),
    kind("table", [200, 160, 90], Shape::Cylinder, 0.8),
    kind("vase", [130, 40, 150], Shape::Cylinder, 1.1),
];

/// The names of all object classes, in the order of [`KINDS`].
pub(crate) const NAMES: [&str; KINDS.len()] = {
    let mut names = [""; KINDS.len()];
    let mut index = 0;
    while index < names.len() {
        names[index] = KINDS[index].name;
        index += 1;
    }
    names
};

/// The object class called `name`, if any.
pub(crate) fn kind_named(name: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_has_a_unique_one_word_name_and_a_distinct_colour() {
        for (i, a) in KINDS.iter().enumerate() {
            assert!(a.name.chars().all(|c| c.is_ascii_lowercase()), "{}", a.name);
            for b in &KINDS[i + 1..] {
                assert_ne!(a.name, b.name);
                let apart: i32 =
                    (0..3).map(|c| (i32::from(a.colour[c]) - i32::from(b.colour[c])).abs()).sum();
                assert!(apart >= 60, "{} and {} look alike", a.name, b.name);
            }
        }
    }
}
