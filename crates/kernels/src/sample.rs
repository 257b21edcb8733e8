//! Drawing from a row of logits.
//!
//! A row is read once. For each chunk of it are kept the largest logit and the sum of the weights
//! `e^((x - largest) · scale)`: a draw walks over the sums and looks into one chunk, and the likeliest
//! entries are found without looking where the largest is too small. Sums within a chunk are in f32,
//! those over chunks in f64, in an order that depends on the row's length alone. Nothing is sorted but
//! what is asked for in order.
//!
//! An entry of -∞ or NaN has no weight and is never drawn.

mod nucleus;
mod rows;

use std::cmp::Ordering;

use multiversion::multiversion;

use crate::math::{exp, max};
pub use rows::{Change, Choice, Draw, Edits, Pick, draw};

/// Entries of a chunk.
pub(crate) const CHUNK: usize = 256;

/// Lanes of the partial sums.
const LANES: usize = 16;

/// A row of logits and what one pass over it gave.
///
/// ```
/// use embodied_r_kernels::sample::{Scan, Truncation};
/// let logits = [0.2f32.ln(), 0.5f32.ln(), 0.3f32.ln()];
/// let scan = Scan::new(&logits, 1.0);
/// assert_eq!(scan.draw(0.1), Some(0));
/// assert_eq!(scan.largest(), Some(1));
/// assert!((scan.log_probability(2) - 0.3f64.ln()).abs() < 1e-6);
/// let two = scan.kept(&Truncation { top_k: 2, ..Truncation::default() });
/// assert_eq!(two.draw(0.1), Some(1));
/// ```
#[derive(Debug)]
pub struct Scan<'a> {
    logits: &'a [f32],
    scale: f64,
    /// Of each chunk the largest logit.
    maxima: Vec<f32>,
    /// Of each chunk the sum of its weights, relative to `top`.
    masses: Vec<f32>,
    top: f32,
    total: f64,
}

/// Which entries may be drawn; the default leaves all.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Truncation {
    /// Entries with at least this share of the likeliest one's probability; 0 leaves all.
    pub min_p: f64,
    /// Of these so many of the likeliest, and those as likely as the last of them; 0 leaves all.
    pub top_k: usize,
    /// Of these the likeliest until together they have this share of the probability that is left;
    /// 1 leaves all.
    pub top_p: f64,
}

impl Default for Truncation {
    fn default() -> Self {
        Self { min_p: 0.0, top_k: 0, top_p: 1.0 }
    }
}

/// The entries that a [`Truncation`] leaves.
#[derive(Debug)]
pub struct Kept<'a> {
    scan: &'a Scan<'a>,
    cut: Cut,
    masses: Vec<f32>,
    total: f64,
}

/// The last entry that may be drawn, where larger logits go first and equal ones by index.
#[derive(Debug, Clone, Copy)]
struct Cut {
    logit: f32,
    index: u32,
}

impl Cut {
    /// All entries with a weight.
    const NONE: Self = Self { logit: f32::NEG_INFINITY, index: u32::MAX };

    #[inline(always)]
    fn keeps(self, index: u32, logit: f32) -> bool {
        (logit > self.logit) | ((logit == self.logit) & (index <= self.index))
    }
}

impl<'a> Scan<'a> {
    /// Reads a row whose probabilities are `softmax(logits · scale)`, for a scale above 0.
    ///
    /// # Shapes
    /// `logits` (vocabulary).
    pub fn new(logits: &'a [f32], scale: f64) -> Self {
        let chunks = logits.len().div_ceil(CHUNK);
        let (mut maxima, mut masses) = (vec![0.0; chunks], vec![0.0; chunks]);
        let factor = narrowed(scale);
        let top = scan(logits, factor, &mut maxima, &mut masses);
        let total = masses.iter().copied().map(f64::from).sum();
        Self { logits, scale, maxima, masses, top, total }
    }

    /// What the logits are multiplied by.
    pub fn scale(&self) -> f64 {
        self.scale
    }

    /// Index of the largest logit, the first of equal ones; none where all are -∞ or NaN.
    pub fn largest(&self) -> Option<usize> {
        let chunk = self.maxima.iter().position(|x| *x == self.top && *x > f32::NEG_INFINITY)?;
        let within = self.chunk(chunk).iter().position(|x| *x == self.top)?;
        Some(chunk * CHUNK + within)
    }

    /// Natural log-probability of the entry at `index`, among all; NaN beyond the row.
    pub fn log_probability(&self, index: usize) -> f64 {
        let logit = self.logits.get(index).copied().unwrap_or(f32::NAN);
        f64::from(logit - self.top) * self.scale - self.total.ln()
    }

    /// The `count` entries with the largest logits, the largest first and equal ones by index; fewer
    /// where there are fewer.
    pub fn likeliest(&self, count: usize) -> Vec<(u32, f32)> {
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

    /// The entry at `uniform`, a number in [0, 1), of the cumulative distribution; none where no entry
    /// has a weight.
    pub fn draw(&self, uniform: f64) -> Option<usize> {
        self.at(&self.masses, self.total, Cut::NONE, uniform)
    }

    /// What a truncation leaves: min-p, then top-k, then top-p of what they left.
    pub fn kept(&'a self, to: &Truncation) -> Kept<'a> {
        let mut logit = f32::NEG_INFINITY;
        if to.min_p > 0.0 {
            logit = at_least(f64::from(self.top) + to.min_p.ln() / self.scale);
        }
        if to.top_k > 0 && to.top_k < self.logits.len() {
            logit = logit.max(self.nth_largest(to.top_k));
        }
        let mut kept = self.cut_at(Cut { logit, ..Cut::NONE });
        if to.top_p < 1.0 && kept.total > 0.0 {
            kept = self.cut_at(nucleus::cut(&kept, to.top_p));
        }
        kept
    }

    fn cut_at(&'a self, cut: Cut) -> Kept<'a> {
        let mut masses = self.masses.clone();
        if cut.logit > f32::NEG_INFINITY {
            cut_masses(self.logits, narrowed(self.scale), self.top, cut, &self.maxima, &mut masses);
        }
        let total = masses.iter().copied().map(f64::from).sum();
        Kept { scan: self, cut, masses, total }
    }

    /// The first entry at which the running sum of the weights exceeds the share `uniform` of `total`.
    fn at(&self, masses: &[f32], total: f64, cut: Cut, uniform: f64) -> Option<usize> {
        let target = uniform * total;
        let (mut before, mut chosen) = (0.0, None);
        for (chunk, mass) in masses.iter().enumerate() {
            // Rounding may leave the sum just below the target: the last chunk with weight stands in.
            if *mass > 0.0 {
                let share = (target - before) / f64::from(*mass);
                chosen = Some((chunk, share));
                before += f64::from(*mass);
                if before > target {
                    break;
                }
            }
        }
        let (chunk, share) = chosen?;
        let first = chunk * CHUNK;
        let mut buffer = [0.0; CHUNK];
        let weights = &mut buffer[..self.chunk(chunk).len()];
        // Relative to the chunk's own largest: none is lost that the chunk's sum has.
        let shift = self.maxima[chunk];
        cut_weights(self.chunk(chunk), first, narrowed(self.scale), shift, cut, weights);
        Some(first + position(weights, share))
    }

    fn chunk(&self, chunk: usize) -> &'a [f32] {
        &self.logits[chunk * CHUNK..self.logits.len().min((chunk + 1) * CHUNK)]
    }

    /// A logit that at least `count` entries reach, as large as the chunks' maxima tell.
    fn bound(&self, count: usize) -> f32 {
        if count > self.maxima.len() {
            return f32::NEG_INFINITY;
        }
        let mut maxima = self.maxima.clone();
        *maxima.select_nth_unstable_by(count - 1, |a, b| b.total_cmp(a)).1
    }

    /// The entries whose logit is `bound` or more, by index.
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

    fn nth_largest(&self, n: usize) -> f32 {
        let mut found = self.reaching(self.bound(n));
        if found.len() < n {
            return f32::NEG_INFINITY;
        }
        found.select_nth_unstable_by(n - 1, larger_first).1.1
    }
}

impl Kept<'_> {
    /// As [`Scan::draw`], among the entries that are left.
    pub fn draw(&self, uniform: f64) -> Option<usize> {
        self.scan.at(&self.masses, self.total, self.cut, uniform)
    }
}

/// Index of the first weight at which the running sum exceeds the share `share` of all.
fn position(weights: &[f32], share: f64) -> usize {
    let target = share * weights.iter().copied().map(f64::from).sum::<f64>();
    let (mut sum, mut chosen) = (0.0, 0);
    for (i, weight) in weights.iter().enumerate() {
        if *weight > 0.0 {
            chosen = i;
            sum += f64::from(*weight);
            if sum > target {
                break;
            }
        }
    }
    chosen
}

fn larger_first(a: &(u32, f32), b: &(u32, f32)) -> Ordering {
    b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))
}

/// A scale in f32; finite, as ∞ times a difference of 0 would be NaN.
pub(crate) fn narrowed(scale: f64) -> f32 {
    (scale as f32).min(f32::MAX)
}

/// The smallest f32 that is no less than `x`.
fn at_least(x: f64) -> f32 {
    let near = x as f32;
    if f64::from(near) < x { near.next_up() } else { near }
}

/// `e^y` for y ≤ 0; 0 where that is below the normal numbers, and for NaN.
#[inline(always)]
fn weight(y: f32) -> f32 {
    if y > -87.0 { exp(y) } else { 0.0 }
}

/// The chunks' maxima and masses; gives the largest maximum.
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

/// The sum of `e^((x - shift) · scale)`.
#[inline(always)]
fn weight_sum(x: &[f32], shift: f32, scale: f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let chunks = x.chunks_exact(LANES);
    let rest = chunks.remainder();
    for x in chunks {
        for lane in 0..LANES {
            lanes[lane] += weight((x[lane] - shift) * scale);
        }
    }
    let rest: f32 = rest.iter().map(|x| weight((*x - shift) * scale)).sum();
    lanes.iter().sum::<f32>() + rest
}

/// The chunks' masses with what lies beyond the cut left out.
#[multiversion(targets = "simd")]
fn cut_masses(logits: &[f32], scale: f32, top: f32, cut: Cut, maxima: &[f32], masses: &mut [f32]) {
    let mut weights = [0f32; CHUNK];
    let chunks = logits.chunks(CHUNK).zip(maxima.iter().zip(masses));
    for (chunk, (x, (largest, mass))) in chunks.enumerate() {
        if *largest < cut.logit {
            *mass = 0.0;
            continue;
        }
        let first = (chunk * CHUNK) as u32;
        let mut lanes = [0f32; LANES];
        fill_weights(x, first, scale, top, cut, &mut weights);
        for weights in weights[..x.len()].chunks(LANES) {
            for (lane, weight) in lanes.iter_mut().zip(weights) {
                *lane += weight;
            }
        }
        *mass = lanes.iter().sum();
    }
}

/// The weights of a chunk that begins at index `first`, those beyond the cut 0.
#[multiversion(targets = "simd")]
fn cut_weights(x: &[f32], first: usize, scale: f32, shift: f32, cut: Cut, weights: &mut [f32]) {
    fill_weights(x, first as u32, scale, shift, cut, weights);
}

#[inline(always)]
fn fill_weights(x: &[f32], first: u32, scale: f32, shift: f32, cut: Cut, weights: &mut [f32]) {
    for (i, (x, w)) in x.iter().zip(weights).enumerate() {
        let kept = weight((*x - shift) * scale);
        *w = if cut.keeps(first + i as u32, *x) { kept } else { 0.0 };
    }
}

#[cfg(test)]
mod tests;
