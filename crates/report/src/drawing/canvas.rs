//! Marks as characters.

use std::fmt;

use embodied_r_rewards::answer_type::Mark;
use embodied_r_rewards::pointing::Place;

use super::SIDE;

const WIDTH: usize = 48;
/// A character is about twice as high as wide.
const HEIGHT: usize = 18;
/// Where marks of both kinds are.
const BOTH: char = '#';

/// An image in characters, empty at first.
#[derive(Debug)]
pub(super) struct Canvas {
    rows: Vec<Vec<char>>,
}

impl Default for Canvas {
    fn default() -> Self {
        Self { rows: vec![vec![' '; WIDTH]; HEIGHT] }
    }
}

impl Canvas {
    /// Draws a mark with a character.
    pub(super) fn draw(&mut self, mark: &Mark, char: char) {
        match mark {
            Mark::Point(place) => self.line(*place, *place, char),
            Mark::Box(rectangle) => {
                let (from, to) = (rectangle.from, rectangle.to);
                let corners =
                    [from, Place { x: to.x, y: from.y }, to, Place { x: from.x, y: to.y }];
                self.outline(&corners, char);
            }
            Mark::Polygon(corners) => self.outline(corners, char),
            Mark::Path(places) => {
                places.windows(2).for_each(|pair| self.line(pair[0], pair[1], char));
            }
        }
    }

    fn outline(&mut self, corners: &[Place], char: char) {
        let next = corners.iter().cycle().skip(1);
        corners.iter().zip(next).for_each(|(from, to)| self.line(*from, *to, char));
    }

    fn line(&mut self, from: Place, to: Place, char: char) {
        const STEPS: usize = 2 * WIDTH;
        for step in 0..=STEPS {
            let share = step as f64 / STEPS as f64;
            let between = |from: f64, to: f64| from + share * (to - from);
            self.put(between(from.x, to.x), between(from.y, to.y), char);
        }
    }

    fn put(&mut self, x: f64, y: f64, char: char) {
        let cell = |value: f64, count: usize| {
            let at = (value / SIDE * count as f64).floor();
            (0.0..=count as f64).contains(&at).then(|| (at as usize).min(count - 1))
        };
        let (Some(column), Some(row)) = (cell(x, WIDTH), cell(y, HEIGHT)) else { return };
        let place = &mut self.rows[row][column];
        *place = if *place == ' ' || *place == char { char } else { BOTH };
    }
}

impl fmt::Display for Canvas {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let edge = "-".repeat(WIDTH);
        writeln!(out, "+{edge}+")?;
        for row in &self.rows {
            writeln!(out, "|{}|", row.iter().collect::<String>())?;
        }
        writeln!(out, "+{edge}+")
    }
}
