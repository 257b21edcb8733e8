//! Points as answers write them.

use crate::extract::cursor::Cursor;
use crate::extract::json::json;
use crate::extract::pattern::is_word;
use crate::extract::python::{float, is_space, strip};
use crate::extract::value::Value;
use crate::pointing::mask::Mask;
use crate::pointing::pixel::Pixel;
use embodied_r_rewards::answer::decimal_digit;

pub(crate) mod easi;

/// How many points are shown to a reader.
const SHOWN: usize = 16;

/// The points of every `(x, y)` on 0 to 1: no space but behind the comma, tuples of other lengths are skipped.
pub(crate) fn tuples(answer: &str, mask: &Mask) -> Vec<Pixel> {
    let (width, height) = (mask.width() as f64, mask.height() as f64);
    let point = |numbers: Vec<&str>| match numbers.as_slice() {
        [x, y] => Some(Pixel::truncated(float(x)? * width, float(y)? * height)),
        _ => None,
    };
    written_tuples(answer).filter_map(point).collect()
}

/// The points of every `[x, y]` or `(x, y)`: on 0 to 1 if one of the numbers has a decimal point, else on 0 to 1000.
pub(crate) fn pairs(answer: &str, mask: &Mask) -> Vec<Pixel> {
    let (width, height) = (mask.width() as f64, mask.height() as f64);
    let starts = answer.match_indices(['[', '(']);
    let pairs = starts.filter_map(|(at, _)| written_pair(&answer[at + 1..]));
    let point = |(x, y): (&str, &str)| {
        let scale = if x.contains('.') || y.contains('.') { 1.0 } else { 1000.0 };
        Some(Pixel::truncated(float(x)? / scale * width, float(y)? / scale * height))
    };
    pairs.filter_map(point).collect()
}

/// The points of the JSON list in the first fenced block, on 0 to 1000: dictionaries with two numbers as `point_2d`.
pub(crate) fn fenced(answer: &str, mask: &Mask) -> Vec<Pixel> {
    let (width, height) = (mask.width() as f64, mask.height() as f64);
    let Some(Value::List(items)) = fenced_block(answer).and_then(|block| json(strip(block))) else {
        return Vec::new();
    };
    let point = |item: &Value| match item.get("point_2d")?.pair()? {
        (Value::Number(x), Value::Number(y)) => {
            Some(Pixel::truncated(x / 1000.0 * width, y / 1000.0 * height))
        }
        _ => None,
    };
    items.iter().filter_map(point).collect()
}

/// The points for a reader, or the first of them; `None` if there are none.
pub(crate) fn shown(points: &[Pixel]) -> Option<String> {
    let texts = points.iter().map(|point| format!("({}, {})", point.x, point.y));
    listed(texts.take(SHOWN).collect(), points.len())
}

/// The first texts of `count`.
fn listed(texts: Vec<String>, count: usize) -> Option<String> {
    let left_out =
        if count > texts.len() { format!(", … ({count} points)") } else { String::new() };
    (!texts.is_empty()).then(|| texts.join(", ") + &left_out)
}

/// The numbers of every tuple.
fn written_tuples(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.match_indices('(').filter_map(|(at, _)| written_tuple(&text[at + 1..]))
}

/// The numbers up to the closing bracket.
fn written_tuple(text: &str) -> Option<Vec<&str>> {
    let mut cursor = Cursor::new(text);
    let mut numbers = vec![number(&mut cursor)?];
    while cursor.take(",") {
        // The white space belongs to the number: `float` refuses some of it.
        let start = cursor.rest();
        cursor.take_while(is_space);
        number(&mut cursor)?;
        numbers.push(&start[..start.len() - cursor.rest().len()]);
    }
    cursor.take(")").then_some(numbers)
}

/// The two numbers up to a closing bracket.
fn written_pair(text: &str) -> Option<(&str, &str)> {
    let mut cursor = Cursor::new(text);
    cursor.take_while(is_space);
    let x = number(&mut cursor)?;
    cursor.take_while(is_space);
    if !cursor.take(",") {
        return None;
    }
    cursor.take_while(is_space);
    let y = number(&mut cursor)?;
    cursor.take_while(is_space);
    (cursor.take("]") || cursor.take(")")).then_some((x, y))
}

/// A number: an optional sign, digits of any script, an optional point and more digits.
fn number<'a>(cursor: &mut Cursor<'a>) -> Option<&'a str> {
    let is_digit = |char| decimal_digit(char).is_some();
    let start = cursor.rest();
    if !cursor.take("-") {
        cursor.take("+");
    }
    if cursor.take_while(is_digit).is_empty() {
        return None;
    }
    if cursor.take(".") {
        cursor.take_while(is_digit);
    }
    Some(&start[..start.len() - cursor.rest().len()])
}

/// What stands in the first fence that has a line break behind its opening, or behind the name of a language there.
fn fenced_block(text: &str) -> Option<&str> {
    let mut search = Cursor::new(text);
    while let Some(at) = search.rest().find("```") {
        let mut block = Cursor::new(&search.rest()[at + 3..]);
        block.take_while(is_word);
        if block.take("\n") {
            return block.rest().split_once("```").map(|(inner, _)| inner);
        }
        search = Cursor::new(&search.rest()[at + 1..]);
    }
    None
}

#[cfg(test)]
mod tests;
