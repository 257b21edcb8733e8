//! Which questions a step takes: a fresh permutation every epoch, found from the step alone.

use crate::random::{permutation, stream};

/// Keeps the sampler's random numbers apart from those of the rollouts.
const PURPOSE: u64 = 0x5a3b_1e00;

/// Keeps the items that stand in for others apart from those of the epochs.
const STAND_IN: u64 = 0x5a3b_1e01;

/// Deals the items `0..items` out to steps of `per_step`, epoch after epoch.
///
/// There is no state to save: the items of a step follow from the seed and the step's number. The
/// last items of an epoch that do not fill a step are left out of that epoch, as TRL does; another
/// permutation leaves others out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sampler {
    items: usize,
    per_step: usize,
    seed: u64,
}

impl Sampler {
    /// A sampler over `items`; `None` if they do not fill one step.
    pub fn new(items: usize, per_step: usize, seed: u64) -> Option<Self> {
        (per_step > 0 && items >= per_step).then_some(Self { items, per_step, seed })
    }

    /// Steps in one epoch.
    pub fn steps_per_epoch(&self) -> u64 {
        (self.items / self.per_step) as u64
    }

    /// The items of step `step`, counted from 0 over all epochs.
    pub fn batch(&self, step: u64) -> Vec<usize> {
        let epoch = step / self.steps_per_epoch();
        let within = (step % self.steps_per_epoch()) as usize;
        let order = permutation(self.items, stream(&[self.seed, PURPOSE, epoch]));
        order[within * self.per_step..(within + 1) * self.per_step].to_vec()
    }

    /// Up to `n` items that stand in for others of step `step`, none of them in `taken`: the next
    /// ones of an order that depends on the seed, the step and the number of the attempt.
    pub fn others(&self, step: u64, attempt: u64, n: usize, taken: &[usize]) -> Vec<usize> {
        let order = permutation(self.items, stream(&[self.seed, STAND_IN, step, attempt]));
        order.into_iter().filter(|item| !taken.contains(item)).take(n).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(sampler: &Sampler, epoch: u64) -> Vec<usize> {
        let steps = sampler.steps_per_epoch();
        (epoch * steps..(epoch + 1) * steps).flat_map(|step| sampler.batch(step)).collect()
    }

    #[test]
    fn an_epoch_takes_every_item_at_most_once_and_drops_only_the_rest() {
        let sampler = Sampler::new(11, 4, 42).unwrap();
        let mut items = epoch(&sampler, 0);
        items.sort_unstable();
        items.dedup();
        assert_eq!(items.len(), 8);
    }

    #[test]
    fn the_next_epoch_has_another_order() {
        let sampler = Sampler::new(64, 4, 42).unwrap();
        assert_ne!(epoch(&sampler, 0), epoch(&sampler, 1));
    }

    #[test]
    fn another_seed_gives_another_order() {
        let of = |seed| epoch(&Sampler::new(64, 4, seed).unwrap(), 0);
        assert_ne!(of(1), of(2));
    }

    #[test]
    fn a_resumed_sampler_goes_on_where_it_was_around_an_epoch_boundary() {
        let whole = Sampler::new(10, 3, 7).unwrap();
        let resumed = Sampler::new(10, 3, 7).unwrap();
        let expected: Vec<_> = (0..9).map(|step| whole.batch(step)).collect();
        for from in 2..5 {
            let found: Vec<_> = (from..9).map(|step| resumed.batch(step)).collect();
            assert_eq!(found, expected[from as usize..]);
        }
    }

    #[test]
    fn items_that_stand_in_are_new_and_follow_from_step_and_attempt() {
        let sampler = Sampler::new(20, 4, 7).unwrap();
        let taken = sampler.batch(3);
        let others = sampler.others(3, 1, 16, &taken);
        assert_eq!(others.len(), 16);
        assert!(others.iter().all(|item| !taken.contains(item)));
        assert_eq!(others, Sampler::new(20, 4, 7).unwrap().others(3, 1, 16, &taken));
        assert_ne!(others, sampler.others(3, 2, 16, &taken), "another attempt");
        assert_ne!(others, sampler.others(4, 1, 16, &taken), "another step");
    }

    #[test]
    fn no_more_items_stand_in_than_there_are() {
        let sampler = Sampler::new(5, 4, 7).unwrap();
        assert_eq!(sampler.others(0, 1, 3, &sampler.batch(0)).len(), 1);
        assert_eq!(sampler.others(0, 1, 3, &[0, 1, 2, 3, 4]), [0; 0]);
    }

    #[test]
    fn too_few_items_for_one_step_are_refused() {
        assert_eq!(Sampler::new(3, 4, 0), None);
        assert_eq!(Sampler::new(3, 0, 0), None);
    }
}
