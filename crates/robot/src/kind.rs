//! The three kinds of questions.

use serde::Serialize;

/// What a question asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The position of the next key point, given the image and the current position.
    Waypoint,
    /// The current position, given the image.
    State,
    /// The movement to the next key point in words, given the image.
    Movement,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Waypoint, Self::State, Self::Movement];

    /// Its name in question files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Waypoint => "waypoint",
            Self::State => "state",
            Self::Movement => "movement",
        }
    }
}
