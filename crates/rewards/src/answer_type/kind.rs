//! What each answer type says of itself.

use serde_json::{Map, Value};

use crate::answer;
use crate::pointing::notation::NotationError;
use crate::pointing::{Grid, Place, PointingRewards, Rectangle};
use crate::score::Score;

/// An answer type.
pub(crate) struct Kind {
    /// Its names: the one that is written, then others that are read.
    pub(crate) names: &'static [&'static str],
    /// What its questions are called in messages.
    pub(crate) questions: &'static str,
    /// The raw score; absent if the reference answer is none of the type, whatever the completion is.
    pub(crate) score: fn(&Case<'_>) -> Score,
    /// The answer of a completion, for a reader.
    pub(crate) answer: fn(&str) -> Option<String>,
    /// What an answer or a reference answer shows on the image; `None` if the type is not drawn.
    pub(crate) drawing: Option<DrawingOf>,
}

/// What a text shows on the image of a question with these columns.
pub(crate) type DrawingOf = fn(&str, Option<&Map<String, Value>>) -> Option<Drawing>;

/// A completion and the reference answer that it is compared with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case<'a> {
    /// The model's full output.
    pub(crate) completion: &'a str,
    /// One reference answer, out of its tag.
    pub(crate) solution: &'a str,
    /// The question's further columns.
    pub(crate) columns: Option<&'a Map<String, Value>>,
    /// Parameters of types that point.
    pub(crate) pointing: &'a PointingRewards,
}

impl Case<'_> {
    /// The grid of the question's coordinates.
    ///
    /// # Errors
    /// The score of a question whose columns name none: it is absent.
    pub(super) fn grid(&self) -> Result<Grid, Score> {
        Grid::of_columns(self.columns).map_err(Score::absent)
    }

    /// What `read` makes of the text in the completion's tag.
    ///
    /// # Errors
    /// The score of a completion that has no such answer: 0.
    pub(super) fn answer<T>(
        &self,
        read: impl FnOnce(&str) -> Result<T, NotationError>,
    ) -> Result<T, Score> {
        let text = answer::text(self.completion).map_err(|error| Score::zero(error.to_string()))?;
        read(text).map_err(|error| Score::zero(error.to_string()))
    }

    /// The score of a question whose reference answer is not `expected`: it is absent.
    pub(super) fn invalid(&self, expected: &str) -> Score {
        Score::absent(format!("the solution `{}` is {expected}", excerpt(self.solution)))
    }
}

/// What an answer shows on an image.
pub type Drawing = Vec<Mark>;

/// A part of a drawing, on a grid of 0 to 1000 over the image's width and height.
#[derive(Debug, Clone, PartialEq)]
pub enum Mark {
    /// A point.
    Point(Place),
    /// A box.
    Box(Rectangle),
    /// A closed outline.
    Polygon(Vec<Place>),
    /// A path from its first place to its last.
    Path(Vec<Place>),
}

/// A score with the reason why it is below the maximum.
pub(crate) fn with_reason(value: f64, reason: impl FnOnce() -> String) -> Score {
    match value {
        1.0 => Score::full(),
        value => Score { value: Some(value), reason: Some(reason()) },
    }
}

/// The start of a long text.
pub(crate) fn excerpt(text: &str) -> String {
    const MAX_CHARS: usize = 80;
    match text.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
