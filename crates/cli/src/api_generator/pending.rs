//! The samples of questions that are not complete yet.

use std::cell::RefCell;

/// What is known of each question.
enum State {
    /// Its samples so far.
    Open(Vec<Option<String>>),
    /// A request failed.
    Failed,
    /// All samples were returned.
    Done,
}

/// Collects the samples of each question, which arrive in any order.
pub(super) struct Pending {
    questions: RefCell<Vec<State>>,
    samples: usize,
}

impl Pending {
    /// `questions` questions with `samples` samples each.
    pub(super) fn new(questions: usize, samples: usize) -> Self {
        let open = || State::Open(Vec::new());
        Self { questions: RefCell::new((0..questions).map(|_| open()).collect()), samples }
    }

    /// Whether a request of the question failed.
    pub(super) fn has_failed(&self, question: usize) -> bool {
        matches!(self.questions.borrow()[question], State::Failed)
    }

    /// Whether every question has all of its samples or has failed.
    pub(super) fn is_complete(&self) -> bool {
        !self.questions.borrow().iter().any(|state| matches!(state, State::Open(_)))
    }

    /// Gives up the question; false if it is given up already.
    pub(super) fn fail(&self, question: usize) -> bool {
        let state = &mut self.questions.borrow_mut()[question];
        !matches!(std::mem::replace(state, State::Failed), State::Failed)
    }

    /// Adds a sample. Returns all samples of the question, in order, once it is the last one.
    pub(super) fn add(&self, question: usize, sample: usize, text: String) -> Option<Vec<String>> {
        let state = &mut self.questions.borrow_mut()[question];
        let State::Open(samples) = state else { return None };
        samples.resize(self.samples, None);
        samples[sample] = Some(text);
        if samples.iter().any(Option::is_none) {
            return None;
        }
        let complete = std::mem::take(samples).into_iter().flatten().collect();
        *state = State::Done;
        Some(complete)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_returned_in_order_once_all_have_arrived() {
        let pending = Pending::new(2, 2);
        assert_eq!(pending.add(1, 1, "b".into()), None);
        assert_eq!(pending.add(0, 0, "other".into()), None);
        assert_eq!(pending.add(1, 0, "a".into()).unwrap(), ["a", "b"]);
    }

    #[test]
    fn a_failed_question_fails_once_and_takes_no_samples() {
        let pending = Pending::new(1, 1);
        assert!(!pending.has_failed(0) && !pending.is_complete());
        assert!(pending.fail(0) && pending.is_complete());
        assert!(!pending.fail(0) && pending.has_failed(0));
        assert_eq!(pending.add(0, 0, "late".into()), None);
    }
}
