//! Checkpoint retention: the latest, the best, and milestones.

/// Which checkpoints are kept when a new one is written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetentionPolicy {
    /// Number of latest checkpoints.
    pub last: usize,
    /// Milestones that are never removed.
    pub milestones: Option<Milestones>,
}

/// Steps whose checkpoints are written and never removed: the end of every n-th epoch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Milestones {
    steps: f64,
}

impl Milestones {
    /// Every `epochs` epochs of `steps_per_epoch` steps.
    pub fn new(epochs: f64, steps_per_epoch: u64) -> Self {
        Self { steps: epochs * steps_per_epoch as f64 }
    }

    /// Whether step `step` is a milestone; fractional steps are rounded.
    pub fn at(&self, step: u64) -> bool {
        let number = (step as f64 / self.steps).round();
        number >= 1.0 && (number * self.steps).round() == step as f64
    }
}

impl RetentionPolicy {
    /// The checkpoints to remove out of `steps`, ascending; `best` is the step of the best evaluation.
    pub(super) fn expired(&self, steps: &[u64], best: Option<u64>) -> Vec<u64> {
        let old = &steps[..steps.len().saturating_sub(self.last)];
        let stays = |step: u64| {
            Some(step) == best || self.milestones.is_some_and(|milestones| milestones.at(step))
        };
        old.iter().copied().filter(|&step| !stays(step)).collect()
    }

    /// Whether step `step` is a milestone, which needs a checkpoint.
    pub fn is_milestone(&self, step: u64) -> bool {
        self.milestones.is_some_and(|milestones| milestones.at(step))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn milestones(epochs: f64, steps_per_epoch: u64) -> Vec<u64> {
        let milestones = Milestones::new(epochs, steps_per_epoch);
        (0..=12).filter(|&step| milestones.at(step)).collect()
    }

    #[test]
    fn milestones_are_at_the_ends_of_epochs() {
        assert_eq!(milestones(1.0, 4), [4, 8, 12]);
        assert_eq!(milestones(2.0, 3), [6, 12]);
        assert_eq!(milestones(0.5, 5), [3, 5, 8, 10], "2.5 and 7.5 are rounded");
        assert_eq!(milestones(0.1, 30), [3, 6, 9, 12], "0.1 * 30 is a little more than 3");
        assert_eq!(milestones(0.1, 1), (1..=12).collect::<Vec<_>>(), "no more than one a step");
    }

    #[test]
    fn the_latest_the_best_and_the_milestones_are_kept() {
        let keep = |last, milestones| RetentionPolicy { last, milestones };
        assert_eq!(keep(2, None).expired(&[2, 4, 6, 8], None), [2, 4]);
        assert_eq!(keep(2, None).expired(&[2, 4, 6, 8], Some(2)), [4]);
        let every = Some(Milestones::new(1.0, 4));
        assert_eq!(keep(1, every).expired(&[2, 4, 6, 8, 10], Some(6)), [2]);
        assert_eq!(keep(9, None).expired(&[2, 4], None), [0; 0]);
    }
}
