//! A model's trainable elements, flattened, split into buckets and sharded over the ranks (ZeRO-1, Rajbhandari et al.,
//! 2020).

use std::ops::Range;

use candle_core::{Device, Tensor};
use embodied_r_kernels::device::has_kernels;
use embodied_r_kernels::memory::{self, floats};

use crate::error::{Error, Result};

const OP: &str = "shard";

/// Bytes of a bucket of f32 gradients or weights, the unit of communication.
pub const BUCKET_BYTES: usize = 16 << 20;

/// Elements per bucket. Tests use small buckets for their small models.
const BUCKET: usize = if cfg!(test) { 16 } else { BUCKET_BYTES / size_of::<f32>() };

/// The flat layout of tensors in buckets that are sharded over the ranks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ShardLayout {
    /// Flat index of each tensor's first element.
    starts: Vec<usize>,
    elements: usize,
    bucket: usize,
    ranks: usize,
}

/// A contiguous range of one tensor's elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    /// Index of the tensor.
    pub(super) tensor: usize,
    /// Range within the tensor.
    pub(super) elements: Range<usize>,
}

impl ShardLayout {
    /// The layout of tensors with `sizes` elements over `ranks` ranks.
    pub(super) fn new(sizes: &[usize], ranks: usize) -> Self {
        Self::with_bucket(sizes, ranks, BUCKET)
    }

    fn with_bucket(sizes: &[usize], ranks: usize, bucket: usize) -> Self {
        let mut elements = 0;
        let mut starts = Vec::with_capacity(sizes.len());
        for size in sizes {
            starts.push(elements);
            elements += size;
        }
        Self { starts, elements, bucket, ranks }
    }

    /// Flat element range of each bucket.
    pub(super) fn buckets(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let (elements, bucket) = (self.elements, self.bucket);
        (0..elements).step_by(bucket).map(move |start| start..(start + bucket).min(elements))
    }

    /// Shard length of a bucket; the last ranks may own fewer elements, or none.
    pub(super) fn shard_len(&self, bucket: &Range<usize>) -> usize {
        bucket.len().div_ceil(self.ranks)
    }

    /// The flat range of a bucket that `rank` owns.
    pub(super) fn owned(&self, bucket: &Range<usize>, rank: usize) -> Range<usize> {
        let shard_len = self.shard_len(bucket);
        let start = (bucket.start + rank * shard_len).min(bucket.end);
        start..(start + shard_len).min(bucket.end)
    }

    /// Splits a flat range by tensor.
    pub(super) fn segments(&self, elements: Range<usize>) -> Vec<Segment> {
        let mut segments = Vec::new();
        let first = self.starts.partition_point(|start| *start <= elements.start).saturating_sub(1);
        for (tensor, start) in self.starts.iter().enumerate().skip(first) {
            let end = self.starts.get(tensor + 1).copied().unwrap_or(self.elements);
            let (from, to) = (elements.start.max(*start), elements.end.min(end));
            if from >= elements.end {
                break;
            }
            if from < to {
                segments.push(Segment { tensor, elements: from - start..to - start });
            }
        }
        segments
    }

    /// Gathers a bucket from `tensors`, zero-padded so that all shards have equal length.
    pub(super) fn gather(&self, bucket: &Range<usize>, tensors: &[Tensor]) -> Result<Tensor> {
        let parts = views(&self.segments(bucket.clone()), tensors)?;
        concatenated(&parts, self.shard_len(bucket) * self.ranks, device(tensors))
    }

    /// Scatters the leading elements of a bucket back into `tensors`.
    pub(super) fn scatter(
        &self,
        bucket: &Range<usize>,
        elements: &Tensor,
        tensors: &[Tensor],
    ) -> Result<()> {
        let mut at = 0;
        for Segment { tensor, elements: range } in self.segments(bucket.clone()) {
            let here = at..at + range.len();
            memory::overwrite(
                &view(tensor_at(tensors, tensor)?, &range)?,
                &view(elements, &here)?,
            )?;
            at = here.end;
        }
        Ok(())
    }
}

/// Views of segments, in the tensors' memory.
pub(super) fn views(segments: &[Segment], tensors: &[Tensor]) -> Result<Vec<Tensor>> {
    let view_of = |segment: &Segment| view(tensor_at(tensors, segment.tensor)?, &segment.elements);
    segments.iter().map(view_of).collect()
}

/// A new tensor on `device` with the concatenation of `parts`, zero-padded to `length`; the parts are on the same
/// device.
pub(super) fn concatenated(parts: &[Tensor], length: usize, device: &Device) -> Result<Tensor> {
    if !has_kernels(device) {
        let mut elements = Vec::with_capacity(length);
        for part in parts {
            elements.extend_from_slice(&floats(part, OP)?);
        }
        elements.resize(length, 0.0);
        return Ok(memory::tensor(elements, length)?);
    }
    let concatenated = memory::zeros(&[length], device)?;
    let mut at = 0;
    for part in parts {
        let here = at..at + part.elem_count();
        memory::overwrite(&view(&concatenated, &here)?, part)?;
        at = here.end;
    }
    Ok(concatenated)
}

/// The common device of `tensors`.
pub(super) fn device(tensors: &[Tensor]) -> &Device {
    tensors.first().map_or(&Device::Cpu, Tensor::device)
}

/// A flat view of a tensor's elements.
pub(super) fn view(tensor: &Tensor, elements: &Range<usize>) -> Result<Tensor> {
    Ok(tensor.flatten_all()?.narrow(0, elements.start, elements.len())?)
}

fn tensor_at(tensors: &[Tensor], index: usize) -> Result<&Tensor> {
    let missing = || Error::Model { what: "has too few tensors for its layout".into() };
    tensors.get(index).ok_or_else(missing)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn with_an_indivisible_bucket_the_last_ranks_own_less() {
        let layout = ShardLayout::with_bucket(&[7, 3], 4, 8);
        let buckets: Vec<_> = layout.buckets().collect();
        assert_eq!(buckets, [0..8, 8..10]);
        let owned = |bucket: usize| -> Vec<Range<usize>> {
            (0..4).map(|rank| layout.owned(&buckets[bucket], rank)).collect()
        };
        assert_eq!(owned(0), [0..2, 2..4, 4..6, 6..8]);
        assert_eq!(owned(1), [8..9, 9..10, 10..10, 10..10]);
        let segments = layout.segments(6..9);
        let expected =
            [Segment { tensor: 0, elements: 6..7 }, Segment { tensor: 1, elements: 0..2 }];
        assert_eq!(segments, expected);
    }

    proptest! {
        #[test]
        fn every_element_has_one_owner_and_gather_and_scatter_round_trip(
            sizes in prop::collection::vec(1usize..30, 1..6),
            ranks in 1usize..6,
            bucket in 1usize..40,
        ) {
            let layout = ShardLayout::with_bucket(&sizes, ranks, bucket);
            let mut next = 0;
            for bucket in layout.buckets() {
                for rank in 0..ranks {
                    let owned = layout.owned(&bucket, rank);
                    prop_assert!(owned.is_empty() || owned.start == next);
                    next = next.max(owned.end);
                }
            }
            prop_assert_eq!(next, sizes.iter().sum::<usize>());

            let count = |first: usize, size: usize| (first..first + size).map(|n| n as f32).collect();
            let mut first = 1;
            let tensors: Vec<Tensor> = sizes.iter().map(|size| {
                first += size;
                memory::tensor(count(first - size, *size), *size).unwrap()
            }).collect();
            let zeros: Vec<Tensor> = sizes.iter().map(|size| memory::zeros(&[*size], &candle_core::Device::Cpu).unwrap()).collect();
            for bucket in layout.buckets() {
                let elements = layout.gather(&bucket, &tensors).unwrap();
                prop_assert_eq!(elements.dims(), [layout.shard_len(&bucket) * ranks]);
                layout.scatter(&bucket, &elements, &zeros).unwrap();
            }
            for (found, wanted) in zeros.iter().zip(&tensors) {
                prop_assert_eq!(found.to_vec1::<f32>().unwrap(), wanted.to_vec1::<f32>().unwrap());
            }
        }
    }
}
