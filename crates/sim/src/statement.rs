//! The statements of rationales: a small language that the solver writes and [`crate::grounding`] checks.

use std::fmt;

use crate::caption_trace::{bearing_text, parse_bearing};
use crate::geometry::Octant;

/// One statement of a chain of thought, without its full stop. Its text is that of [`fmt::Display`]. All angles are in
/// degrees, left positive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Statement {
    /// `first lamp left 30, frame 1` or `first lamp none`.
    Sighting {
        /// Which of the object's sightings.
        which: Which,
        /// The object.
        name: String,
        /// The sighting; `None` if the object is never visible.
        at: Option<Sighting>,
    },
    /// `next 2: left 30, rotate left 60: right 30`: the next frame, the bearing of the tracked object, the rotation before
    /// that frame, and the bearing after it.
    Next {
        /// The next frame.
        frame: usize,
        /// The bearing before the rotation.
        before_deg: i32,
        /// The rotation in the caption's words.
        action: String,
        /// The bearing after it.
        after_deg: i32,
    },
    /// `next none: right 30`: the object is tracked up to the last frame, and its bearing there.
    End {
        /// The bearing in the last frame.
        bearing_deg: i32,
    },
    /// `left 60 is ahead left`: the octant of the tracked object's bearing.
    Octant {
        /// The bearing.
        bearing_deg: i32,
        /// Its octant.
        octant: Octant,
    },
    /// `order lamp 3, bed 1: bed, lamp`: the frames in which objects are first visible, and the objects by these frames.
    Order {
        /// Objects with the frames in which they are first visible, in the order of the question.
        firsts: Vec<(String, usize)>,
        /// The objects in the order of these frames.
        names: Vec<String>,
    },
    /// `heading 2, left 60: left 150`: the rotation before a frame, and the heading after it relative to frame 0.
    Heading {
        /// The frame.
        frame: usize,
        /// The rotation before it.
        turn_deg: i32,
        /// The heading in it.
        heading_deg: i32,
    },
    /// `direction lamp left 30, frame 1: left 90`: a sighting, and the object's direction relative to frame 0.
    Direction {
        /// The object.
        name: String,
        /// Its sighting.
        at: Sighting,
        /// Its direction relative to the heading of frame 0.
        direction_deg: i32,
    },
    /// `target left 60, right 90: right 30`: a heading, a rotation and their sum.
    Target {
        /// The heading.
        from_deg: i32,
        /// The rotation.
        turn_deg: i32,
        /// Their sum.
        to_deg: i32,
    },
    /// `off lamp: 60`: the angle between an object's direction and the target.
    Off {
        /// The object.
        name: String,
        /// The angle, not negative.
        angle_deg: i32,
    },
    /// `lamp to bed: left 40`: the rotation from one object's direction to another's.
    Between {
        /// The object that is faced first.
        from: String,
        /// The other.
        to: String,
        /// The rotation.
        turn_deg: i32,
    },
    /// `so left B`: the content and letter of the chosen option.
    So {
        /// The option's content.
        content: String,
        /// Its letter.
        letter: char,
    },
}

/// Which of an object's sightings a statement is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The first.
    First,
    /// The last.
    Last,
    /// The last that faces the object.
    Faced,
}

/// Where and when an object is visible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sighting {
    /// In degrees, left positive.
    pub bearing_deg: i32,
    /// The frame, from 0.
    pub frame: usize,
}

impl Which {
    const ALL: [Self; 3] = [Self::First, Self::Last, Self::Faced];

    fn word(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Last => "last",
            Self::Faced => "faced",
        }
    }
}

impl fmt::Display for Sighting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, frame {}", bearing_text(self.bearing_deg), self.frame)
    }
}

impl fmt::Display for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = bearing_text;
        match self {
            Self::Sighting { which, name, at: Some(at) } => {
                write!(f, "{} {name} {at}", which.word())
            }
            Self::Sighting { which, name, at: None } => write!(f, "{} {name} none", which.word()),
            Self::Next { frame, before_deg, action, after_deg } => {
                let [before, after] = [before_deg, after_deg].map(|deg| text(*deg));
                write!(f, "next {frame}: {before}, {action}: {after}")
            }
            Self::End { bearing_deg } => write!(f, "next none: {}", text(*bearing_deg)),
            Self::Octant { bearing_deg, octant } => {
                write!(f, "{} is {}", text(*bearing_deg), octant.direction())
            }
            Self::Order { firsts, names } => {
                let firsts: Vec<_> =
                    firsts.iter().map(|(name, frame)| format!("{name} {frame}")).collect();
                write!(f, "order {}: {}", firsts.join(", "), names.join(", "))
            }
            Self::Heading { frame, turn_deg, heading_deg } => {
                write!(f, "heading {frame}, {}: {}", text(*turn_deg), text(*heading_deg))
            }
            Self::Direction { name, at, direction_deg } => {
                write!(f, "direction {name} {at}: {}", text(*direction_deg))
            }
            Self::Target { from_deg, turn_deg, to_deg } => {
                write!(f, "target {}, {}: {}", text(*from_deg), text(*turn_deg), text(*to_deg))
            }
            Self::Off { name, angle_deg } => write!(f, "off {name}: {angle_deg}"),
            Self::Between { from, to, turn_deg } => {
                write!(f, "{from} to {to}: {}", text(*turn_deg))
            }
            Self::So { content, letter } => write!(f, "so {content} {letter}"),
        }
    }
}

impl Statement {
    /// The order of objects by the frames in which they are first visible.
    pub fn order(firsts: Vec<(String, usize)>) -> Self {
        let mut by_frame: Vec<&(String, usize)> = firsts.iter().collect();
        by_frame.sort_by_key(|(_, frame)| *frame);
        let names = by_frame.into_iter().map(|(name, _)| name.clone()).collect();
        Self::Order { firsts, names }
    }

    /// Parses a statement without its full stop; `None` for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        if let Some((bearing, direction)) = text.split_once(" is ") {
            let octant = Octant::ALL.into_iter().find(|o| o.direction() == direction)?;
            return Some(Self::Octant { bearing_deg: parse_bearing(bearing)?, octant });
        }
        let (word, rest) = text.split_once(' ')?;
        if let Some(which) = Which::ALL.into_iter().find(|which| which.word() == word) {
            let (name, rest) = rest.split_once(' ')?;
            let at = if rest == "none" { None } else { Some(Sighting::parse(rest)?) };
            return Some(Self::Sighting { which, name: name.to_owned(), at });
        }
        if word == "so" {
            let (content, letter) = rest.rsplit_once(' ')?;
            let letter = letter.parse().ok().filter(char::is_ascii_uppercase)?;
            return Some(Self::So { content: content.to_owned(), letter });
        }
        let (operands, result) = rest.rsplit_once(": ")?;
        match word {
            "next" if operands == "none" => Some(Self::End { bearing_deg: parse_bearing(result)? }),
            "next" => {
                let (frame, operands) = operands.split_once(": ")?;
                let (before, action) = operands.split_once(", ")?;
                Some(Self::Next {
                    frame: frame.parse().ok()?,
                    before_deg: parse_bearing(before)?,
                    action: action.to_owned(),
                    after_deg: parse_bearing(result)?,
                })
            }
            "heading" => {
                let (frame, turn) = operands.split_once(", ")?;
                Some(Self::Heading {
                    frame: frame.parse().ok()?,
                    turn_deg: parse_bearing(turn)?,
                    heading_deg: parse_bearing(result)?,
                })
            }
            "direction" => {
                let (name, at) = operands.split_once(' ')?;
                Some(Self::Direction {
                    name: name.to_owned(),
                    at: Sighting::parse(at)?,
                    direction_deg: parse_bearing(result)?,
                })
            }
            "target" => {
                let (from, turn) = operands.split_once(", ")?;
                Some(Self::Target {
                    from_deg: parse_bearing(from)?,
                    turn_deg: parse_bearing(turn)?,
                    to_deg: parse_bearing(result)?,
                })
            }
            "order" => {
                let first = |text: &str| {
                    let (name, frame) = text.split_once(' ')?;
                    Some((name.to_owned(), frame.parse().ok()?))
                };
                let firsts = operands.split(", ").map(first).collect::<Option<_>>()?;
                let names = result.split(", ").map(str::to_owned).collect();
                Some(Self::Order { firsts, names })
            }
            "off" => Some(Self::Off { name: operands.to_owned(), angle_deg: result.parse().ok()? }),
            from => Some(Self::Between {
                from: from.to_owned(),
                to: operands.strip_prefix("to ")?.to_owned(),
                turn_deg: parse_bearing(result)?,
            }),
        }
    }
}

impl Sighting {
    fn parse(text: &str) -> Option<Self> {
        let (bearing, frame) = text.split_once(", frame ")?;
        Some(Self { bearing_deg: parse_bearing(bearing)?, frame: frame.parse().ok()? })
    }
}

/// Statements as text, each with a full stop.
pub(crate) fn written(statements: &[Statement]) -> String {
    statements.iter().map(|statement| format!("{statement}.")).collect::<Vec<_>>().join(" ")
}

/// Parses [`written`]; `None` if any part is not a statement.
pub(crate) fn parsed(text: &str) -> Option<Vec<Statement>> {
    let text = text.trim().strip_suffix('.')?;
    text.split(". ").map(Statement::parse).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_statement_round_trips_through_its_text() {
        let name = || "lamp".to_owned();
        let at = Sighting { bearing_deg: -30, frame: 4 };
        let statements = vec![
            Statement::Sighting { which: Which::First, name: name(), at: Some(at) },
            Statement::Sighting { which: Which::Last, name: name(), at: Some(at) },
            Statement::Sighting { which: Which::Faced, name: name(), at: None },
            Statement::End { bearing_deg: 180 },
            Statement::Next {
                frame: 5,
                before_deg: 90,
                action: "rotate right 90".into(),
                after_deg: 180,
            },
            Statement::Octant { bearing_deg: 0, octant: Octant::of(0.0) },
            Statement::Octant { bearing_deg: -140, octant: Octant::of(-140.0) },
            Statement::order(vec![(name(), 3), ("bed".into(), 1)]),
            Statement::Heading { frame: 2, turn_deg: 60, heading_deg: -150 },
            Statement::Direction { name: name(), at, direction_deg: 0 },
            Statement::Target { from_deg: 0, turn_deg: -90, to_deg: -90 },
            Statement::Off { name: name(), angle_deg: 40 },
            Statement::Between { from: name(), to: "bed".into(), turn_deg: 40 },
            Statement::So { content: "bed, lamp, sofa".into(), letter: 'C' },
        ];
        let text = written(&statements);
        assert!(text.starts_with(
            "first lamp right 30, frame 4. last lamp right 30, frame 4. faced lamp none."
        ));
        assert_eq!(parsed(&text), Some(statements));
    }

    #[test]
    fn other_text_is_no_statement() {
        for text in [
            "",
            "lamp",
            "first lamp.",
            "first lamp left far, frame 1.",
            "next two: ahead, stay: ahead.",
            "so",
            "so left.",
            "left 30 is near.",
            "order lamp, bed 1: bed, lamp.",
            "order lamp 3, bed 1.",
            "next none.",
        ] {
            assert_eq!(parsed(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_parser(text in "(first|next|off|so|heading|order)? ?\\PC{0,40}") {
            if let Some(statement) = Statement::parse(&text) {
                prop_assert!(!statement.to_string().is_empty());
            }
        }
    }
}
