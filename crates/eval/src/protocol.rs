//! A benchmark with the scorer that counts.

use crate::benchmark::{Benchmark, Scored, Scorer};
use crate::error::Result;
use crate::predictions::Prediction;

/// A benchmark and one of its scorers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Protocol {
    /// The benchmark.
    pub benchmark: &'static Benchmark,
    /// The scorer.
    pub scorer: &'static Scorer,
}

/// The benchmark with its default scorer.
impl From<&'static Benchmark> for Protocol {
    fn from(benchmark: &'static Benchmark) -> Self {
        Self { benchmark, scorer: &benchmark.scorer }
    }
}

impl Protocol {
    /// The benchmark with each of its scorers, the default one first.
    pub fn all(benchmark: &'static Benchmark) -> impl Iterator<Item = Self> {
        benchmark.scorers().map(move |scorer| Self { benchmark, scorer })
    }

    /// The score of one prediction. Missing and unparsable answers score 0.
    ///
    /// # Errors
    /// [`Error::Solution`](crate::Error::Solution) if the solution is not of the kind that its category requires.
    pub fn score_prediction(self, prediction: &Prediction) -> Result<Scored> {
        (self.scorer.score)(prediction)
    }
}

/// The benchmark called `name` with its default scorer.
#[cfg(test)]
pub(crate) fn named(name: &str) -> Protocol {
    crate::benchmarks::find(name).unwrap().into()
}

/// Every scorer of every benchmark.
#[cfg(test)]
pub(crate) fn all_protocols() -> Vec<Protocol> {
    crate::benchmarks::BENCHMARKS.into_iter().flat_map(Protocol::all).collect()
}

#[cfg(test)]
mod tests;
