//! Matching features between two images.

use multiversion::multiversion;

use super::features::{Descriptor, Features, Keypoint};
use super::homography::{Homography, Point};

/// Maximum Hamming distance of a match, out of 256 bits; unrelated descriptors differ in about 128.
const MAX_DISTANCE: u32 = 80;

/// Two features that are mutual nearest neighbors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Match {
    /// Index of the feature in the first image.
    pub a: usize,
    /// Index of the feature in the second one.
    pub b: usize,
    /// Hamming distance of their descriptors.
    pub distance: u32,
}

/// All pairs of mutual nearest neighbors, by ascending distance.
#[multiversion(targets = "simd")]
#[must_use]
pub fn cross_checked(a: &[Descriptor], b: &[Descriptor]) -> Vec<Match> {
    // Distance in the high bits, index in the low ones: the minimum is the first nearest feature.
    let key = |distance: u32, index: usize| u64::from(distance) << 32 | index as u64;
    let index = |key: u64| (key & u64::from(u32::MAX)) as usize;
    // Structure of arrays, so that SIMD compares eight descriptors at once.
    let mut words = [const { Vec::new() }; 4];
    for (k, words) in words.iter_mut().enumerate() {
        words.extend(b.iter().map(|descriptor| descriptor.0[k]));
    }
    let count = b.len();
    let [w0, w1, w2, w3] = words.each_ref().map(|words| &words[..count]);
    let mut nearest_of_b = vec![u64::MAX; count];
    let mut nearest_of_a = Vec::with_capacity(a.len());
    for (i, &Descriptor(first)) in a.iter().enumerate() {
        let mut nearest = u64::MAX;
        let back = &mut nearest_of_b[..count];
        for j in 0..count {
            let distance = (first[0] ^ w0[j]).count_ones()
                + (first[1] ^ w1[j]).count_ones()
                + (first[2] ^ w2[j]).count_ones()
                + (first[3] ^ w3[j]).count_ones();
            nearest = nearest.min(key(distance, j));
            back[j] = back[j].min(key(distance, i));
        }
        nearest_of_a.push(nearest);
    }
    let mutual = |(a, &nearest): (usize, &u64)| {
        let (b, distance) = (index(nearest), (nearest >> 32) as u32);
        let is_mutual = nearest_of_b.get(b).is_some_and(|back| index(*back) == a);
        (distance <= MAX_DISTANCE && is_mutual).then_some(Match { a, b, distance })
    };
    let mut matches: Vec<Match> = nearest_of_a.iter().enumerate().filter_map(mutual).collect();
    matches.sort_by_key(|m| m.distance);
    matches
}

/// Search radius around a feature's projection, in pixels.
const GUIDED_PX: f64 = 10.0;

/// The pairs of mutual nearest neighbors among the features that `homography` projects near each
/// other. An approximate homography suffices: the restricted search finds more correct matches.
#[must_use]
pub fn guided(a: &Features, b: &Features, homography: &Homography) -> Vec<Match> {
    let by_row = Rows::of(a);
    let mut nearest_of_a = vec![(u32::MAX, 0); a.points.len()];
    let mut nearest_of_b = Vec::with_capacity(b.points.len());
    for (j, (point, descriptor)) in b.points.iter().zip(&b.descriptors).enumerate() {
        let mut nearest = (u32::MAX, 0);
        if let Some((x, y)) = homography.apply((point.x, point.y)) {
            for &(i, other) in by_row.around(y) {
                if (other.0 - x).powi(2) + (other.1 - y).powi(2) <= GUIDED_PX * GUIDED_PX {
                    let distance = descriptor.distance(&a.descriptors[i]);
                    nearest = nearest.min((distance, i));
                    nearest_of_a[i] = nearest_of_a[i].min((distance, j));
                }
            }
        }
        nearest_of_b.push(nearest);
    }
    let mutual = |(b, &(distance, a)): (usize, &(u32, usize))| {
        let is_mutual = nearest_of_a.get(a).is_some_and(|back| *back == (distance, b));
        (distance <= MAX_DISTANCE && is_mutual).then_some(Match { a, b, distance })
    };
    nearest_of_b.iter().enumerate().filter_map(mutual).collect()
}

/// Features with their positions, sorted by y.
struct Rows(Vec<(usize, Point)>);

impl Rows {
    fn of(features: &Features) -> Self {
        let point = |point: &Keypoint| (point.x, point.y);
        let mut rows: Vec<_> = features.points.iter().map(point).enumerate().collect();
        rows.sort_by(|(_, a), (_, b)| a.1.total_cmp(&b.1));
        Self(rows)
    }

    /// The features within [`GUIDED_PX`] above or below `y`.
    fn around(&self, y: f64) -> &[(usize, Point)] {
        let from = self.0.partition_point(|(_, point)| point.1 < y - GUIDED_PX);
        let rest = self.0.get(from..).unwrap_or_default();
        // They are few: a linear scan is faster than a binary search.
        let count = rest.iter().take_while(|(_, point)| point.1 <= y + GUIDED_PX).count();
        rest.get(..count).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mutual_neighbors_match() {
        let d = |bits: u64| Descriptor([bits, 0, 0, 0]);
        // The second of `a` is nearest to the first of `b`, which is nearer to the first of `a`.
        let a = [d(0b0000), d(0b0011), d(u64::MAX)];
        let b = [d(0b0001), d(u64::MAX - 1)];
        let pairs: Vec<_> = cross_checked(&a, &b).iter().map(|m| (m.a, m.b, m.distance)).collect();
        assert_eq!(pairs, [(0, 0, 1), (2, 1, 1)]);
    }

    #[test]
    fn different_descriptors_do_not_match() {
        let a = [Descriptor([0, 0, 0, 0])];
        let b = [Descriptor([u64::MAX, u64::MAX, 0, 0])];
        assert_eq!(cross_checked(&a, &b), []);
    }

    #[test]
    fn guided_matching_distinguishes_identical_descriptors() {
        let at = |positions: [f64; 3]| Features {
            points: positions.map(|x| Keypoint { x, y: 20.0, scale: 1.0 }).to_vec(),
            descriptors: vec![Descriptor::default(); 3],
        };
        let shift = Homography([1.0, 0.0, 100.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]);
        let found = guided(&at([155.0, 103.0, 400.0]), &at([0.0, 50.0, 200.0]), &shift);
        let pairs: Vec<_> = found.iter().map(|m| (m.a, m.b)).collect();
        assert_eq!(pairs, [(1, 0), (0, 1)]);
    }

    #[test]
    fn no_features_no_matches() {
        assert_eq!(cross_checked(&[], &[Descriptor::default()]), []);
        assert_eq!(cross_checked(&[Descriptor::default()], &[]), []);
    }
}
