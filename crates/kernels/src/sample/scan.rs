//! A row of logits with the statistics of its chunks.

use multiversion::multiversion;

use super::sums;
use super::weights::{
    CHUNK, Cutoff, LANES, fill_weights, larger_first, scale_f32, weight, weight_sum,
};
use crate::math::max;

/// A row of logits with per-chunk statistics of one pass over it.
///
/// ```
/// use embodied_r_kernels::sample::{Scan, Truncation};
/// let logits = [0.2f32.ln(), 0.5f32.ln(), 0.3f32.ln()];
/// let scan = Scan::new(&logits, 1.0);
/// assert_eq!(scan.draw(0.1), Some(0));
/// assert_eq!(scan.argmax(), Some(1));
/// assert!((scan.log_probability(2) - 0.3f64.ln()).abs() < 1e-6);
/// let two = scan.truncated(&Truncation { top_k: 2, ..Truncation::default() });
/// assert_eq!(two.draw(0.1), Some(1));
/// ```
#[derive(Debug)]
pub struct Scan<'a> {
    pub(super) logits: &'a [f32],
    pub(super) scale: f64,
    /// Largest logit of each chunk.
    pub(super) maxima: Vec<f32>,
    /// Sum of each chunk's weights, relative to `top`.
    masses: Vec<f32>,
    pub(super) top: f32,
    total: f64,
}

/// A row under a [`super::Truncation`].
#[derive(Debug)]
pub struct TruncatedScan<'a> {
    pub(super) scan: &'a Scan<'a>,
    pub(super) cutoff: Cutoff,
    pub(super) masses: Vec<f32>,
    pub(super) total: f64,
}

impl<'a> Scan<'a> {
    /// Scans a row with probabilities `softmax(logits · scale)`; the scale is above 0.
    ///
    /// # Shapes
    /// `logits` (vocabulary).
    pub fn new(logits: &'a [f32], scale: f64) -> Self {
        let chunks = logits.len().div_ceil(CHUNK);
        let (mut maxima, mut masses) = (vec![0.0; chunks], vec![0.0; chunks]);
        let factor = scale_f32(scale);
        let top = scan(logits, factor, &mut maxima, &mut masses);
        let total = sums::total(&masses);
        Self { logits, scale, maxima, masses, top, total }
    }

    /// Multiplier of the logits (inverse temperature).
    pub fn scale(&self) -> f64 {
        self.scale
    }

    /// Index of the largest logit, the first of ties; `None` if all are -∞ or NaN.
    pub fn argmax(&self) -> Option<usize> {
        let chunk = self.maxima.iter().position(|x| *x == self.top && *x > f32::NEG_INFINITY)?;
        let within = self.chunk(chunk).iter().position(|x| *x == self.top)?;
        Some(chunk * CHUNK + within)
    }

    /// Natural log-probability of the entry at `index`, before truncation; NaN if out of range.
    pub fn log_probability(&self, index: usize) -> f64 {
        let logit = self.logits.get(index).copied().unwrap_or(f32::NAN);
        f64::from(logit - self.top) * self.scale - self.total.ln()
    }

    /// The `count` largest logits with their indices, in descending order, ties by index; fewer if the row is
    /// shorter.
    pub fn top_logits(&self, count: usize) -> Vec<(u32, f32)> {
        if count == 0 {
            return Vec::new();
        }
        let mut found = self.reaching(self.bound(count));
        if found.len() > count {
            found.select_nth_unstable_by(count - 1, larger_first);
            found.truncate(count);
        }
        found.sort_unstable_by(larger_first);
        found
    }

    /// Inverse-CDF sampling at `uniform` in [0, 1); `None` if no entry has a weight.
    pub fn draw(&self, uniform: f64) -> Option<usize> {
        self.at(&self.masses, self.total, Cutoff::NONE, uniform)
    }

    /// Keeps what `cutoff` keeps.
    pub(super) fn truncated_at(&'a self, cutoff: Cutoff) -> TruncatedScan<'a> {
        let mut masses = self.masses.clone();
        if cutoff.logit > f32::NEG_INFINITY {
            truncated_masses(
                self.logits,
                scale_f32(self.scale),
                self.top,
                cutoff,
                &self.maxima,
                &mut masses,
            );
        }
        let total = sums::total(&masses);
        TruncatedScan { scan: self, cutoff, masses, total }
    }

    /// The first entry at which the cumulative weight exceeds the fraction `uniform` of `total`.
    fn at(&self, masses: &[f32], total: f64, cutoff: Cutoff, uniform: f64) -> Option<usize> {
        let target = uniform * total;
        let (chunk, before) = sums::position(masses, target)?;
        let share = (target - before) / f64::from(masses[chunk]);
        let first = chunk * CHUNK;
        let mut buffer = [0.0; CHUNK];
        let weights = &mut buffer[..self.chunk(chunk).len()];
        // Relative to the chunk's largest logit, so that no weight of the chunk's sum underflows.
        let shift = self.maxima[chunk];
        truncated_weights(self.chunk(chunk), first, scale_f32(self.scale), shift, cutoff, weights);
        let target = share * sums::total(weights);
        Some(first + sums::position(weights, target).map_or(0, |(index, _)| index))
    }

    pub(super) fn chunk(&self, chunk: usize) -> &'a [f32] {
        &self.logits[chunk * CHUNK..self.logits.len().min((chunk + 1) * CHUNK)]
    }

    /// The largest lower bound of the `count`-th largest logit that the chunks' maxima give.
    fn bound(&self, count: usize) -> f32 {
        if count > self.maxima.len() {
            return f32::NEG_INFINITY;
        }
        let mut maxima = self.maxima.clone();
        *maxima.select_nth_unstable_by(count - 1, |a, b| b.total_cmp(a)).1
    }

    /// Entries with logits of at least `bound`, by index.
    fn reaching(&self, bound: f32) -> Vec<(u32, f32)> {
        let mut found = Vec::new();
        for (chunk, _) in self.maxima.iter().enumerate().filter(|(_, max)| **max >= bound) {
            let first = chunk * CHUNK;
            for (i, x) in self.chunk(chunk).iter().enumerate() {
                if *x >= bound {
                    found.push(((first + i) as u32, *x));
                }
            }
        }
        found
    }

    /// The `n`-th largest logit; -∞ if the row is shorter.
    pub(super) fn nth_largest(&self, n: usize) -> f32 {
        let mut found = self.reaching(self.bound(n));
        if found.len() < n {
            return f32::NEG_INFINITY;
        }
        found.select_nth_unstable_by(n - 1, larger_first).1.1
    }
}

impl TruncatedScan<'_> {
    /// As [`Scan::draw`], after truncation.
    pub fn draw(&self, uniform: f64) -> Option<usize> {
        self.scan.at(&self.masses, self.total, self.cutoff, uniform)
    }
}

/// The chunks' maxima and masses; returns the largest maximum.
#[multiversion(targets = "simd")]
fn scan(logits: &[f32], scale: f32, maxima: &mut [f32], masses: &mut [f32]) -> f32 {
    let chunks = maxima.iter_mut().zip(masses.iter_mut());
    for (x, (largest, mass)) in logits.chunks(CHUNK).zip(chunks) {
        *largest = max(x);
        *mass = weight_sum(x, *largest, scale);
    }
    let top = max(maxima);
    for (mass, largest) in masses.iter_mut().zip(maxima) {
        *mass *= weight((*largest - top) * scale);
    }
    top
}

/// The chunks' masses after truncation.
#[multiversion(targets = "simd")]
fn truncated_masses(
    logits: &[f32],
    scale: f32,
    top: f32,
    cutoff: Cutoff,
    maxima: &[f32],
    masses: &mut [f32],
) {
    let mut weights = [0f32; CHUNK];
    let chunks = logits.chunks(CHUNK).zip(maxima.iter().zip(masses));
    for (chunk, (x, (largest, mass))) in chunks.enumerate() {
        if *largest < cutoff.logit {
            *mass = 0.0;
            continue;
        }
        let first = (chunk * CHUNK) as u32;
        let mut lanes = [0f32; LANES];
        fill_weights(x, first, scale, top, cutoff, &mut weights);
        for weights in weights[..x.len()].chunks(LANES) {
            for (lane, weight) in lanes.iter_mut().zip(weights) {
                *lane += weight;
            }
        }
        *mass = lanes.iter().sum();
    }
}

/// The weights of a chunk that starts at index `first`; 0 beyond the cutoff.
#[multiversion(targets = "simd")]
fn truncated_weights(
    x: &[f32],
    first: usize,
    scale: f32,
    shift: f32,
    cutoff: Cutoff,
    weights: &mut [f32],
) {
    fill_weights(x, first as u32, scale, shift, cutoff, weights);
}
