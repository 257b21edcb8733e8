//! Reference answers of records in any format.

use serde_json::Value;

use crate::record::{Fault, json_type, scalar_text};

/// The keys of a point in an answer that points into an image, or of a list of them.
pub const POINT_KEYS: [&str; 7] =
    ["point_2d", "point", "points_2d", "points", "trace", "trajectory", "trace_2d"];
/// The keys of a box, or of a list of them.
pub const BOX_KEYS: [&str; 5] = ["bbox_2d", "boxes", "box_2d", "bbox", "box"];
/// The key of polygons in a reference answer.
const POLYGONS: &str = "segmentation";

/// The texts of the reference answer `value` in `field`: of several in a list, any counts. A list of numbers alone is one
/// answer, such as a position or a box; an empty list is none. What points into an image is one answer, as JSON: objects with
/// points, boxes or polygons, or lists of lists of numbers.
///
/// # Errors
/// It is neither text nor a number, nor points, nor a list of them.
pub(crate) fn answer_texts(field: &str, value: &Value) -> Result<Vec<String>, Fault> {
    if is_pointing(value) {
        return Ok(vec![value.to_string()]);
    }
    let text = |field: String, value: &Value| {
        let reason = || format!("must be a string or a number, not {}", json_type(value));
        scalar_text(value).ok_or_else(|| Fault { field, reason: reason() })
    };
    let Value::Array(values) = value else { return Ok(vec![text(field.to_owned(), value)?]) };
    let texts = values.iter().enumerate();
    let texts = texts.map(|(index, value)| text(format!("{field}[{index}]"), value));
    let texts: Vec<String> = texts.collect::<Result<_, _>>()?;
    match texts.len() > 1 && values.iter().all(Value::is_number) {
        true => Ok(vec![format!("[{}]", texts.join(", "))]),
        false => Ok(texts),
    }
}

/// Whether a value points into an image: an object, or a list of objects or of lists of numbers.
fn is_pointing(value: &Value) -> bool {
    let is_list = |value: &Value| {
        value.as_array().is_some_and(|it| !it.is_empty() && it.iter().all(Value::is_number))
    };
    match value {
        Value::Object(fields) => {
            let mut keys = POINT_KEYS.iter().chain(&BOX_KEYS).chain([&POLYGONS]);
            keys.any(|key| fields.contains_key(*key))
        }
        Value::Array(values) if !values.is_empty() => {
            values.iter().all(|value| is_list(value) || value.is_object() && is_pointing(value))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_answer_is_a_text_a_number_or_a_list_of_which_any_counts() {
        for (value, expected) in [
            (json!("A"), vec!["A"]),
            (json!(4), vec!["4"]),
            (json!(2.5), vec!["2.5"]),
            (json!(-0.5), vec!["-0.5"]),
            (json!(["4", "four"]), vec!["4", "four"]),
            (json!([4, "four"]), vec!["4", "four"]),
            (json!([4]), vec!["4"]),
            (json!([]), vec![]),
            (json!([0.5, -1, 2]), vec!["[0.5, -1, 2]"]),
            (json!([[1, 2], [3, 4.5]]), vec!["[[1,2],[3,4.5]]"]),
            (json!({"bbox": [1, 2, 3, 4]}), vec![r#"{"bbox":[1,2,3,4]}"#]),
            (json!({"boxes": [1, 2, 3, 4]}), vec![r#"{"boxes":[1,2,3,4]}"#]),
            (json!([{"point_2d": [1, 2], "count": 1}]), vec![r#"[{"point_2d":[1,2],"count":1}]"#]),
        ] {
            assert_eq!(answer_texts("answer", &value).unwrap(), expected, "{value}");
        }
    }

    #[test]
    fn other_types_are_named_with_their_place() {
        for (value, field, found) in [
            (json!(true), "answer", "a boolean"),
            (json!({"text": "A"}), "answer", "an object"),
            (json!(["A", ["B"]]), "answer[1]", "an array"),
            (json!([["B"]]), "answer[0]", "an array"),
            (json!([[]]), "answer[0]", "an array"),
            (json!([{"point_2d": [1, 2]}, {"text": "A"}]), "answer[0]", "an object"),
            (json!([null]), "answer[0]", "null"),
        ] {
            let fault = answer_texts("answer", &value).unwrap_err();
            let reason = format!("must be a string or a number, not {found}");
            assert_eq!(fault, Fault { field: field.to_owned(), reason });
        }
    }
}
