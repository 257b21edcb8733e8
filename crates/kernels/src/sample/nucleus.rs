//! The fewest entries that together have a given probability.

use multiversion::multiversion;

use super::{CHUNK, Cut, Kept, LANES, fill_weights, larger_first, narrowed, weight};

/// Bins of the histogram that finds the neighbourhood of the cut.
const BINS: usize = 1024;

/// So many entries are sorted rather than halved again.
const FEW: usize = 32;

/// The cut behind the likeliest entries of `kept` that together have the share `top_p` of its weight:
/// an entry stays while those before it have less than that.
pub(super) fn cut(kept: &Kept<'_>, top_p: f64) -> Cut {
    let scan = kept.scan;
    let wanted = top_p * kept.total;
    // Entries lighter than this have together no more than what is left out.
    let lightest = (1.0 - top_p) * kept.total / scan.logits.len() as f64;
    let reach = (-lightest.ln()).clamp(1e-6, 87.0) * 1.001;
    let bins =
        Bins { top: scan.top, scale: narrowed(scan.scale), per_bin: narrowed(BINS as f64 / reach) };
    let mut sums = [0f64; BINS + LANES];
    for (chunk, x) in kept.chunks().filter(|(chunk, _)| bins.of(scan.maxima[*chunk]) < BINS as u32)
    {
        add(x, (chunk * CHUNK) as u32, bins, kept.cut, &mut sums);
    }
    let mut before = 0.0;
    for (bin, sum) in sums[..BINS].iter().enumerate() {
        if before + sum >= wanted {
            return last_within(&mut entries(kept, bins, bin as u32), wanted - before)
                .map_or(kept.cut, |(index, logit)| Cut { logit, index });
        }
        before += sum;
    }
    // Rounding has left the sum just below what is wanted.
    kept.cut
}

impl Kept<'_> {
    /// The chunks that have entries left, with their number.
    fn chunks(&self) -> impl Iterator<Item = (usize, &[f32])> {
        let masses = self.masses.iter().enumerate();
        masses.filter(|(_, mass)| **mass > 0.0).map(|(chunk, _)| (chunk, self.scan.chunk(chunk)))
    }
}

/// Bins of equal width, from the likeliest entry downwards.
#[derive(Clone, Copy)]
struct Bins {
    top: f32,
    scale: f32,
    per_bin: f32,
}

impl Bins {
    /// The bin of a logit, which never falls while the logit falls; `BINS` or more beyond the last.
    #[inline(always)]
    fn of(self, logit: f32) -> u32 {
        ((self.top - logit) * self.scale * self.per_bin) as u32
    }
}

/// The bins of a chunk's entries.
#[multiversion(targets = "simd")]
fn places(x: &[f32], bins: Bins, places: &mut [u32; CHUNK]) {
    for (x, place) in x.iter().zip(places) {
        *place = bins.of(*x);
    }
}

/// Adds the weights of a chunk that begins at index `first` to their bins; the last sums have what lies
/// beyond all bins, which spares a branch that is hard to foretell, and waiting for one sum.
#[multiversion(targets = "simd")]
fn add(x: &[f32], first: u32, bins: Bins, cut: Cut, sums: &mut [f64; BINS + LANES]) {
    let (mut weights, mut places) = ([0f32; CHUNK], [0u32; CHUNK]);
    fill_weights(x, first, bins.scale, bins.top, cut, &mut weights);
    for (i, (x, place)) in x.iter().zip(&mut places).enumerate() {
        *place = bins.of(*x).min((BINS + i % LANES) as u32);
    }
    for (w, place) in weights[..x.len()].iter().zip(places) {
        sums[place as usize] += f64::from(*w);
    }
}

/// The entries of one bin, with their weights.
fn entries(kept: &Kept<'_>, bins: Bins, bin: u32) -> Vec<((u32, f32), f32)> {
    let mut entries = Vec::new();
    let mut at = [0; CHUNK];
    for (chunk, x) in kept.chunks().filter(|(chunk, _)| bins.of(kept.scan.maxima[*chunk]) <= bin) {
        places(x, bins, &mut at);
        for (i, x) in x.iter().enumerate().filter(|(i, _)| at[*i] == bin) {
            let index = (chunk * CHUNK + i) as u32;
            // NaN falls into the first bin; the cut does not keep it.
            if kept.cut.keeps(index, *x) {
                entries.push(((index, *x), weight((*x - bins.top) * bins.scale)));
            }
        }
    }
    entries
}

/// The entry at which the running sum of the weights, largest first, reaches `wanted`.
fn last_within(mut entries: &mut [((u32, f32), f32)], mut wanted: f64) -> Option<(u32, f32)> {
    while entries.len() > FEW {
        let middle = entries.len() / 2;
        entries.select_nth_unstable_by(middle, |a, b| larger_first(&a.0, &b.0));
        let sum: f64 = entries[..middle].iter().map(|entry| f64::from(entry.1)).sum();
        if sum >= wanted {
            entries = &mut entries[..middle];
        } else {
            wanted -= sum;
            entries = &mut entries[middle..];
        }
    }
    entries.sort_unstable_by(|a, b| larger_first(&a.0, &b.0));
    let mut sum = 0.0;
    let reaches = |entry: &&((u32, f32), f32)| {
        sum += f64::from(entry.1);
        sum >= wanted
    };
    entries.iter().find(reaches).or(entries.last()).map(|entry| entry.0)
}
