//! Forward passes of a trainable tower that support a backward pass.

use std::collections::HashSet;

use candle_core::Tensor;
use embodied_r_kernels::{linear, memory, thread_pool};
use embodied_r_policy::GradientReadyHook;

use super::backward::Numerics;
use super::tensors::GradientReach;
use super::{TowerGradients, TrainableTower};
use crate::error::{Error, Result};
use crate::layout::Stage;
use crate::processor::Pixels;
use crate::tower::{Activations, Batch, MergerActivations, Tower, batch_lengths};

/// What the backward of a forward pass needs: of the blocks and mergers that a gradient reaches, the inputs and the
/// mergers' activations, and the activations of as many blocks as its memory allows, from the last. The others are
/// recomputed from their inputs.
pub struct SavedTower {
    /// Of consecutive images, in order. Empty if every tensor is frozen.
    passes: Vec<SavedPass>,
    /// The number of rows of each image's features.
    rows: Vec<usize>,
}

/// A pass over some of the images.
struct SavedPass {
    batch: Batch,
    /// The images, if the patch embedding is trained; they share the caller's memory.
    images: Vec<Pixels>,
    /// From the lowest block with a gradient on.
    blocks: Vec<SavedBlock>,
    /// Those that a gradient has to reach, in the order of the forward pass.
    mergers: Vec<SavedMerger>,
}

struct SavedMerger {
    /// The level of the features that it gives.
    level: usize,
    /// The output of the block before it.
    input: Tensor,
    activations: MergerActivations,
}

struct SavedBlock {
    input: Tensor,
    activations: Option<Activations>,
}

impl SavedTower {
    /// The memory of the saved tensors in bytes, without the images' patches.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let of_merger = |merger: &SavedMerger| {
            let MergerActivations { stats, wide } = &merger.activations;
            bytes([stats, wide])
        };
        let of_pass = |pass: &SavedPass| {
            pass.input_bytes() + pass.mergers.iter().map(of_merger).sum::<usize>()
        };
        self.passes.iter().map(of_pass).sum::<usize>() + self.activation_bytes()
    }

    /// The part of it for activations that are not recomputed.
    #[must_use]
    pub fn activation_bytes(&self) -> usize {
        let blocks = self.passes.iter().flat_map(|pass| &pass.blocks);
        blocks.filter_map(|block| block.activations.as_ref()).map(Activations::bytes).sum()
    }
}

impl SavedPass {
    /// Memory of the inputs of blocks and mergers. A merger shares its input with the block behind it and with other
    /// mergers.
    fn input_bytes(&self) -> usize {
        let blocks = self.blocks.iter().map(|block| &block.input);
        let inputs = blocks.chain(self.mergers.iter().map(|merger| &merger.input));
        let mut counted = HashSet::new();
        inputs.filter(|input| counted.insert(input.id())).map(|input| bytes([input])).sum()
    }
}

impl Activations {
    fn bytes(&self) -> usize {
        let Self { attention, middle, feed_forward } = self;
        let [q, k, v] = &attention.qkv;
        let attended = &attention.attended;
        let wide: usize = feed_forward.wide.iter().map(|wide| bytes([wide])).sum();
        bytes([&attention.stats, q, k, v, &attended.out, &attended.log_sum_exp])
            + bytes([middle, &feed_forward.stats])
            + wide
    }
}

fn bytes<const N: usize>(tensors: [&Tensor; N]) -> usize {
    tensors.iter().map(|tensor| tensor.elem_count() * tensor.dtype().size_in_bytes()).sum()
}

impl TrainableTower {
    /// The features of each image or video, in host memory, as [`VisionEncoder`](crate::VisionEncoder) computes
    /// them, to the bit. They do not depend on the other images. Up to `activation_bytes` of activations are saved,
    /// besides what is always saved ([`crate::TowerBytes::inputs`]).
    ///
    /// # Shapes
    /// Returns (levels · tokens, hidden size of the decoder) for each.
    ///
    /// # Errors
    /// [`Error::Patches`] if an image's patches do not match the tower's.
    pub fn forward(
        &self,
        images: &[&Pixels],
        activation_bytes: usize,
    ) -> Result<(Vec<Tensor>, SavedTower)> {
        self.forward_seeded(images, None, activation_bytes)
    }

    /// [`Self::forward`] with the dropout of adapters' inputs: masks follow from the `seeds`, one for each image.
    ///
    /// # Errors
    /// As [`Self::forward`], and [`Error::Patches`] unless there is a seed for each image.
    pub fn forward_with_dropout(
        &self,
        images: &[&Pixels],
        seeds: &[u64],
        activation_bytes: usize,
    ) -> Result<(Vec<Tensor>, SavedTower)> {
        if seeds.len() != images.len() {
            let message = format!("{} images have {} seeds", images.len(), seeds.len());
            return Err(Error::Patches(message));
        }
        self.forward_seeded(images, Some(seeds).filter(|_| self.has_dropout()), activation_bytes)
    }

    fn forward_seeded(
        &self,
        images: &[&Pixels],
        seeds: Option<&[u64]>,
        activation_bytes: usize,
    ) -> Result<(Vec<Tensor>, SavedTower)> {
        let tower = self.tower()?;
        let reach = self.tensors.gradient_reach();
        let patches = images.iter().map(|image| image.grid.patches());
        let block =
            patches.clone().sum::<usize>() * self.config().block_bytes_per_patch(tower.dtype());
        let saved_blocks = activation_bytes / block.max(1);
        let first_saved = self.config().depth.saturating_sub(saved_blocks);
        let mut saved = SavedTower { passes: Vec::new(), rows: Vec::new() };
        let mut embeddings = Vec::with_capacity(images.len());
        let (mut left, mut seeds) = (images, seeds);
        thread_pool::with_spinning_workers(self.device(), || {
            for length in batch_lengths(patches) {
                let (images, rest) = left.split_at(length);
                left = rest;
                let seeded = seeds.map(|seeds| seeds.split_at(length.min(seeds.len())));
                seeds = seeded.map(|(_, rest)| rest);
                if reach.is_empty() {
                    embeddings.extend(tower.forward(images)?);
                    continue;
                }
                let batch = Batch::new(images, self.config())?;
                let batch = batch.with_dropout(seeded.map(|(seeds, _)| seeds));
                let parts = (&reach, first_saved);
                let (of_batch, pass) = self.forward_batch(&tower, images, batch, parts)?;
                embeddings.extend(of_batch);
                saved.passes.push(pass);
            }
            Ok::<_, Error>(())
        })?;
        saved.rows = embeddings.iter().map(|features: &Tensor| features.dims()[0]).collect();
        Ok((embeddings, saved))
    }

    /// A pass over some of the images, a `batch`. Blocks from `first_saved` on save their activations.
    fn forward_batch(
        &self,
        tower: &Tower,
        images: &[&Pixels],
        batch: Batch,
        (reach, first_saved): (&GradientReach, usize),
    ) -> Result<(Vec<Tensor>, SavedPass)> {
        let mut x = tower.embed(images, &batch)?;
        let (mut blocks, mut mergers, mut merged) = (Vec::new(), Vec::new(), Vec::new());
        let width = self.config().patches_per_token();
        for (index, block) in tower.modules.blocks.iter().enumerate() {
            let is_full = self.config().family().is_full(index);
            if !reach.has(Stage::block(index)) {
                x = block.forward(x, &batch.pass, is_full)?;
            } else if index < first_saved {
                blocks.push(SavedBlock { input: x.clone(), activations: None });
                x = block.forward(x, &batch.pass, is_full)?;
            } else {
                let (y, activations) = block.forward_saving(&x, &batch.pass, is_full)?;
                blocks.push(SavedBlock { input: x, activations: Some(activations) });
                x = y;
            }
            for (level, merger) in tower.mergers_behind(index) {
                let (y, activations) = merger.forward(&x, width, batch.pass.token_keys())?;
                merged.push((level, y));
                if reach.has(Stage::mergers(index)) {
                    mergers.push(SavedMerger { level, input: x.clone(), activations });
                }
            }
            self.call_layer_hook();
        }
        let images = match reach.has(Stage::PATCHES) {
            true => images.iter().map(|image| (*image).clone()).collect(),
            false => Vec::new(),
        };
        let features = batch.features(merged)?;
        Ok((features, SavedPass { batch, images, blocks, mergers }))
    }

    /// Adds to `grads` the gradient of `Σ d_embeddings · embeddings` with respect to every trained tensor. It passes only
    /// blocks and mergers that it has to. The tensors must be those of the forward pass: step the optimizer afterwards.
    ///
    /// The last images come first, each batch from the last block to the first. `on_ready` is called as gradients become
    /// final: with all gradients flattened in the order of [`Self::parameters`], those from this index on are.
    ///
    /// # Shapes
    /// `d_embeddings`: as the embeddings, on any device.
    ///
    /// # Errors
    /// [`Error::Gradients`] unless there is a gradient of the right shape for each image.
    pub fn backward(
        &self,
        saved: SavedTower,
        d_embeddings: &[Tensor],
        grads: &mut TowerGradients,
        on_ready: &mut GradientReadyHook<'_>,
    ) -> Result<()> {
        self.check_gradients(&saved, d_embeddings)?;
        let reach = self.tensors.gradient_reach();
        if reach.is_empty() {
            on_ready(0);
            return Ok(());
        }
        let tower = self.tower()?;
        let SavedTower { mut passes, .. } = saved;
        let mut end = d_embeddings.len();
        thread_pool::with_spinning_workers(self.device(), || {
            while let Some(pass) = passes.pop() {
                let d_embeddings = &d_embeddings[end - pass.batch.len()..end];
                end -= pass.batch.len();
                let is_last = passes.is_empty();
                self.backward_batch(&tower, pass, d_embeddings, &reach, grads, &mut |stage| {
                    if is_last {
                        on_ready(self.tensors.first_final(stage));
                    }
                })?;
            }
            Ok::<_, Error>(())
        })?;
        on_ready(0);
        Ok(())
    }

    /// The backward of a pass over some of the images; calls `after` after each stage.
    fn backward_batch(
        &self,
        tower: &Tower,
        saved: SavedPass,
        d_embeddings: &[Tensor],
        reach: &GradientReach,
        grads: &TowerGradients,
        after: &mut dyn FnMut(Stage),
    ) -> Result<()> {
        let (weights, all_grads) = (&self.modules.others, &grads.modules);
        let grads = &all_grads.others;
        let SavedPass { batch, images, mut blocks, mut mergers } = saved;
        let (device, dtype) = (tower.device(), tower.dtype());
        let levels = weights.mergers.len();
        let d_merged = batch.merged_gradients(d_embeddings, levels, device, dtype)?;
        let width = self.config().patches_per_token();
        let mut dx: Option<Tensor> = None;
        for index in (0..self.config().depth).rev() {
            let mut has_mergers = false;
            while let Some(SavedMerger { level, input, activations }) =
                mergers.pop_if(|merger| weights.mergers[merger.level].after == index)
            {
                let d_input = match &dx {
                    Some(dx) => dx.clone(),
                    None => memory::zeros_like(&input)?,
                };
                let numerics = self.numerics(batch.pass.token_keys());
                let (merger, grads) = (&weights.mergers[level], &grads.mergers[level]);
                let at = (&input, &d_input);
                merger.backward(at, width, activations, &d_merged[level], grads, numerics)?;
                dx = Some(d_input);
                has_mergers = true;
            }
            if has_mergers {
                after(Stage::mergers(index));
            }
            let (Some(block_dx), Some(SavedBlock { input, activations })) =
                (dx.take(), blocks.pop())
            else {
                continue;
            };
            let pass = (&batch.pass, self.config().family().is_full(index));
            let activations = match activations {
                Some(activations) => activations,
                None => tower.modules.blocks[index].activations(&input, pass.0, pass.1)?,
            };
            let (block, grads) = (&weights.blocks[index], &grads.blocks[index]);
            let numerics = self.numerics(batch.pass.keys());
            dx = Some(block.backward(&input, activations, block_dx, grads, pass, numerics)?);
            after(Stage::block(index));
            self.call_layer_hook();
        }
        let Some(dx) = dx.filter(|_| reach.has(Stage::PATCHES)) else { return Ok(()) };
        if let (Some(taps), Some(Some(d_positions))) = (&batch.taps, &grads.positions) {
            taps.add_gradient(&dx, d_positions)?;
        }
        if let Some(Some(d_bias)) = &grads.patch_bias {
            linear::backward_bias(&dx, d_bias)?;
        }
        if let Some(d_patches) = &all_grads.patches {
            let images: Vec<&Pixels> = images.iter().collect();
            let patches = batch.patches(&images, device, dtype)?;
            linear::backward_weight(&patches, &dx, d_patches, None, self.precision)?;
        }
        Ok(())
    }

    fn check_gradients(&self, saved: &SavedTower, d_embeddings: &[Tensor]) -> Result<()> {
        let width = self.config().out_hidden_size;
        let expected: Vec<[usize; 2]> = saved.rows.iter().map(|rows| [*rows, width]).collect();
        let found: Vec<&[usize]> = d_embeddings.iter().map(Tensor::dims).collect();
        if expected != found {
            let message = format!(
                "the shapes of the embeddings' gradients must be {expected:?}, not {found:?}"
            );
            return Err(Error::Gradients(message));
        }
        Ok(())
    }

    fn numerics<'a>(&self, keys: Option<&'a [u64]>) -> Numerics<'a> {
        let (precision, lora_scale) = (self.precision, self.tensors.lora_scale());
        Numerics { precision, lora_scale, lora_dropout: self.tensors.dropout(0).p, keys }
    }

    fn call_layer_hook(&self) {
        if let Some(layer_hook) = self.layer_hook.get() {
            layer_hook();
        }
    }
}
