//! The images and videos of a forward pass: their order in the tower and its attention windows.

use candle_core::{DType, Device, Tensor};
use embodied_r_kernels::attention::{GroupSpan, Heads, Pattern};
use embodied_r_kernels::rope::{CosSinCache, Frequencies, MropeSections};
use embodied_r_kernels::{embedding, memory};

use super::dropout::DropoutKeys;
use crate::config::VisionConfig;
use crate::error::{Error, Result};
use crate::family::{Taps, TowerRows};
use crate::grid::Grid;
use crate::processor::Pixels;

/// Patches per batch: enough to keep all threads busy.
const BATCH_PATCHES: usize = 1024;

/// The numbers of consecutive images that form a batch, from the numbers of their patches: as few images as have
/// [`BATCH_PATCHES`].
pub(crate) fn batch_lengths(patches: impl IntoIterator<Item = usize>) -> Vec<usize> {
    let (mut lengths, mut length, mut sum) = (Vec::new(), 0, 0);
    for patches in patches {
        (length, sum) = (length + 1, sum + patches);
        if sum >= BATCH_PATCHES {
            lengths.push(length);
            (length, sum) = (0, 0);
        }
    }
    lengths.extend((length > 0).then_some(length));
    lengths
}

/// The images and videos of a pass, and where their patches are.
pub(crate) struct Batch {
    grids: Vec<Grid>,
    /// Patches along a side of a token.
    merge: usize,
    /// The patch in each row.
    order: Vec<usize>,
    /// The row of each token.
    tokens: Vec<usize>,
    /// What is interpolated of learned positions.
    pub(crate) taps: Option<Taps>,
    pub(crate) pass: Pass,
}

/// The shared inputs of all blocks in a pass.
pub(crate) struct Pass {
    pub(crate) cos_sin: CosSinCache,
    windows: Vec<GroupSpan>,
    frames: Vec<GroupSpan>,
    pub(crate) heads: Heads,
    /// In training with dropout.
    dropout: Option<DropoutKeys>,
}

impl Pass {
    /// The dropout keys of the patches, if inputs of adapters are dropped.
    pub(crate) fn keys(&self) -> Option<&[u64]> {
        self.dropout.as_ref().map(|keys| &keys.patches[..])
    }

    /// Those of the merged tokens.
    pub(crate) fn token_keys(&self) -> Option<&[u64]> {
        self.dropout.as_ref().map(|keys| &keys.tokens[..])
    }

    /// The rows that attend to each other in a block with full attention, or in one with window attention.
    pub(crate) fn spans(&self, is_full: bool) -> &[GroupSpan] {
        if is_full { &self.frames } else { &self.windows }
    }

    pub(crate) fn pattern(&self) -> Pattern {
        Pattern { heads: self.heads, window: None, causal: false }
    }
}

impl Batch {
    /// # Errors
    /// [`Error::Patches`] if an image's patches do not match the tower's.
    pub(crate) fn new(images: &[&Pixels], config: &VisionConfig) -> Result<Self> {
        images.iter().try_for_each(|image| check(image, config))?;
        let grids: Vec<Grid> = images.iter().map(|image| image.grid).collect();
        let TowerRows { patches: order, tokens, position_ids, windows, frames, taps } =
            config.family().rows(config, &grids);
        let pairs = config.head_dim() / 4;
        let sections = MropeSections::consecutive([pairs, pairs, 0]);
        let frequencies = frequencies(config);
        let cos_sin = CosSinCache::multimodal(&position_ids, sections, &frequencies)?;
        let (heads, dim) = (config.num_heads, config.head_dim());
        let heads = Heads { query: heads, kv: heads, dim };
        let pass = Pass { cos_sin, windows, frames, heads, dropout: None };
        Ok(Self { grids, merge: config.spatial_merge_size, order, tokens, taps, pass })
    }

    /// With dropout in adapters, with a seed for each image.
    pub(crate) fn with_dropout(mut self, seeds: Option<&[u64]>) -> Self {
        let merged = self.merge * self.merge;
        let keys = |seeds| DropoutKeys::new(seeds, &self.grids, &self.order, merged);
        self.pass.dropout = seeds.map(keys);
        self
    }

    /// The patches of the images that the batch was made of, in the tower's order.
    ///
    /// # Shapes
    /// Returns (patches, elements per patch).
    pub(crate) fn patches(
        &self,
        images: &[&Pixels],
        device: &Device,
        dtype: DType,
    ) -> Result<Tensor> {
        let patches: Vec<&Tensor> = images.iter().map(|image| &image.patches).collect();
        let sorted = gathered(&patches, &self.order)?;
        // Patches come from the host. On a device, activations have the dtype of the weights.
        Ok(memory::to_device(&sorted, device)?
            .to_dtype(dtype)
            .map_err(embodied_r_kernels::Error::from)?)
    }

    /// The features of each image or video, in host memory.
    ///
    /// # Shapes
    /// `merged`: by level (tokens, hidden size of the decoder) in the tower's order; returns (levels · tokens of the image,
    /// hidden size).
    pub(crate) fn features(&self, mut merged: Vec<(usize, Tensor)>) -> Result<Vec<Tensor>> {
        merged.sort_by_key(|(level, _)| *level);
        let ordered = |(_, merged): &(usize, Tensor)| -> Result<Tensor> {
            Ok(memory::to_host(&embedding::gather(merged, &self.tokens)?)?)
        };
        let levels: Vec<Tensor> = merged.iter().map(ordered).collect::<Result<_>>()?;
        let mut first = 0;
        let of_grid = |grid: &Grid| -> Result<Tensor> {
            let start = first;
            first += grid.tokens(self.merge);
            let of_level = |level: &Tensor| memory::rows(level, start..first);
            match &levels[..] {
                [one] => Ok(of_level(one)?),
                _ => {
                    let parts = levels.iter().map(of_level);
                    let parts = parts.collect::<embodied_r_kernels::Result<Vec<_>>>()?;
                    Ok(memory::concat_rows(&parts.iter().collect::<Vec<_>>())?)
                }
            }
        };
        self.grids.iter().map(of_grid).collect()
    }

    /// The gradients of the merged tokens in the tower's order by level, from that of each image's features: the inverse of
    /// [`Self::features`].
    ///
    /// # Shapes
    /// Each of `d_features` (levels · tokens of the image, hidden size of the decoder); returns (tokens, hidden size) for
    /// each level.
    pub(crate) fn merged_gradients(
        &self,
        d_features: &[Tensor],
        levels: usize,
        device: &Device,
        dtype: DType,
    ) -> Result<Vec<Tensor>> {
        let merged = self.merge * self.merge;
        let tokens: Vec<usize> =
            self.order.iter().step_by(merged).map(|patch| patch / merged).collect();
        let of_level = |level: usize| -> Result<Tensor> {
            let parts = d_features.iter().zip(&self.grids).map(|(d, grid)| {
                let tokens = grid.tokens(self.merge);
                let d = d.narrow(0, level * tokens, tokens)?;
                memory::to_device(&d, device)
            });
            let parts = parts.collect::<embodied_r_kernels::Result<Vec<_>>>()?;
            let sorted = gathered(&parts.iter().collect::<Vec<_>>(), &tokens)?;
            Ok(sorted.to_dtype(dtype).map_err(embodied_r_kernels::Error::from)?)
        };
        (0..levels).map(of_level).collect()
    }

    /// The number of images and videos.
    pub(crate) fn len(&self) -> usize {
        self.grids.len()
    }
}

/// The rows `indices` of the concatenated matrices.
fn gathered(parts: &[&Tensor], indices: &[usize]) -> Result<Tensor> {
    Ok(match parts {
        [one] => embedding::gather(one, indices)?,
        _ => embedding::gather(&memory::concat_rows(parts)?, indices)?,
    })
}

fn check(image: &Pixels, config: &VisionConfig) -> Result<()> {
    let Grid { height, width, .. } = image.grid;
    let merge = config.spatial_merge_size;
    let whole = height.is_multiple_of(merge) && width.is_multiple_of(merge);
    let expected = [image.grid.patches(), config.patch_elements()];
    if !whole || image.patches.dims() != expected || image.grid.patches() == 0 {
        let found = image.patches.dims();
        let message = format!("the patches' shape must be {expected:?}, not {found:?}");
        return Err(Error::Patches(message));
    }
    Ok(())
}

/// The frequencies of a head's pairs: the first half rotates by the height, the second by the width.
fn frequencies(config: &VisionConfig) -> Frequencies {
    let pairs = config.head_dim() / 4;
    let inverse = |pair: usize| {
        let exponent = (2 * pair) as f32 / (2 * pairs) as f32;
        (config.theta().powf(f64::from(exponent)) as f32).recip()
    };
    let inverse: Vec<f32> = (0..pairs).map(inverse).collect();
    Frequencies { inv_freq: [inverse.clone(), inverse].concat(), attention_factor: 1.0 }
}
