//! Every scorer gives the scores of the harness that it names, on hard answers (`scripts/parity/make_benchmark_scores.py`).

#![allow(clippy::unwrap_used)]

use embodied_r_eval::predictions::PredictionOutput;
use embodied_r_eval::{Prediction, Protocol, benchmarks};
use serde::Deserialize;
use serde_json::{Map, Value, json};

#[derive(Deserialize)]
struct Cases {
    answers: Vec<String>,
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
struct Rule {
    benchmark: String,
    scorer: String,
    category: String,
    solution: String,
    options: Option<Vec<String>>,
    scores: Vec<f64>,
}

fn cases() -> Cases {
    serde_json::from_str(include_str!("fixtures/harness_scores.json")).unwrap()
}

impl Rule {
    fn protocol(&self) -> Protocol {
        let benchmark = benchmarks::find(&self.benchmark).unwrap();
        Protocol::all(benchmark).find(|protocol| protocol.scorer.name == self.scorer).unwrap()
    }

    fn prediction(&self, answer: &str) -> Prediction {
        let columns = self.options.iter().map(|options| ("options".to_owned(), json!(options)));
        Prediction {
            id: "1".to_owned(),
            category: self.category.clone(),
            solution: self.solution.clone(),
            columns: columns.collect::<Map<String, Value>>(),
            output: PredictionOutput::Answer(answer.to_owned()),
            ..Prediction::default()
        }
    }
}

#[test]
fn every_scorer_gives_its_harness_scores() {
    let Cases { answers, rules } = cases();
    assert!(answers.len() > 200 && rules.len() > 50);
    let mut wrong = String::new();
    for rule in &rules {
        assert_eq!(rule.scores.len(), answers.len());
        for (answer, expected) in answers.iter().zip(&rule.scores) {
            let scored = rule.protocol().score_prediction(&rule.prediction(answer)).unwrap();
            if (scored.score - expected).abs() > 1e-9 {
                let Rule { benchmark, scorer, solution, .. } = rule;
                wrong += &format!(
                    "{benchmark} {scorer}, solution {solution}: {answer:?} is {scored:?}, not {expected}\n"
                );
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn some_answers_are_right_and_others_wrong_by_each_rule() {
    for rule in cases().rules {
        let right = rule.scores.iter().filter(|score| **score > 0.0).count();
        let wrong = rule.scores.iter().filter(|score| **score == 0.0).count();
        assert!(right >= 1 && wrong >= 40, "{} {} {}", rule.benchmark, rule.scorer, rule.solution);
    }
}

#[test]
fn every_scorer_of_an_own_layout_is_compared() {
    let compared: Vec<Protocol> = cases().rules.iter().map(Rule::protocol).collect();
    let own = benchmarks::BENCHMARKS.into_iter().filter(|benchmark| benchmark.layout.is_some());
    for protocol in own.flat_map(Protocol::all) {
        let same = |other: &Protocol| {
            other.benchmark == protocol.benchmark && other.scorer.name == protocol.scorer.name
        };
        // `pointing_scores.rs` compares these.
        if ["where2place", "refspatial", "robospatial-home"].contains(&protocol.benchmark.name) {
            continue;
        }
        // The same functions as those of `vsi-bench`.
        let is_easi_of_debiased =
            protocol.benchmark.name == "vsi-bench-debiased" && protocol.scorer.name == "easi";
        assert!(
            compared.iter().any(same) || is_easi_of_debiased,
            "{} {}",
            protocol.benchmark.name,
            protocol.scorer.name
        );
    }
}
