//! Batch sampling: a fresh permutation per epoch, computed from the step alone.

use embodied_r_random::{permutation, stream};

/// Separates the sampler's random stream from that of the rollouts.
const PURPOSE: u64 = 0x5a3b_1e00;

/// Separates the stream of replacement items from that of the epochs.
const REPLACEMENTS: u64 = 0x5a3b_1e01;

/// Assigns the items `0..items` to steps of `per_step`, epoch after epoch.
///
/// It is stateless: the items of a step depend only on the seed and the step. As in TRL, the last incomplete batch of
/// an epoch is dropped; each epoch's permutation drops others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchSampler {
    items: usize,
    per_step: usize,
    seed: u64,
}

impl BatchSampler {
    /// A sampler over `items`; `None` if they do not fill one batch.
    pub fn new(items: usize, per_step: usize, seed: u64) -> Option<Self> {
        (per_step > 0 && items >= per_step).then_some(Self { items, per_step, seed })
    }

    /// Steps per epoch.
    pub fn steps_per_epoch(&self) -> u64 {
        (self.items / self.per_step) as u64
    }

    /// The items of step `step`, from 0 over all epochs.
    pub fn batch(&self, step: u64) -> Vec<usize> {
        let epoch = step / self.steps_per_epoch();
        let within = (step % self.steps_per_epoch()) as usize;
        let order = permutation(self.items, stream(&[self.seed, PURPOSE, epoch]));
        order[within * self.per_step..(within + 1) * self.per_step].to_vec()
    }

    /// Up to `n` replacement items for step `step`, none of them in `taken`, from a permutation seeded by the step and
    /// the attempt.
    pub fn replacements(&self, step: u64, attempt: u64, n: usize, taken: &[usize]) -> Vec<usize> {
        let order = permutation(self.items, stream(&[self.seed, REPLACEMENTS, step, attempt]));
        order.into_iter().filter(|item| !taken.contains(item)).take(n).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(sampler: &BatchSampler, epoch: u64) -> Vec<usize> {
        let steps = sampler.steps_per_epoch();
        (epoch * steps..(epoch + 1) * steps).flat_map(|step| sampler.batch(step)).collect()
    }

    #[test]
    fn an_epoch_takes_every_item_at_most_once_and_drops_only_the_incomplete_batch() {
        let sampler = BatchSampler::new(11, 4, 42).unwrap();
        let mut items = epoch(&sampler, 0);
        items.sort_unstable();
        items.dedup();
        assert_eq!(items.len(), 8);
    }

    #[test]
    fn the_next_epoch_has_another_order() {
        let sampler = BatchSampler::new(64, 4, 42).unwrap();
        assert_ne!(epoch(&sampler, 0), epoch(&sampler, 1));
    }

    #[test]
    fn another_seed_gives_another_order() {
        let of = |seed| epoch(&BatchSampler::new(64, 4, seed).unwrap(), 0);
        assert_ne!(of(1), of(2));
    }

    #[test]
    fn a_resumed_sampler_continues_across_an_epoch_boundary() {
        let whole = BatchSampler::new(10, 3, 7).unwrap();
        let resumed = BatchSampler::new(10, 3, 7).unwrap();
        let expected: Vec<_> = (0..9).map(|step| whole.batch(step)).collect();
        for from in 2..5 {
            let found: Vec<_> = (from..9).map(|step| resumed.batch(step)).collect();
            assert_eq!(found, expected[from as usize..]);
        }
    }

    #[test]
    fn replacements_are_new_and_depend_on_step_and_attempt() {
        let sampler = BatchSampler::new(20, 4, 7).unwrap();
        let taken = sampler.batch(3);
        let replacements = sampler.replacements(3, 1, 16, &taken);
        assert_eq!(replacements.len(), 16);
        assert!(replacements.iter().all(|item| !taken.contains(item)));
        assert_eq!(
            replacements,
            BatchSampler::new(20, 4, 7).unwrap().replacements(3, 1, 16, &taken)
        );
        assert_ne!(replacements, sampler.replacements(3, 2, 16, &taken), "another attempt");
        assert_ne!(replacements, sampler.replacements(4, 1, 16, &taken), "another step");
    }

    #[test]
    fn there_are_at_most_as_many_replacements_as_unused_items() {
        let sampler = BatchSampler::new(5, 4, 7).unwrap();
        assert_eq!(sampler.replacements(0, 1, 3, &sampler.batch(0)).len(), 1);
        assert_eq!(sampler.replacements(0, 1, 3, &[0, 1, 2, 3, 4]), [0; 0]);
    }

    #[test]
    fn too_few_items_for_one_step_are_refused() {
        assert_eq!(BatchSampler::new(3, 4, 0), None);
        assert_eq!(BatchSampler::new(3, 0, 0), None);
    }
}
