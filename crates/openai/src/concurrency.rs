//! Adaptive limit on an endpoint's concurrent requests.

/// An AIMD limit, as in TCP congestion control: it halves on congestion and grows by one over as many
/// successful requests as it admits at a time (additive increase, multiplicative decrease).
#[derive(Debug)]
pub(crate) struct ConcurrencyLimit {
    max: f64,
    limit: f64,
    in_flight: usize,
    /// Counts the decreases. Requests sent before the last decrease say nothing about the current
    /// limit, so that sixteen concurrent 429 responses halve it once.
    generation: u64,
}

impl ConcurrencyLimit {
    /// Starts at `max` concurrent requests, at least 1, and never exceeds it.
    pub(crate) fn new(max: f64) -> Self {
        let max = max.max(1.0);
        Self { max, limit: max, in_flight: 0, generation: 0 }
    }

    /// Whether one more request may be sent now.
    pub(crate) fn has_capacity(&self) -> bool {
        (self.in_flight as f64) < self.limit.floor()
    }

    /// Counts a request as in flight. Returns the generation to pass to [`ConcurrencyLimit::increase`]
    /// or [`ConcurrencyLimit::decrease`].
    pub(crate) fn acquire(&mut self) -> u64 {
        self.in_flight += 1;
        self.generation
    }

    /// Ends a request, after its result was reported.
    pub(crate) fn release(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// A request succeeded.
    pub(crate) fn increase(&mut self, generation: u64) {
        if generation == self.generation {
            self.limit = (self.limit + 1.0 / self.limit).min(self.max);
        }
    }

    /// A request met congestion. Returns the new limit if it was decreased.
    pub(crate) fn decrease(&mut self, generation: u64) -> Option<usize> {
        if generation != self.generation {
            return None;
        }
        self.generation += 1;
        self.limit = (self.limit.min(self.in_flight as f64) / 2.0).max(1.0);
        Some(self.limit as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Acquires until the limit is reached.
    fn fill(limit: &mut ConcurrencyLimit) -> Vec<u64> {
        std::iter::from_fn(|| limit.has_capacity().then(|| limit.acquire())).collect()
    }

    fn complete(
        limit: &mut ConcurrencyLimit,
        generations: &[u64],
        mut report: impl FnMut(&mut ConcurrencyLimit, u64),
    ) {
        for &generation in generations {
            report(limit, generation);
            limit.release();
        }
    }

    #[test]
    fn it_starts_at_the_maximum() {
        assert_eq!(fill(&mut ConcurrencyLimit::new(7.0)).len(), 7);
        assert_eq!(fill(&mut ConcurrencyLimit::new(0.2)).len(), 1);
    }

    #[test]
    fn concurrent_congestion_halves_the_limit_once() {
        let mut limit = ConcurrencyLimit::new(16.0);
        let generations = fill(&mut limit);
        complete(&mut limit, &generations, |limit, generation| {
            limit.decrease(generation);
        });
        assert_eq!(fill(&mut limit).len(), 8);
    }

    #[test]
    fn it_never_falls_below_one() {
        let mut limit = ConcurrencyLimit::new(5.0);
        for _ in 0..9 {
            let generations = fill(&mut limit);
            complete(&mut limit, &generations, |limit, generation| {
                limit.decrease(generation);
            });
        }
        assert_eq!(fill(&mut limit).len(), 1);
    }

    #[test]
    fn successes_raise_it_by_one_a_round_up_to_the_maximum() {
        let mut limit = ConcurrencyLimit::new(8.0);
        let first = fill(&mut limit);
        limit.decrease(first[0]);
        complete(&mut limit, &first, |_, _| {});
        let mut admitted = Vec::new();
        for _ in 0..8 {
            let generations = fill(&mut limit);
            admitted.push(generations.len());
            complete(&mut limit, &generations, ConcurrencyLimit::increase);
        }
        assert_eq!(admitted[0], 4);
        assert_eq!(admitted[7], 8);
        assert!(admitted.windows(2).all(|pair| pair[1] - pair[0] <= 1), "{admitted:?}");
    }

    #[test]
    fn without_a_maximum_it_falls_to_half_of_the_requests_in_flight() {
        let mut limit = ConcurrencyLimit::new(f64::INFINITY);
        let generations: Vec<u64> = (0..10).map(|_| limit.acquire()).collect();
        assert_eq!(limit.decrease(generations[3]), Some(5));
    }
}
