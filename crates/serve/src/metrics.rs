//! Prometheus metrics.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use embodied_r_media::embedding_cache::EmbeddingCache;
use embodied_r_policy::EngineStats;
use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder,
};

use crate::error::Result;

/// Buckets of the time to first token (TTFT), in seconds.
const FIRST_TOKEN_S: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0];
/// Buckets of the time per output token (TPOT), in seconds.
const TOKEN_S: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The response was sent.
    Completed,
    /// The client disconnected.
    Cancelled,
    /// The request was invalid.
    Refused,
    /// The queue, the memory for requests or the connections were at their limit.
    Overloaded,
    /// The server was shutting down.
    Stopping,
    /// The server failed.
    Failed,
}

impl Outcome {
    const ALL: [Self; 6] = [
        Self::Completed,
        Self::Cancelled,
        Self::Refused,
        Self::Overloaded,
        Self::Stopping,
        Self::Failed,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Cancelled => "cancelled",
            Self::Refused => "refused",
            Self::Overloaded => "overloaded",
            Self::Stopping => "stopping",
            Self::Failed => "failed",
        }
    }
}

/// All metrics.
pub(crate) struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    running: IntGauge,
    waiting: IntGauge,
    prompt_tokens: IntCounter,
    cached_tokens: IntCounter,
    generated_tokens: IntCounter,
    preemptions: IntCounter,
    cache_tokens: IntGauge,
    prefix_cache_tokens: IntGauge,
    cache_capacity: IntGauge,
    request_memory: IntGauge,
    embedding_hits: IntCounter,
    embedding_misses: IntCounter,
    first_token: Histogram,
    token: Histogram,
    /// Held while the metrics are set to the engine's stats, which concurrent requests may do.
    updates: Mutex<()>,
}

impl Metrics {
    pub(crate) fn new() -> Result<Self> {
        let registry = Registry::new();
        let name = |name: &str| format!("embodied_r_{name}");
        let counter = |of: &str, help: &str| -> Result<IntCounter> {
            let counter = IntCounter::new(name(of), help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let gauge = |of: &str, help: &str| -> Result<IntGauge> {
            let gauge = IntGauge::new(name(of), help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let histogram = |of: &str, help: &str, bounds: &[f64]| -> Result<Histogram> {
            let options = HistogramOpts::new(name(of), help).buckets(bounds.to_vec());
            let histogram = Histogram::with_opts(options)?;
            registry.register(Box::new(histogram.clone()))?;
            Ok(histogram)
        };
        let options = Opts::new(name("requests_total"), "Requests that have ended, by outcome.");
        let requests = IntCounterVec::new(options, &["outcome"])?;
        registry.register(Box::new(requests.clone()))?;
        for outcome in Outcome::ALL {
            requests.with_label_values(&[outcome.name()]).inc_by(0);
        }
        Ok(Self {
            requests,
            running: gauge("sequences_running", "Sequences in the engine's batch.")?,
            waiting: gauge("sequences_waiting", "Sequences admitted and waiting.")?,
            prompt_tokens: counter("prompt_tokens_total", "Prompt tokens computed.")?,
            cached_tokens: counter(
                "cached_prompt_tokens_total",
                "Prompt tokens found in the prefix cache.",
            )?,
            generated_tokens: counter("generated_tokens_total", "Tokens generated.")?,
            preemptions: counter(
                "preemptions_total",
                "Sequences preempted because the KV cache was full.",
            )?,
            cache_tokens: gauge(
                "kv_cache_tokens",
                "KV cache in use by running sequences, in tokens of whole pages.",
            )?,
            prefix_cache_tokens: gauge(
                "prefix_cache_tokens",
                "KV cache kept for prompts with the same prefix, in tokens; evicted when it is needed.",
            )?,
            cache_capacity: gauge(
                "kv_cache_capacity_tokens",
                "Capacity of the KV cache in tokens; 0 if unlimited.",
            )?,
            request_memory: gauge(
                "request_memory_bytes",
                "Memory of the requests that are received and parsed, in bytes.",
            )?,
            embedding_hits: counter(
                "embedding_cache_hits_total",
                "Images and videos whose embeddings were cached.",
            )?,
            embedding_misses: counter(
                "embedding_cache_misses_total",
                "Images and videos that were encoded.",
            )?,
            first_token: histogram(
                "time_to_first_token_seconds",
                "Time from a request's arrival to the first token of each completion.",
                &FIRST_TOKEN_S,
            )?,
            token: histogram(
                "time_per_output_token_seconds",
                "Time between two tokens of a completion.",
                &TOKEN_S,
            )?,
            registry,
            updates: Mutex::default(),
        })
    }

    pub(crate) fn ended(&self, outcome: Outcome) {
        self.requests.with_label_values(&[outcome.name()]).inc();
    }

    pub(crate) fn first_token(&self, after: Duration) {
        self.first_token.observe(after.as_secs_f64());
    }

    pub(crate) fn next_token(&self, after: Duration) {
        self.token.observe(after.as_secs_f64());
    }

    /// Updates the metrics from the engine's stats, whose counters only grow.
    pub(crate) fn engine(&self, stats: &EngineStats) {
        let gauge = |gauge: &IntGauge, value: usize| {
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        let counter = |counter: &IntCounter, value: u64| {
            counter.inc_by(value.saturating_sub(counter.get()));
        };
        let _update = self.updates.lock().unwrap_or_else(PoisonError::into_inner);
        gauge(&self.running, stats.running);
        gauge(&self.cache_tokens, stats.kv_cache_tokens);
        gauge(&self.prefix_cache_tokens, stats.prefix_cache_tokens);
        gauge(&self.cache_capacity, stats.kv_cache_capacity.unwrap_or(0));
        counter(&self.prompt_tokens, stats.prefilled_tokens);
        counter(&self.cached_tokens, stats.cached_tokens);
        counter(&self.generated_tokens, stats.generated_tokens);
        counter(&self.preemptions, stats.preemptions);
    }

    /// Updates the metric of the memory for requests.
    pub(crate) fn request_memory(&self, bytes: u64) {
        self.request_memory.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Updates the metrics of the embedding cache.
    pub(crate) fn embedding_cache(&self, cache: &EmbeddingCache) {
        let _update = self.updates.lock().unwrap_or_else(PoisonError::into_inner);
        for (counter, value) in
            [(&self.embedding_hits, cache.hits()), (&self.embedding_misses, cache.misses())]
        {
            counter.inc_by(value.saturating_sub(counter.get()));
        }
    }

    /// The metrics in Prometheus' text format, with `admitted` sequences running or waiting.
    ///
    /// # Errors
    /// A metric cannot be encoded.
    pub(crate) fn text(&self, admitted: usize) -> Result<String> {
        let admitted = i64::try_from(admitted).unwrap_or(i64::MAX);
        self.waiting.set((admitted - self.running.get()).max(0));
        Ok(TextEncoder::new().encode_to_string(&self.registry.gather())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_metrics_follow_the_engines_stats() {
        let metrics = Metrics::new().unwrap();
        let stats = EngineStats {
            running: 3,
            prefilled_tokens: 10,
            generated_tokens: 4,
            ..EngineStats::default()
        };
        metrics.engine(&stats);
        metrics.engine(&EngineStats { generated_tokens: 9, ..stats });
        metrics.ended(Outcome::Completed);
        metrics.first_token(Duration::from_millis(20));
        let text = metrics.text(5).unwrap();
        for line in [
            "embodied_r_sequences_running 3",
            "embodied_r_sequences_waiting 2",
            "embodied_r_prompt_tokens_total 10",
            "embodied_r_generated_tokens_total 9",
            "embodied_r_requests_total{outcome=\"completed\"} 1",
            "embodied_r_requests_total{outcome=\"cancelled\"} 0",
            "embodied_r_time_to_first_token_seconds_bucket{le=\"0.025\"} 1",
            "embodied_r_time_to_first_token_seconds_bucket{le=\"0.01\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "no `{line}` in\n{text}");
        }
    }
}
