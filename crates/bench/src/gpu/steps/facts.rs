//! Facts.

use std::time::Instant;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::gpu::step::Step;

/// A fact's value.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Value {
    /// A number; JSON has `null` for one that is not finite.
    Number(f64),
    /// A name or a version.
    Text(String),
}

/// A value that was measured or checked.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Fact {
    /// Its step.
    pub step: Step,
    /// What it is.
    pub fact: String,
    /// Its value.
    pub value: Value,
    /// Of the value; for a checked one with the bound.
    pub unit: String,
    /// Whether a checked value is within its bound; whether a measured one is finite.
    pub ok: bool,
    /// Since the step began.
    pub seconds: f64,
}

/// Gives out the facts of a step.
pub(super) struct Facts<'a> {
    step: Step,
    began: Instant,
    is_rank_zero: bool,
    on_fact: &'a mut dyn FnMut(&Fact) -> std::io::Result<()>,
}

impl<'a> Facts<'a> {
    pub(super) fn new(
        step: Step,
        is_rank_zero: bool,
        on_fact: &'a mut dyn FnMut(&Fact) -> std::io::Result<()>,
    ) -> Self {
        Self { step, began: Instant::now(), is_rank_zero, on_fact }
    }

    /// A measured number.
    pub(super) fn measured(
        &mut self,
        fact: impl Into<String>,
        value: f64,
        unit: &str,
    ) -> Result<()> {
        self.give(fact.into(), Value::Number(value), unit.into(), value.is_finite())
    }

    /// A number that must not exceed `bound`.
    pub(super) fn bounded(
        &mut self,
        fact: impl Into<String>,
        value: f64,
        bound: f64,
    ) -> Result<()> {
        let unit = format!("at most {bound:.2e}");
        self.give(fact.into(), Value::Number(value), unit, value <= bound)
    }

    /// A name or a version.
    pub(super) fn text(&mut self, fact: impl Into<String>, value: impl Into<String>) -> Result<()> {
        self.give(fact.into(), Value::Text(value.into()), String::new(), true)
    }

    /// The last fact of a step: a step without it did not finish.
    pub(super) fn finish(mut self) -> Result<()> {
        let took = self.began.elapsed().as_secs_f64();
        self.measured("finished", took, "s")
    }

    /// Six significant digits of a number are enough.
    fn give(&mut self, fact: String, value: Value, unit: String, ok: bool) -> Result<()> {
        if !self.is_rank_zero {
            return Ok(());
        }
        let value = match value {
            Value::Number(number) => {
                Value::Number(format!("{number:.5e}").parse().unwrap_or(number))
            }
            text @ Value::Text(_) => text,
        };
        let seconds = (self.began.elapsed().as_secs_f64() * 1e3).round() / 1e3;
        let fact = Fact { step: self.step, fact, value, unit, ok, seconds };
        (self.on_fact)(&fact).map_err(Error::Output)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fact_is_a_line_with_the_keys_of_the_script() {
        let mut lines = Vec::new();
        let mut keep = |fact: &Fact| {
            lines.push(serde_json::to_value(Fact { seconds: 0.5, ..fact.clone() }).unwrap());
            Ok(())
        };
        let mut facts = Facts::new(Step::AllReduce, true, &mut keep);
        facts.measured("time", f64::NAN, "s").unwrap();
        facts.measured("rate", 123_456.789, "tokens/s").unwrap();
        facts.bounded("error", 2.0, 1.0).unwrap();
        facts.text("device", "H200").unwrap();
        let of = |fact, value, unit, ok| {
            serde_json::json!({
                "step": "all-reduce", "fact": fact, "value": value, "unit": unit, "ok": ok, "seconds": 0.5,
            })
        };
        let expected = [
            of("time", serde_json::Value::Null, "s", false),
            of("rate", 123_457.0.into(), "tokens/s", true),
            of("error", 2.0.into(), "at most 1.00e0", false),
            of("device", "H200".into(), "", true),
        ];
        assert_eq!(lines, expected);
        let mut none = |_: &Fact| -> std::io::Result<()> { panic!("another rank") };
        Facts::new(Step::Check, false, &mut none).finish().unwrap();
    }
}
