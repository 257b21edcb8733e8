//! Pointing scorers give the scores of the harnesses, on hard answers and odd masks (`scripts/parity/make_pointing_scores.py`).

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use embodied_r_eval::predictions::PredictionOutput;
use embodied_r_eval::{Prediction, Protocol, benchmarks};
use serde_json::{Map, Value, json};

fn records(text: &str) -> Vec<Value> {
    serde_json::from_str(text).unwrap()
}

/// The masks by name.
fn masks() -> BTreeMap<String, Value> {
    let masks = records(include_str!("fixtures/pointing/masks.json"));
    masks.into_iter().map(|mask| (mask["name"].as_str().unwrap().to_owned(), mask)).collect()
}

/// Compares the scores of a benchmark with those of `text`; returns the number of cases by scorer.
fn compare(name: &str, text: &str) -> BTreeMap<String, usize> {
    let (masks, mut counts) = (masks(), BTreeMap::new());
    for record in records(text) {
        let scorer = record["scorer"].as_str().unwrap();
        let answer = record["answer"].as_str().unwrap();
        // The harness's own scorer gets what is left of these.
        let has_reasoning = answer.contains("</think>") || answer.contains("</analysis>");
        if has_reasoning && scorer != "easi" {
            continue;
        }
        let benchmark = benchmarks::find(name).unwrap();
        let protocol = Protocol::all(benchmark).find(|of| of.scorer.name == scorer).unwrap();
        let mut columns = Map::new();
        let mask = record["mask"].as_str().map(|mask| masks[mask].clone());
        columns.extend(mask.map(|mask| ("mask".to_owned(), mask)));
        if let size @ Value::Array(_) = &record["size"] {
            columns.insert("image_size".to_owned(), json!(size));
        }
        let prediction = Prediction {
            id: "1".to_owned(),
            solution: record["truth"].as_str().unwrap_or("mask").to_owned(),
            columns,
            output: PredictionOutput::Answer(answer.to_owned()),
            ..Prediction::default()
        };
        let found = protocol.score_prediction(&prediction).unwrap().score;
        match record["score"].as_f64() {
            Some(expected) => assert!((found - expected).abs() < 1e-12, "{found}, not {record}"),
            // The harness fails.
            None => assert!((0.0..=1.0).contains(&found), "{found}: {record}"),
        }
        *counts.entry(scorer.to_owned()).or_default() += 1;
    }
    counts
}

#[test]
fn scores_of_where2place_are_those_of_lmms_eval() {
    let counts = compare("where2place", include_str!("fixtures/pointing/where2place.json"));
    assert!(counts["official"] > 200 && counts["json"] > 200, "{counts:?}");
}

#[test]
fn scores_of_refspatial_are_those_of_both_harnesses() {
    let counts = compare("refspatial", include_str!("fixtures/pointing/refspatial.json"));
    assert!(counts["official"] > 200 && counts["easi"] > 400, "{counts:?}");
}

#[test]
fn scores_of_robospatial_are_those_of_both_harnesses() {
    let counts = compare("robospatial-home", include_str!("fixtures/pointing/robospatial.json"));
    assert!(counts["official"] > 200 && counts["easi"] > 300, "{counts:?}");
}
