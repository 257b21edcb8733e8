//! Which checkpoints stay: the last ones, the best one, and one every so many epochs.

/// Which checkpoints of a run stay when a new one is written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Keep {
    /// How many of the last ones.
    pub last: usize,
    /// Which of the others for good.
    pub milestones: Option<Milestones>,
}

/// Steps at which a checkpoint is written and stays: the ends of every so many epochs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Milestones {
    steps: f64,
}

impl Milestones {
    /// Every `epochs` epochs of `steps_per_epoch` steps.
    pub fn new(epochs: f64, steps_per_epoch: u64) -> Self {
        Self { steps: epochs * steps_per_epoch as f64 }
    }

    /// Whether one lies after `step` steps: epochs that are no whole number of steps are rounded.
    pub fn at(&self, step: u64) -> bool {
        let number = (step as f64 / self.steps).round();
        number >= 1.0 && (number * self.steps).round() == step as f64
    }
}

impl Keep {
    /// Those of `steps`, ascending, that go; `best` is the step of the best evaluation.
    pub(super) fn too_many(&self, steps: &[u64], best: Option<u64>) -> Vec<u64> {
        let old = &steps[..steps.len().saturating_sub(self.last)];
        let stays = |step: u64| {
            Some(step) == best || self.milestones.is_some_and(|milestones| milestones.at(step))
        };
        old.iter().copied().filter(|&step| !stays(step)).collect()
    }

    /// Whether a checkpoint is due after `step` steps only so that it stays.
    pub fn milestone_at(&self, step: u64) -> bool {
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
    fn milestones_lie_at_the_ends_of_epochs() {
        assert_eq!(milestones(1.0, 4), [4, 8, 12]);
        assert_eq!(milestones(2.0, 3), [6, 12]);
        assert_eq!(milestones(0.5, 5), [3, 5, 8, 10], "2.5 and 7.5 are rounded");
        assert_eq!(milestones(0.1, 30), [3, 6, 9, 12], "0.1 * 30 is a little more than 3");
        assert_eq!(milestones(0.1, 1), (1..=12).collect::<Vec<_>>(), "no more than one a step");
    }

    #[test]
    fn the_last_the_best_and_the_milestones_stay() {
        let keep = |last, milestones| Keep { last, milestones };
        assert_eq!(keep(2, None).too_many(&[2, 4, 6, 8], None), [2, 4]);
        assert_eq!(keep(2, None).too_many(&[2, 4, 6, 8], Some(2)), [4]);
        let every = Some(Milestones::new(1.0, 4));
        assert_eq!(keep(1, every).too_many(&[2, 4, 6, 8, 10], Some(6)), [2]);
        assert_eq!(keep(9, None).too_many(&[2, 4], None), [0; 0]);
    }
}
