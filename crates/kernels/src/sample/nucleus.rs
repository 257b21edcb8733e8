//! Nucleus (top-p) truncation without a full sort.

use multiversion::multiversion;

use super::scan::TruncatedScan;
use super::weights::{CHUNK, Cutoff, LANES, fill_weights, larger_first, scale_f32, weight};

/// Bins of the histogram that locates the cutoff.
const BINS: usize = 1024;

/// Number of entries from which on sorting replaces bisection.
const FEW: usize = 32;

/// The cutoff after the largest entries of `kept` that reach the share `top_p` of its mass: an entry stays while
/// those before it have less.
pub(super) fn cutoff(kept: &TruncatedScan<'_>, top_p: f64) -> Cutoff {
    let scan = kept.scan;
    let target = top_p * kept.total;
    // Entries lighter than this sum to no more than the truncated mass.
    let lightest = (1.0 - top_p) * kept.total / scan.logits.len() as f64;
    let reach = (-lightest.ln()).clamp(1e-6, 87.0) * 1.001;
    let bins = Bins {
        top: scan.top,
        scale: scale_f32(scan.scale),
        per_bin: scale_f32(BINS as f64 / reach),
    };
    let mut sums = [0f64; BINS + LANES];
    for (chunk, x) in kept.chunks().filter(|(chunk, _)| bins.of(scan.maxima[*chunk]) < BINS as u32)
    {
        add(x, (chunk * CHUNK) as u32, bins, kept.cutoff, &mut sums);
    }
    let mut before = 0.0;
    for (bin, sum) in sums[..BINS].iter().enumerate() {
        if before + sum >= target {
            return last_within(&mut entries(kept, bins, bin as u32), target - before)
                .map_or(kept.cutoff, |(index, logit)| Cutoff { logit, index });
        }
        before += sum;
    }
    // Rounding has left the sum just below the target.
    kept.cutoff
}

impl TruncatedScan<'_> {
    /// Chunks with entries left, with their index.
    fn chunks(&self) -> impl Iterator<Item = (usize, &[f32])> {
        let masses = self.masses.iter().enumerate();
        masses.filter(|(_, mass)| **mass > 0.0).map(|(chunk, _)| (chunk, self.scan.chunk(chunk)))
    }
}

/// Bins of equal width in the logit, from the largest downwards.
#[derive(Clone, Copy)]
struct Bins {
    top: f32,
    scale: f32,
    per_bin: f32,
}

impl Bins {
    /// The bin of a logit, monotonic; `BINS` or more beyond the last.
    #[inline(always)]
    fn of(self, logit: f32) -> u32 {
        ((self.top - logit) * self.scale * self.per_bin) as u32
    }
}

/// The bins of a chunk's entries.
#[multiversion(targets = "simd")]
fn bin_indices(x: &[f32], bins: Bins, bin_indices: &mut [u32; CHUNK]) {
    for (x, bin) in x.iter().zip(bin_indices) {
        *bin = bins.of(*x);
    }
}

/// Adds the weights of a chunk that starts at index `first` to their bins. Entries beyond all bins go to extra sums,
/// which avoids an unpredictable branch and a serial dependency.
#[multiversion(targets = "simd")]
fn add(x: &[f32], first: u32, bins: Bins, cutoff: Cutoff, sums: &mut [f64; BINS + LANES]) {
    let (mut weights, mut bin_indices) = ([0f32; CHUNK], [0u32; CHUNK]);
    fill_weights(x, first, bins.scale, bins.top, cutoff, &mut weights);
    for (i, (x, bin)) in x.iter().zip(&mut bin_indices).enumerate() {
        *bin = bins.of(*x).min((BINS + i % LANES) as u32);
    }
    for (w, bin) in weights[..x.len()].iter().zip(bin_indices) {
        sums[bin as usize] += f64::from(*w);
    }
}

/// The entries of one bin, with their weights.
fn entries(kept: &TruncatedScan<'_>, bins: Bins, bin: u32) -> Vec<((u32, f32), f32)> {
    let mut entries = Vec::new();
    let mut at = [0; CHUNK];
    for (chunk, x) in kept.chunks().filter(|(chunk, _)| bins.of(kept.scan.maxima[*chunk]) <= bin) {
        bin_indices(x, bins, &mut at);
        for (i, x) in x.iter().enumerate().filter(|(i, _)| at[*i] == bin) {
            let index = (chunk * CHUNK + i) as u32;
            // NaN falls into the first bin, but the cutoff rejects it.
            if kept.cutoff.keeps(index, *x) {
                entries.push(((index, *x), weight((*x - bins.top) * bins.scale)));
            }
        }
    }
    entries
}

/// The entry at which the cumulative weight, in descending order, reaches `target`.
fn last_within(mut entries: &mut [((u32, f32), f32)], mut target: f64) -> Option<(u32, f32)> {
    while entries.len() > FEW {
        let middle = entries.len() / 2;
        entries.select_nth_unstable_by(middle, |a, b| larger_first(&a.0, &b.0));
        let sum: f64 = entries[..middle].iter().map(|entry| f64::from(entry.1)).sum();
        if sum >= target {
            entries = &mut entries[..middle];
        } else {
            target -= sum;
            entries = &mut entries[middle..];
        }
    }
    entries.sort_unstable_by(|a, b| larger_first(&a.0, &b.0));
    let mut sum = 0.0;
    let reaches = |entry: &&((u32, f32), f32)| {
        sum += f64::from(entry.1);
        sum >= target
    };
    entries.iter().find(reaches).or(entries.last()).map(|entry| entry.0)
}
