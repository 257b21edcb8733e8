//! A model's trainable numbers end to end, cut into buckets, of which every rank owns a part (ZeRO-1, Rajbhandari et al.,
//! 2020).

use std::ops::Range;

use candle_core::{Device, Tensor};
use embodied_r_kernels::device::has_kernels;
use embodied_r_kernels::memory::{self, floats};

use crate::error::{Error, Result};

const OP: &str = "shard";

/// Numbers of a bucket: what is sent at a time. The models of tests are small, and are cut all the same.
const BUCKET: usize = if cfg!(test) { 16 } else { 1 << 22 };

/// The numbers of tensors, one behind the other, in buckets that are dealt to the ranks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    /// Where each tensor begins.
    starts: Vec<usize>,
    numbers: usize,
    bucket: usize,
    ranks: usize,
}

/// Neighbouring numbers of one tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    /// The tensor's place among all.
    pub(super) tensor: usize,
    /// Which of its numbers.
    pub(super) numbers: Range<usize>,
}

impl Layout {
    /// The layout of tensors of so many numbers, for so many ranks.
    pub(super) fn new(sizes: &[usize], ranks: usize) -> Self {
        Self::with_bucket(sizes, ranks, BUCKET)
    }

    fn with_bucket(sizes: &[usize], ranks: usize, bucket: usize) -> Self {
        let mut numbers = 0;
        let mut starts = Vec::with_capacity(sizes.len());
        for size in sizes {
            starts.push(numbers);
            numbers += size;
        }
        Self { starts, numbers, bucket, ranks }
    }

    /// The buckets' numbers.
    pub(super) fn buckets(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let (numbers, bucket) = (self.numbers, self.bucket);
        (0..numbers).step_by(bucket).map(move |start| start..(start + bucket).min(numbers))
    }

    /// Numbers that each rank has of a bucket; those of the last ones may be fewer, or none.
    pub(super) fn part(&self, bucket: &Range<usize>) -> usize {
        bucket.len().div_ceil(self.ranks)
    }

    /// What a rank owns of a bucket.
    pub(super) fn owned(&self, bucket: &Range<usize>, rank: usize) -> Range<usize> {
        let part = self.part(bucket);
        let start = (bucket.start + rank * part).min(bucket.end);
        start..(start + part).min(bucket.end)
    }

    /// The tensors that some numbers belong to.
    pub(super) fn segments(&self, numbers: Range<usize>) -> Vec<Segment> {
        let mut segments = Vec::new();
        let first = self.starts.partition_point(|start| *start <= numbers.start).saturating_sub(1);
        for (tensor, start) in self.starts.iter().enumerate().skip(first) {
            let end = self.starts.get(tensor + 1).copied().unwrap_or(self.numbers);
            let (from, to) = (numbers.start.max(*start), numbers.end.min(end));
            if from >= numbers.end {
                break;
            }
            if from < to {
                segments.push(Segment { tensor, numbers: from - start..to - start });
            }
        }
        segments
    }

    /// The numbers of a bucket out of `tensors`, with zeros behind them so that every rank has a part of the same length.
    pub(super) fn gathered(&self, bucket: &Range<usize>, tensors: &[Tensor]) -> Result<Tensor> {
        let parts = views(&self.segments(bucket.clone()), tensors)?;
        joined(&parts, self.part(bucket) * self.ranks, device(tensors))
    }

    /// Puts numbers of a bucket, with which `numbers` begins, back into `tensors`.
    pub(super) fn scatter(
        &self,
        bucket: &Range<usize>,
        numbers: &Tensor,
        tensors: &[Tensor],
    ) -> Result<()> {
        let mut at = 0;
        for Segment { tensor, numbers: range } in self.segments(bucket.clone()) {
            let here = at..at + range.len();
            memory::overwrite(&view(of(tensors, tensor)?, &range)?, &view(numbers, &here)?)?;
            at = here.end;
        }
        Ok(())
    }
}

/// The numbers of segments, in the same memory.
pub(super) fn views(segments: &[Segment], tensors: &[Tensor]) -> Result<Vec<Tensor>> {
    let view_of = |segment: &Segment| view(of(tensors, segment.tensor)?, &segment.numbers);
    segments.iter().map(view_of).collect()
}

/// The numbers of `parts` end to end, with zeros behind them up to `length`, in memory of their own on `device`, where the
/// parts are.
pub(super) fn joined(parts: &[Tensor], length: usize, device: &Device) -> Result<Tensor> {
    if !has_kernels(device) {
        let mut numbers = Vec::with_capacity(length);
        for part in parts {
            numbers.extend_from_slice(&floats(part, OP)?);
        }
        numbers.resize(length, 0.0);
        return Ok(memory::tensor(numbers, length)?);
    }
    let joined = memory::zeros(&[length], device)?;
    let mut at = 0;
    for part in parts {
        let here = at..at + part.elem_count();
        memory::overwrite(&view(&joined, &here)?, part)?;
        at = here.end;
    }
    Ok(joined)
}

/// Where tensors are, all of them at one place.
pub(super) fn device(tensors: &[Tensor]) -> &Device {
    tensors.first().map_or(&Device::Cpu, Tensor::device)
}

/// Some of a tensor's numbers, in the same memory.
pub(super) fn view(tensor: &Tensor, numbers: &Range<usize>) -> Result<Tensor> {
    Ok(tensor.flatten_all()?.narrow(0, numbers.start, numbers.len())?)
}

fn of(tensors: &[Tensor], place: usize) -> Result<&Tensor> {
    let missing = || Error::Model { what: "has too few tensors for its layout".into() };
    tensors.get(place).ok_or_else(missing)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_bucket_that_the_ranks_do_not_divide_leaves_less_to_the_last() {
        let layout = Layout::with_bucket(&[7, 3], 4, 8);
        let buckets: Vec<_> = layout.buckets().collect();
        assert_eq!(buckets, [0..8, 8..10]);
        let owned = |bucket: usize| -> Vec<Range<usize>> {
            (0..4).map(|rank| layout.owned(&buckets[bucket], rank)).collect()
        };
        assert_eq!(owned(0), [0..2, 2..4, 4..6, 6..8]);
        assert_eq!(owned(1), [8..9, 9..10, 10..10, 10..10]);
        let segments = layout.segments(6..9);
        let expected = [Segment { tensor: 0, numbers: 6..7 }, Segment { tensor: 1, numbers: 0..2 }];
        assert_eq!(segments, expected);
    }

    proptest! {
        #[test]
        fn every_number_has_one_owner_and_comes_back_where_it_was(
            sizes in prop::collection::vec(1usize..30, 1..6),
            ranks in 1usize..6,
            bucket in 1usize..40,
        ) {
            let layout = Layout::with_bucket(&sizes, ranks, bucket);
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
                let numbers = layout.gathered(&bucket, &tensors).unwrap();
                prop_assert_eq!(numbers.dims(), [layout.part(&bucket) * ranks]);
                layout.scatter(&bucket, &numbers, &zeros).unwrap();
            }
            for (found, wanted) in zeros.iter().zip(&tensors) {
                prop_assert_eq!(found.to_vec1::<f32>().unwrap(), wanted.to_vec1::<f32>().unwrap());
            }
        }
    }
}
