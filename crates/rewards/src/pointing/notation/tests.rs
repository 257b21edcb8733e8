use proptest::prelude::*;

use super::*;

fn places(text: &str) -> Result<Vec<(f64, f64)>> {
    let found = points(text, Grid::default())?;
    Ok(found.iter().map(|point| (point.place.x, point.place.y)).collect())
}

#[test]
fn points_are_read_in_all_forms_in_use() {
    for text in [
        r#"[{"point_2d": [512, 300]}, {"point_2d": [20, 1000]}]"#,
        "```json\n[{\"point_2d\": [512, 300]}, {\"point_2d\": [20, 1000]}]\n```",
        "```\n[[512, 300], [20, 1000]]\n```",
        "```[[512, 300], [20, 1000]]```",
        r#"{"points": [[512, 300], [20, 1000]]}"#,
        r#"{"point": [[512.0, 3e2], [20, 1000]], "label": "mug (red)"}"#,
        "{'points_2d': [(512, 300), (20, 1000)]}",
        "[(512, 300), (20, 1000)]",
        "(512, 300), (20, 1000)",
        " ((512, 300),\n (20, 1000)) ",
        "[512, 300], [20, 1000]",
        "<point>512, 300</point><point>20, 1000</point>",
        "<point>(512, 300)</point>, <point>[20 1000]</point>",
        r#"<point x="512" y="300" alt="mug">mug</point> <point x="20" y="1000"/>"#,
    ] {
        assert_eq!(places(text), Ok(vec![(512.0, 300.0), (20.0, 1000.0)]), "{text}");
    }
    for text in ["[512, 300]", "(512, 300)", "512, 300", r#"{"point_2d": [512, 300]}"#] {
        assert_eq!(places(text), Ok(vec![(512.0, 300.0)]), "{text}");
    }
}

#[test]
fn anything_else_is_malformed() {
    let many = format!("[{}[1, 1]]", "[1, 1], ".repeat(10_000));
    for text in [
        "",
        "[]",
        "{}",
        "null",
        "512",
        "[512]",
        "[1, 2, 3, 4]",
        "[[1, 2], []]",
        "[[1, 2], 3]",
        "[[1, 2], null]",
        "[NaN, 3]",
        "[1e9, 3]",
        "[1e999, 3]",
        "[-1, 3]",
        "[1000.5, 3]",
        "[\"1\", \"2\"]",
        "the point is [1, 2]",
        "[1, 2] is the point",
        "[1, 2",
        r#"{"x": 1, "y": 2}"#,
        r#"{"point_2d": [1, 2], "points": [[1, 2]]}"#,
        r#"[{"point_2d": [1, 2]}, {"label": "mug"}]"#,
        r#"{"bbox_2d": [1, 2, 3, 4]}"#,
        "<point>1, 2",
        "<point>1, 2</point> and",
        "<point>1 2 x</point>",
        "<point>nan, 2</point>",
        r#"<point x="1">mug</point>"#,
        many.as_str(),
    ] {
        assert!(places(text).is_err(), "{}", &text[..text.len().min(80)]);
    }
    assert_eq!(places("[1, 1001]"), Err(NotationError::Outside(1.0, 1001.0)));
    assert_eq!(places(&many), Err(NotationError::TooMany));
}

#[test]
fn depths_are_numbers_of_metres() {
    let depths = |text: &str| {
        let found = points_with_depth(text, Grid::default())?;
        Result::Ok(found.iter().filter_map(|point| point.depth).collect::<Vec<_>>())
    };
    for text in [
        r#"[{"point_2d": [1, 2], "depth": 0.5}, {"point_2d": [3, 4], "depth": 2}]"#,
        "[[1, 2, 0.5], (3, 4, 2)]",
    ] {
        assert_eq!(depths(text), Ok(vec![0.5, 2.0]), "{text}");
    }
    for text in [
        r#"[{"point_2d": [1, 2], "depth": 0.5}, {"point_2d": [3, 4]}]"#,
        r#"{"point_2d": [1, 2], "depth": "near"}"#,
        r#"{"point_2d": [[1, 2], [3, 4]], "depth": 1}"#,
        "[1, 2, -0.5]",
        "[1, 2]",
    ] {
        assert!(depths(text).is_err(), "{text}");
    }
}

#[test]
fn boxes_are_read_in_all_forms_in_use() {
    let corners = |text: &str| {
        let found = boxes(text, Grid::default())?;
        Result::Ok(
            found.iter().map(|it| [it.from.x, it.from.y, it.to.x, it.to.y]).collect::<Vec<_>>(),
        )
    };
    for text in [
        r#"{"boxes": [1, 2, 30, 40]}"#,
        r#"[{"bbox_2d": [1, 2, 30, 40], "label": "mug"}]"#,
        r#"{"box_2d": [[1, 2, 30, 40]]}"#,
        "[1, 2, 30, 40]",
        "(1, 2, 30, 40)",
        "[[1, 2, 30, 40]]",
        "```json\n{\"bbox_2d\": [1, 2, 30, 40]}\n```",
        "1, 2, 30, 40",
    ] {
        assert_eq!(corners(text), Ok(vec![[1.0, 2.0, 30.0, 40.0]]), "{text}");
    }
    assert_eq!(corners("[1, 2, 3, 4], [5, 6, 7, 8]").unwrap().len(), 2);
    assert_eq!(corners("[30, 2, 1, 40]"), Err(NotationError::Corners));
    for text in ["", "[1, 2]", "[1, 2, 3, 4, 5]", "[1, 2, 3, 1e9]", "[]", r#"{"point_2d": [1, 2]}"#]
    {
        assert!(corners(text).is_err(), "{text}");
    }
}

proptest! {
    #[test]
    fn no_text_panics(text in "[-0-9., \\[\\](){}<>/a-z\"'\\\\é]{0,60}") {
        let _ = points(&text, Grid::default());
        let _ = boxes(&text, Grid::default());
    }

    #[test]
    fn points_are_read_as_they_are_written(pairs in prop::collection::vec((0.0..1000.0, 0.0..1000.0), 1..9)) {
        let json = serde_json::to_string(&pairs).unwrap();
        prop_assert_eq!(places(&json), Ok(pairs.clone()));
        let tuples: Vec<String> = pairs.iter().map(|(x, y)| format!("({x:?}, {y:?})")).collect();
        prop_assert_eq!(places(&tuples.join(", ")), Ok(pairs.clone()));
        let tags: String = pairs.iter().map(|(x, y)| format!("<point>{x:?} {y:?}</point>")).collect();
        prop_assert_eq!(places(&tags), Ok(pairs));
    }
}
