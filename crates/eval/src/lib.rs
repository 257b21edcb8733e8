//! The benchmarks' own protocols and scores.
