//! How many requests an endpoint is given at a time: less where it is overrun, more as it copes.

/// A limit that halves when the endpoint is overrun and grows by one over as many good replies as it
/// allows requests (additive increase, multiplicative decrease, as TCP has it).
#[derive(Debug)]
pub(crate) struct Pace {
    most: f64,
    limit: f64,
    in_flight: usize,
    /// Counts the falls. Requests that were sent before the last one tell nothing about the limit of
    /// now, so that sixteen refusals at once halve it once.
    round: u64,
}

impl Pace {
    /// Begins with `most` requests at a time, at least 1, which is never passed.
    pub(crate) fn new(most: f64) -> Self {
        let most = most.max(1.0);
        Self { most, limit: most, in_flight: 0, round: 0 }
    }

    /// Whether one more request may be sent now.
    pub(crate) fn has_room(&self) -> bool {
        (self.in_flight as f64) < self.limit.floor()
    }

    /// Takes a place; the round is what [`Pace::good`] and [`Pace::overrun`] want to know.
    pub(crate) fn begin(&mut self) -> u64 {
        self.in_flight += 1;
        self.round
    }

    /// Gives a place back, after what the reply meant was told.
    pub(crate) fn end(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// The endpoint coped with a request.
    pub(crate) fn good(&mut self, round: u64) {
        if round == self.round {
            self.limit = (self.limit + 1.0 / self.limit).min(self.most);
        }
    }

    /// The endpoint was overrun by a request. Returns the new limit where it fell.
    pub(crate) fn overrun(&mut self, round: u64) -> Option<usize> {
        if round != self.round {
            return None;
        }
        self.round += 1;
        self.limit = (self.limit.min(self.in_flight as f64) / 2.0).max(1.0);
        Some(self.limit as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As many requests as there is room for.
    fn fill(pace: &mut Pace) -> Vec<u64> {
        std::iter::from_fn(|| pace.has_room().then(|| pace.begin())).collect()
    }

    fn settle(pace: &mut Pace, rounds: &[u64], mut tell: impl FnMut(&mut Pace, u64)) {
        for &round in rounds {
            tell(pace, round);
            pace.end();
        }
    }

    #[test]
    fn it_begins_with_all_that_is_allowed() {
        assert_eq!(fill(&mut Pace::new(7.0)).len(), 7);
        assert_eq!(fill(&mut Pace::new(0.2)).len(), 1);
    }

    #[test]
    fn refusals_of_one_round_halve_the_limit_once() {
        let mut pace = Pace::new(16.0);
        let round = fill(&mut pace);
        settle(&mut pace, &round, |pace, round| {
            pace.overrun(round);
        });
        assert_eq!(fill(&mut pace).len(), 8);
    }

    #[test]
    fn it_falls_to_one_and_no_lower() {
        let mut pace = Pace::new(5.0);
        for _ in 0..9 {
            let round = fill(&mut pace);
            settle(&mut pace, &round, |pace, round| {
                pace.overrun(round);
            });
        }
        assert_eq!(fill(&mut pace).len(), 1);
    }

    #[test]
    fn good_replies_raise_it_by_one_a_round_up_to_the_most() {
        let mut pace = Pace::new(8.0);
        let first = fill(&mut pace);
        pace.overrun(first[0]);
        settle(&mut pace, &first, |_, _| {});
        let mut rooms = Vec::new();
        for _ in 0..8 {
            let round = fill(&mut pace);
            rooms.push(round.len());
            settle(&mut pace, &round, Pace::good);
        }
        assert_eq!(rooms[0], 4);
        assert_eq!(rooms[7], 8);
        assert!(rooms.windows(2).all(|pair| pair[1] - pair[0] <= 1), "{rooms:?}");
    }

    #[test]
    fn without_a_bound_it_falls_to_half_of_what_was_on_its_way() {
        let mut pace = Pace::new(f64::INFINITY);
        let round: Vec<u64> = (0..10).map(|_| pace.begin()).collect();
        assert_eq!(pace.overrun(round[3]), Some(5));
    }
}
