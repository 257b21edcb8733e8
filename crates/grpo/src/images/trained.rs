//! The embeddings of images under a vision tower that is trained, and its gradients.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::Tensor;
use embodied_r_kernels::memory;
use embodied_r_media::digests;
use embodied_r_media::error::Error;
use embodied_r_media::prefetch::Prefetch;
use embodied_r_media::table::ImageTable;
use embodied_r_policy::{GradientReadyHook, ImageEmbedder, Prompt};
use embodied_r_random::hash;
use embodied_r_vision::{Pixels, SavedTower, TowerGradients, TrainableTower};
use indexmap::IndexMap;

use crate::error::Result;

/// The images of the current step under a trained tower: each is encoded once per optimizer step, and its gradient, summed
/// over all prompts, goes through the tower once.
pub struct TrainedImages {
    table: Arc<ImageTable>,
    tower: TrainableTower,
    /// Bytes of activations that the forward passes of a step may save.
    activation_bytes: usize,
    step: Mutex<StepImages>,
    prefetch: Prefetch,
}

/// What the embeddings of images are computed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ImagePass {
    /// A pass without a backward.
    #[default]
    Forward,
    /// A pass that a backward follows.
    Training,
    /// A pass that a backward follows, with the dropout of this seed in adapters.
    Dropout(u64),
}

impl ImagePass {
    /// A pass that a backward through `tower` follows.
    #[must_use]
    pub fn training(tower: &TrainableTower, dropout_seed: u64) -> Self {
        match tower.has_dropout() {
            true => Self::Dropout(dropout_seed),
            false => Self::Training,
        }
    }

    fn drops(self) -> bool {
        matches!(self, Self::Dropout(_))
    }
}

/// The images of a step. All is valid until the weights change.
#[derive(Default)]
struct StepImages {
    /// By digest, and whether they have dropout.
    embeddings: HashMap<(u128, bool), Tensor>,
    /// What embeddings are asked for.
    pass: ImagePass,
    /// Forward passes for the backward, with the digests of their images.
    saved: Vec<(Vec<u128>, SavedTower)>,
    /// The patches of the images, for further passes.
    pixels: HashMap<u128, Arc<Pixels>>,
}

impl TrainedImages {
    /// The images of `table` under `tower`.
    #[must_use]
    pub fn new(table: Arc<ImageTable>, tower: TrainableTower, activation_bytes: usize) -> Self {
        let (step, prefetch) = (Mutex::default(), Prefetch::new(tower.device()));
        Self { table, tower, activation_bytes, step, prefetch }
    }

    /// The tower.
    #[must_use]
    pub fn tower(&self) -> &TrainableTower {
        &self.tower
    }

    /// The images.
    #[must_use]
    pub fn table(&self) -> &Arc<ImageTable> {
        &self.table
    }

    /// Gets the embeddings of all images of `prompts` under the weights of now. Those of training are kept for the backward,
    /// which repeats others. Those with dropout are others than those without.
    ///
    /// # Errors
    /// An image file has changed, or memory is short.
    pub fn prepare<'a>(
        &self,
        prompts: impl IntoIterator<Item = &'a Prompt>,
        pass: ImagePass,
    ) -> Result<()> {
        let mut step = locked(&self.step);
        let drops = pass.drops();
        step.pass = pass;
        let mut wanted = digests::of_prompts(prompts);
        let saved: Vec<u128> =
            step.saved.iter().flat_map(|(digests, _)| digests).copied().collect();
        // Those of an evaluation, for example, are not needed together.
        step.embeddings.retain(|(digest, _), _| wanted.contains(digest) || saved.contains(digest));
        step.pixels.retain(|digest, _| wanted.contains(digest) || saved.contains(digest));
        wanted.retain(|digest| !step.embeddings.contains_key(&(*digest, drops)));
        if wanted.is_empty() {
            return Ok(());
        }
        let pixels = self.pixels(&mut step, &wanted)?;
        let pixels: Vec<&Pixels> = pixels.iter().map(AsRef::as_ref).collect();
        let embeddings = if pass == ImagePass::Forward {
            self.tower.encoder()?.encode_pixels(&pixels)?
        } else {
            let (embeddings, saved) = self.forward(&wanted, &pixels, pass, &step.saved)?;
            step.saved.push((wanted.clone(), saved));
            embeddings
        };
        let wanted = wanted.into_iter().map(|digest| (digest, drops));
        step.embeddings.extend(wanted.zip(embeddings));
        Ok(())
    }

    /// A pass over images that a backward follows, as those that are `saved` already.
    fn forward(
        &self,
        digests: &[u128],
        pixels: &[&Pixels],
        pass: ImagePass,
        saved: &[(Vec<u128>, SavedTower)],
    ) -> Result<(Vec<Tensor>, SavedTower)> {
        let activation_bytes = self.activation_bytes.saturating_sub(activation_bytes(saved));
        Ok(match pass {
            ImagePass::Dropout(seed) => {
                let seeds: Vec<u64> = digests.iter().map(|it| seed_of(*it, seed)).collect();
                self.tower.forward_with_dropout(pixels, &seeds, activation_bytes)?
            }
            _ => self.tower.forward(pixels, activation_bytes)?,
        })
    }

    /// Bytes of activations that are saved for the backward of this step.
    #[must_use]
    pub fn saved_activation_bytes(&self) -> usize {
        activation_bytes(&locked(&self.step).saved)
    }

    /// Cuts the images of `prompts` into patches on threads of their own.
    pub fn prefetch<'a>(&self, prompts: impl IntoIterator<Item = &'a Prompt>) {
        self.prefetch.start(&self.table, digests::of_prompts(prompts));
    }

    fn pixels(&self, step: &mut StepImages, digests: &[u128]) -> Result<Vec<Arc<Pixels>>> {
        let missing: Vec<u128> =
            digests.iter().filter(|digest| !step.pixels.contains_key(digest)).copied().collect();
        let cut = self.prefetch.take(&self.table, &missing)?;
        step.pixels.extend(missing.into_iter().zip(cut.into_iter().map(Arc::new)));
        Ok(digests.iter().filter_map(|digest| step.pixels.get(digest).cloned()).collect())
    }

    /// Adds to `grads` the gradients through the tower of those of the embeddings, by digest.
    ///
    /// # Errors
    /// A gradient does not fit its image, or memory is short.
    pub fn backward(
        &self,
        mut d_embeddings: IndexMap<u128, Tensor>,
        grads: &mut TowerGradients,
        on_ready: &mut GradientReadyHook<'_>,
    ) -> Result<()> {
        let step = &mut *locked(&self.step);
        let mut passes = std::mem::take(&mut step.saved);
        passes.retain(|(digests, _)| digests.iter().any(|it| d_embeddings.contains_key(it)));
        let saved = |digest: &u128| passes.iter().any(|(digests, _)| digests.contains(digest));
        let repeated: Vec<u128> =
            d_embeddings.keys().filter(|digest| !saved(digest)).copied().collect();
        if !repeated.is_empty() {
            let pixels = self.pixels(step, &repeated)?;
            let pixels: Vec<&Pixels> = pixels.iter().map(AsRef::as_ref).collect();
            let (_, saved) = self.forward(&repeated, &pixels, step.pass, &passes)?;
            passes.push((repeated, saved));
        }
        while let Some((digests, saved)) = passes.pop() {
            let gradient = |digest: &u128| match d_embeddings.swap_remove(digest) {
                Some(gradient) => Ok(gradient),
                // An image of this pass whose groups are not trained on.
                None => {
                    let embeddings = step.embeddings.get(&(*digest, step.pass.drops()));
                    let embeddings = embeddings.ok_or(Error::UnknownImage { digest: *digest })?;
                    Ok(memory::zeros(embeddings.dims(), self.tower.device())?)
                }
            };
            let gradients: Vec<Tensor> = digests.iter().map(gradient).collect::<Result<_>>()?;
            let is_last = passes.is_empty();
            self.tower.backward(saved, &gradients, grads, &mut |from| {
                if is_last {
                    on_ready(from);
                }
            })?;
        }
        on_ready(0);
        Ok(())
    }

    /// Forgets what was computed under the weights so far.
    pub fn weights_changed(&self) {
        *locked(&self.step) = StepImages::default();
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn activation_bytes(saved: &[(Vec<u128>, SavedTower)]) -> usize {
    saved.iter().map(|(_, pass)| pass.activation_bytes()).sum()
}

/// The seed of an image's dropout masks in a step.
fn seed_of(digest: u128, step: u64) -> u64 {
    hash(hash(hash(step) ^ digest as u64) ^ (digest >> 64) as u64)
}

impl ImageEmbedder for TrainedImages {
    fn levels(&self) -> usize {
        self.table.processor().config().feature_levels()
    }

    fn embeddings(&self, digest: u128) -> embodied_r_policy::Result<Tensor> {
        let step = locked(&self.step);
        let found = step.embeddings.get(&(digest, step.pass.drops())).cloned();
        drop(step);
        let unknown =
            || embodied_r_policy::Error::Image { source: Box::new(Error::UnknownImage { digest }) };
        found.ok_or_else(unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropout_masks_are_those_of_an_image_in_a_step() {
        let high = 1_u128 << 100;
        let seeds = [seed_of(1, 1), seed_of(1, 2), seed_of(2, 1), seed_of(1 | high, 1)];
        for (index, seed) in seeds.iter().enumerate() {
            assert!(!seeds[..index].contains(seed), "{seeds:?}");
        }
        assert_eq!(seed_of(1, 2), seeds[1]);
    }
}
