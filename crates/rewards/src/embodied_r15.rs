//! Embodied-R1.5's rewards as it was trained with them, of its own records.
//!
//! The answer is what stands in the first `<answer>`. It has to be there and to have the structure of its problem type, or else
//! accuracy and format are 0. Coordinates count thousandths of the image's width and height; one outside of the image is far
//! away, not malformed. Unlike there, more than 1,000 points and numbers that are not finite are malformed.

use serde_json::{Map, Value};

use crate::answer::answer_tag;
use crate::answer_type::kind::excerpt;
use crate::answer_type::{bounding_box, point, trace};
use crate::numeric::one_decimal_accuracy;
use crate::pointing::notation::{MAX_POINTS, Point, numbers, without_fence};
use crate::pointing::target::Target;
use crate::pointing::{Grid, Place, PointingRewards, Rectangle};
use crate::reward::{Reward, RewardInput};
use crate::score::Score;

/// A `problem_type` of Embodied-R1.5's records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProblemType {
    /// A letter with or without its option, an option's text, or an order.
    MultipleChoice,
    /// A number, equal at one decimal place.
    Numerical,
    /// A text, which is scored by BLEU there and not at all here.
    OpenEnded,
    /// A formula, which is compared by symbols there and not at all here.
    Math,
    /// A box.
    SpatialGrounding,
    /// Points.
    Point,
    /// A path.
    Trace,
    /// A path with depths.
    Trace3d,
}

/// The scores of a completion.
#[derive(Debug, Clone, PartialEq)]
pub struct Scores {
    /// Of the answer.
    pub accuracy: Score,
    /// Of its structure.
    pub format: Score,
}

impl Scores {
    /// The whole reward: nine parts accuracy, one part format; `None` without accuracy.
    pub fn overall(&self) -> Option<f64> {
        Some(0.9 * self.accuracy.value? + 0.1 * self.format.value?)
    }
}

impl ProblemType {
    const NAMES: [(&'static str, Self); 8] = [
        ("multiple choice", Self::MultipleChoice),
        ("numerical", Self::Numerical),
        ("open-ended", Self::OpenEnded),
        ("math", Self::Math),
        ("spatial grounding", Self::SpatialGrounding),
        ("point", Self::Point),
        ("trace", Self::Trace),
        ("trace_3d", Self::Trace3d),
    ];

    /// The problem type of this name, in any case, with `-` or `_` for spaces.
    pub fn parse(name: &str) -> Option<Self> {
        let plain = |name: &str| name.trim().to_lowercase().replace(['-', '_'], " ");
        let name = plain(name);
        Self::NAMES.into_iter().find(|(known, _)| plain(known) == name).map(|(_, of)| of)
    }

    /// All names, for messages.
    pub(crate) fn names() -> String {
        Self::NAMES.map(|(name, _)| format!("`{name}`")).join(", ")
    }

    /// The scores of `completion` for the reference answer `solution`.
    pub fn scores(self, completion: &str, solution: &str, rewards: &PointingRewards) -> Scores {
        let checked = answer(completion)
            .ok_or_else(|| "no `<answer>` tag with an answer".to_owned())
            .and_then(|answer| Ok((answer, self.structure(answer)?)));
        let format = match &checked {
            Ok(_) => Score::full(),
            Err(reason) => Score::zero(reason),
        };
        let accuracy = match (self.truth(solution), checked) {
            (Err(reason), _) => Score::absent(reason),
            (Ok(_), Err(reason)) => Score::zero(reason),
            (Ok(truth), Ok((answer, items))) => truth.accuracy(answer, &items, rewards),
        };
        Scores { accuracy, format }
    }

    /// The items of an answer that points, none of any other.
    fn structure(self, answer: &str) -> Result<Vec<Item>, String> {
        let Some(shape) = self.shape() else { return Ok(Vec::new()) };
        let wrong = || format!("the answer is not {}", shape.example());
        json(answer).and_then(|value| items(&value, shape)).ok_or_else(wrong)
    }

    fn shape(self) -> Option<ItemShape> {
        match self {
            Self::SpatialGrounding => Some(ItemShape::Box),
            Self::Point | Self::Trace => Some(ItemShape::Point),
            Self::Trace3d => Some(ItemShape::PointWithDepth),
            Self::MultipleChoice | Self::Numerical | Self::OpenEnded | Self::Math => None,
        }
    }

    /// The reference answer.
    ///
    /// # Errors
    /// It is none, or the problem type is not scored here.
    fn truth(self, solution: &str) -> Result<Truth<'_>, String> {
        let solution = answer_tag(solution).unwrap_or(solution).trim();
        let path = |shape| {
            Some(json(solution).and_then(|it| items(&it, shape))?.iter().map(Item::point).collect())
        };
        let truth = match self {
            Self::MultipleChoice => Some(Truth::Choice(solution)),
            Self::Numerical => number(solution).map(|number| Truth::Number(number, solution)),
            Self::OpenEnded => {
                return Err("open answers are scored by BLEU there, not here".to_owned());
            }
            Self::Math => return Err("formulas are compared by symbols there, not here".to_owned()),
            Self::SpatialGrounding => match json(solution) {
                Some(Value::Array(_)) => Some(Truth::Boxes),
                value => value
                    .and_then(|value| items(&value, ItemShape::Box)?.first()?.rectangle())
                    .map(Truth::Box),
            },
            Self::Point => Target::parse(solution, Grid::open()).map(Truth::Target),
            Self::Trace => path(ItemShape::Point).map(Truth::Path),
            Self::Trace3d => path(ItemShape::PointWithDepth).map(Truth::Path3d),
        };
        truth.ok_or_else(|| {
            format!("the solution `{}` is none of its `problem_type`", excerpt(solution))
        })
    }
}

/// A reference answer.
#[derive(Debug, Clone)]
enum Truth<'a> {
    Choice(&'a str),
    /// A number, and how it is written.
    Number(f64, &'a str),
    Box(Rectangle),
    /// Several boxes, which no answer matches.
    Boxes,
    Target(Target),
    Path(Vec<Point>),
    Path3d(Vec<Point>),
}

impl Truth<'_> {
    /// The score of an answer whose structure has these items.
    fn accuracy(&self, answer: &str, items: &[Item], rewards: &PointingRewards) -> Score {
        let path = || items.iter().map(Item::point).collect::<Vec<_>>();
        match self {
            Self::Choice(right) if is_same_choice(answer, right) => Score::full(),
            Self::Choice(right) => expected(answer, right),
            Self::Number(right, written) => match number(answer) {
                Some(found) if one_decimal_accuracy(found, *right) == 1.0 => Score::full(),
                _ => expected(answer, written),
            },
            Self::Boxes => {
                Score::zero("the solution is a list of boxes, which no answer matches there")
            }
            Self::Box(right) => match items.first().and_then(Item::rectangle) {
                Some(found) => bounding_box::compared(&found, right),
                None => Score::zero("the answer has no box"),
            },
            Self::Target(target) => {
                let places: Vec<Place> = path().iter().map(|point| point.place).collect();
                point::compared(&places, target, rewards.point)
            }
            Self::Path(_) | Self::Path3d(_) if items.len() < 2 => {
                Score::zero("a trace has at least two points")
            }
            Self::Path(right) => trace::compared(&path(), right, rewards),
            Self::Path3d(right) => trace::compared_3d(&path(), right, rewards),
        }
    }
}

/// The whole reward of a completion, nine parts accuracy, one part format, by the question's column `problem_type`.
#[derive(Debug, Clone, Copy, Default)]
pub struct EmbodiedR15 {
    /// Parameters of answers that point.
    pub pointing: PointingRewards,
}

impl EmbodiedR15 {
    /// Its name in stage weights.
    pub const NAME: &'static str = "embodied_r15";

    /// Why no completion of a question can be scored, if so.
    pub fn unscored(&self, input: &RewardInput<'_>) -> Option<String> {
        problem_type(input).and_then(|kind| kind.truth(input.solution).map(|_| ())).err()
    }
}

/// The problem type of a question.
fn problem_type(input: &RewardInput<'_>) -> Result<ProblemType, String> {
    let column = input.columns.and_then(|columns| columns.get("problem_type"));
    column
        .and_then(Value::as_str)
        .and_then(ProblemType::parse)
        .ok_or_else(|| format!("`problem_type` must be one of {}", ProblemType::names()))
}

impl Reward for EmbodiedR15 {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn score(&self, batch: &[RewardInput<'_>]) -> crate::Result<Vec<Score>> {
        let score = |input: &RewardInput<'_>| match problem_type(input) {
            Ok(problem_type) => {
                let scores = problem_type.scores(input.completion, input.solution, &self.pointing);
                let value = scores.overall();
                Score { value, reason: scores.format.reason.or(scores.accuracy.reason) }
            }
            Err(reason) => Score::absent(reason),
        };
        Ok(batch.iter().map(score).collect())
    }
}

/// What stands in the first `<answer>`, trimmed; `None` if that is nothing.
pub fn answer(completion: &str) -> Option<&str> {
    let (_, rest) = completion.split_once("<answer>")?;
    let (inner, _) = rest.split_once("</answer>")?;
    Some(inner.trim()).filter(|answer| !answer.is_empty())
}

fn expected(answer: &str, solution: &str) -> Score {
    Score::zero(format!("answered `{}`, expected `{}`", excerpt(answer), excerpt(solution)))
}

/// Whether two choices have the same letter, alone or before its option, or are the same text but for case and spaces.
fn is_same_choice(answer: &str, solution: &str) -> bool {
    let plain = |text: &str| text.to_lowercase().replace(' ', "");
    match (choice_letter(answer), choice_letter(solution)) {
        (Some(found), Some(right)) => found == right,
        _ => plain(answer) == plain(solution),
    }
}

/// The letter that a text is or begins with, followed by a separator.
fn choice_letter(text: &str) -> Option<char> {
    let mut chars = text.trim().chars();
    let letter = chars.next().filter(char::is_ascii_alphabetic)?.to_ascii_uppercase();
    let separates = |char: char| ".,:;)".contains(char) || char.is_whitespace() && char != '\n';
    chars.next().is_none_or(separates).then_some(letter)
}

/// A finite number, with commas between thousands or not.
fn number(text: &str) -> Option<f64> {
    text.trim().replace(',', "").parse().ok().filter(|number: &f64| number.is_finite())
}

/// The JSON of an answer, in a code fence or not, with line breaks and quotes perhaps written out.
fn json(text: &str) -> Option<Value> {
    let text = text.trim().trim_start_matches("'''").trim_end_matches("'''").trim();
    let text = without_fence(text).replace("\\n", "\n").replace("\\\"", "\"");
    serde_json::from_str(&text).ok()
}

/// What an item of an answer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ItemShape {
    Point,
    PointWithDepth,
    Box,
}

impl ItemShape {
    fn example(self) -> &'static str {
        match self {
            Self::Point => "`[{\"point_2d\": [x, y]}]`",
            Self::PointWithDepth => "`[{\"point_2d\": [x, y], \"depth\": metres}]`",
            Self::Box => "`{\"boxes\": [x1, y1, x2, y2]}`",
        }
    }
}

/// An item of an answer that has its structure.
#[derive(Debug, Clone)]
struct Item {
    numbers: Vec<f64>,
    depth: Option<f64>,
}

impl Item {
    fn point(&self) -> Point {
        let at = |index: usize| self.numbers.get(index).copied().unwrap_or(f64::NAN);
        Point { place: Place { x: at(0), y: at(1) }, depth: self.depth }
    }

    fn rectangle(&self) -> Option<Rectangle> {
        let [x1, y1, x2, y2] = *self.numbers.as_slice() else { return None };
        Some(Rectangle { from: Place { x: x1, y: y1 }, to: Place { x: x2, y: y2 } })
    }
}

/// The items of an object or of a list of objects, at least one; `None` if one has another structure.
fn items(value: &Value, shape: ItemShape) -> Option<Vec<Item>> {
    let values = match value {
        Value::Array(values) => values.as_slice(),
        one => std::slice::from_ref(one),
    };
    let is_known = (1..=MAX_POINTS).contains(&values.len());
    let item = |value: &Value| item(value.as_object()?, shape);
    values.iter().map(item).collect::<Option<Vec<_>>>().filter(|_| is_known)
}

fn item(fields: &Map<String, Value>, shape: ItemShape) -> Option<Item> {
    let (key, count) = match shape {
        ItemShape::Point | ItemShape::PointWithDepth => ("point_2d", 2),
        ItemShape::Box => ("boxes", 4),
    };
    let numbers = numbers(fields.get(key)?).filter(|numbers| numbers.len() == count)?;
    let depth = match shape {
        ItemShape::PointWithDepth => Some(fields.get("depth")?.as_f64()?),
        _ => None,
    };
    Some(Item { numbers, depth })
}

#[cfg(test)]
mod tests;
