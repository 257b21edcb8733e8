//! Statistics of an episode, as LeRobot computes them in `compute_stats.py`: minimum, maximum, mean, standard deviation of
//! the population, and quantiles. The quantiles here are exact (linear interpolation, NumPy's default); LeRobot's come from
//! a histogram.

use std::collections::BTreeMap;

use image::RgbImage;

use super::options::WriterOptions;
use super::table::Episode;
use crate::episode::Column;

/// The quantiles of v3.0 and their names.
pub(super) const QUANTILES: [(&str, f64); 5] =
    [("q01", 0.01), ("q10", 0.10), ("q50", 0.50), ("q90", 0.90), ("q99", 0.99)];

/// The statistics of a feature over an episode, or over all.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Stats {
    pub(super) kind: Kind,
    /// Of rows, or of images.
    pub(super) count: u64,
    pub(super) min: Vec<f64>,
    pub(super) max: Vec<f64>,
    pub(super) mean: Vec<f64>,
    pub(super) std: Vec<f64>,
    /// By quantile, then by value.
    pub(super) quantiles: [Vec<f64>; QUANTILES.len()],
}

/// What the values are, on which their form in the files depends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Floats,
    Integers,
    /// Channels of images, of the shape (3, 1, 1), from 0 to 1.
    Channels,
}

/// The statistics of an episode by feature.
pub(super) type EpisodeStats = BTreeMap<String, Stats>;

impl Stats {
    /// Of rows of `width` values.
    fn of_rows(kind: Kind, width: usize, values: &[f64]) -> Self {
        let columns = (0..width).map(|at| {
            let mut column: Vec<f64> = values.iter().skip(at).step_by(width).copied().collect();
            column.sort_by(f64::total_cmp);
            let value = |rank: usize| column.get(rank).copied().unwrap_or(0.0);
            Moments::of(column.iter().map(|value| (*value, 1.0)))
                .with_quantiles(column.len(), value)
        });
        Self::of_columns(kind, (values.len() / width.max(1)) as u64, columns.collect())
    }

    fn of_columns(kind: Kind, count: u64, columns: Vec<Moments>) -> Self {
        let each = |of: fn(&Moments) -> f64| columns.iter().map(of).collect();
        Self {
            kind,
            count,
            min: each(|column| column.min),
            max: each(|column| column.max),
            mean: each(|column| column.mean),
            std: each(|column| column.std),
            quantiles: std::array::from_fn(|at| {
                columns.iter().map(|column| column.quantiles[at]).collect()
            }),
        }
    }

    /// Of several episodes: minima and maxima, and means of means and quantiles weighted by counts, as in LeRobot.
    pub(super) fn aggregate(episodes: &[&Self]) -> Option<Self> {
        let first = episodes.first()?;
        let total: f64 = episodes.iter().map(|stats| stats.count as f64).sum();
        let each = |fold: &dyn Fn(usize) -> f64| (0..first.mean.len()).map(fold).collect();
        let weighted = |of: &dyn Fn(&Self) -> f64| {
            episodes.iter().map(|stats| of(stats) * stats.count as f64).sum::<f64>() / total
        };
        let mean: Vec<f64> = each(&|at| weighted(&|stats| stats.mean[at]));
        let variance = |at: usize| {
            weighted(&|stats| stats.std[at].powi(2) + (stats.mean[at] - mean[at]).powi(2))
        };
        Some(Self {
            kind: first.kind,
            count: episodes.iter().map(|stats| stats.count).sum(),
            min: each(&|at| episodes.iter().map(|it| it.min[at]).fold(f64::INFINITY, f64::min)),
            max: each(&|at| episodes.iter().map(|it| it.max[at]).fold(f64::NEG_INFINITY, f64::max)),
            std: each(&|at| variance(at).sqrt()),
            quantiles: std::array::from_fn(|q| each(&|at| weighted(&|it| it.quantiles[q][at]))),
            mean,
        })
    }
}

/// The statistics of one value.
#[derive(Debug, Default)]
struct Moments {
    min: f64,
    max: f64,
    mean: f64,
    std: f64,
    quantiles: [f64; QUANTILES.len()],
}

impl Moments {
    /// Of values with their frequencies.
    fn of(values: impl Iterator<Item = (f64, f64)> + Clone) -> Self {
        let (mut min, mut max) = (f64::INFINITY, f64::NEG_INFINITY);
        let (mut total, mut sum) = (0.0, 0.0);
        for (value, count) in values.clone().filter(|(_, count)| *count > 0.0) {
            (min, max) = (min.min(value), max.max(value));
            total += count;
            sum += count * value;
        }
        let mean = sum / total;
        let squares: f64 = values.map(|(value, count)| count * (value - mean).powi(2)).sum();
        Self { min, max, mean, std: (squares / total).sqrt(), quantiles: [0.0; QUANTILES.len()] }
    }

    /// With the quantiles of `count` values, of which `value` knows the one of a rank.
    fn with_quantiles(mut self, count: usize, value: impl Fn(usize) -> f64) -> Self {
        for (quantile, (_, share)) in self.quantiles.iter_mut().zip(QUANTILES) {
            let rank = share * count.saturating_sub(1) as f64;
            let (below, above) = (value(rank as usize), value((rank as usize + 1).min(count - 1)));
            *quantile = below + (above - below) * rank.fract();
        }
        self
    }
}

/// Statistics of the images of an episode, of which a sample is looked at.
pub(super) struct ImageStats {
    /// The sampled frames, ascending.
    sampled: Vec<usize>,
    seen: usize,
    /// Every so many pixels of a row and a column are looked at.
    step: usize,
    /// How often each channel has each value.
    counts: [[u64; 256]; 3],
}

impl ImageStats {
    /// Of an episode of `length` frames of a size.
    pub(super) fn new(length: usize, (width, height): (u32, u32)) -> Self {
        // `auto_downsample_height_width`.
        const TARGET: u32 = 150;
        const THRESHOLD: u32 = 300;
        let longer = width.max(height);
        let step = if longer < THRESHOLD { 1 } else { longer / TARGET } as usize;
        Self { sampled: sample(length), seen: 0, step, counts: [[0; 256]; 3] }
    }

    /// Takes the next frame.
    pub(super) fn add(&mut self, frame: &RgbImage) {
        if self.sampled.binary_search(&self.seen).is_ok() {
            let rows = frame.rows().step_by(self.step);
            for pixel in rows.flat_map(|row| row.step_by(self.step)) {
                for (counts, value) in self.counts.iter_mut().zip(pixel.0) {
                    counts[usize::from(value)] += 1;
                }
            }
        }
        self.seen += 1;
    }

    fn stats(&self) -> Stats {
        let channels = self.counts.iter().map(|counts| {
            let scaled = |value: usize| value as f64 / 255.0;
            let values = counts.iter().enumerate();
            let total: u64 = counts.iter().sum();
            let value = |rank: usize| {
                let mut below = 0;
                let found = counts.iter().position(|count| {
                    below += count;
                    below > rank as u64
                });
                scaled(found.unwrap_or(255))
            };
            Moments::of(values.map(|(value, count)| (scaled(value), *count as f64)))
                .with_quantiles(total as usize, value)
        });
        Stats::of_columns(Kind::Channels, self.sampled.len() as u64, channels.collect())
    }
}

/// The frames of `length` of which LeRobot computes statistics, `sample_indices`.
fn sample(length: usize) -> Vec<usize> {
    const LEAST: usize = 100;
    const MOST: usize = 10_000;
    let power = (length as f64).powf(0.75) as usize;
    let count = power.min(MOST).max(LEAST.min(length));
    let step = length.saturating_sub(1) as f64 / count.saturating_sub(1).max(1) as f64;
    let mut frames: Vec<usize> =
        (0..count).map(|at| (at as f64 * step).round_ties_even() as usize).collect();
    frames.dedup();
    frames
}

/// The statistics of all features of an episode.
pub(super) fn of_episode(
    options: &WriterOptions,
    episode: &Episode,
    columns: &BTreeMap<String, Column>,
    images: &ImageStats,
) -> EpisodeStats {
    let mut all = EpisodeStats::new();
    for (key, column) in columns {
        let values: Vec<f64> = column.values.iter().map(|value| f64::from(*value as f32)).collect();
        all.insert(key.clone(), Stats::of_rows(Kind::Floats, column.width, &values));
    }
    let rows = |value: &dyn Fn(usize) -> f64| (0..episode.length).map(value).collect::<Vec<f64>>();
    let fps = f64::from(options.fps);
    let times = rows(&|frame| f64::from((frame as f64 / fps) as f32));
    all.insert("timestamp".to_owned(), Stats::of_rows(Kind::Floats, 1, &times));
    let indices: [(&str, Vec<f64>); 4] = [
        ("frame_index", rows(&|frame| frame as f64)),
        ("episode_index", rows(&|_| episode.index as f64)),
        ("index", rows(&|frame| (episode.first_row + frame) as f64)),
        ("task_index", rows(&|_| episode.task as f64)),
    ];
    for (name, values) in indices {
        all.insert(name.to_owned(), Stats::of_rows(Kind::Integers, 1, &values));
    }
    all.insert(options.camera.key.clone(), images.stats());
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_are_those_of_numpy() {
        let stats = Stats::of_rows(Kind::Floats, 2, &[1.0, -1.0, 2.0, -1.0, 4.0, 5.0, 9.0, -1.0]);
        assert_eq!((stats.count, stats.min, stats.max), (4, vec![1.0, -1.0], vec![9.0, 5.0]));
        assert_eq!(stats.mean, [4.0, 0.5]);
        // numpy.std([1, 2, 4, 9]) and of [-1, -1, 5, -1].
        let expected = [9.5_f64.sqrt(), 6.75_f64.sqrt()];
        assert!(stats.std.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12));
        // numpy.quantile([1, 2, 4, 9], q).
        let first: Vec<f64> = stats.quantiles.iter().map(|quantile| quantile[0]).collect();
        let expected = [1.03, 1.3, 3.0, 7.5, 8.85];
        assert!(first.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-9), "{first:?}");
    }

    #[test]
    fn aggregated_moments_are_those_of_all_rows() {
        let rows: Vec<f64> = (0..10).map(|it| f64::from(it * it)).collect();
        let parts = [&rows[..3], &rows[3..]].map(|part| Stats::of_rows(Kind::Floats, 1, part));
        let whole = Stats::of_rows(Kind::Floats, 1, &rows);
        let all = Stats::aggregate(&[&parts[0], &parts[1]]).unwrap();
        assert_eq!((all.count, all.min.clone(), all.max.clone()), (10, whole.min, whole.max));
        assert!((all.mean[0] - whole.mean[0]).abs() < 1e-12);
        assert!((all.std[0] - whole.std[0]).abs() < 1e-12);
        let median = (parts[0].quantiles[2][0] * 3.0 + parts[1].quantiles[2][0] * 7.0) / 10.0;
        assert_eq!(all.quantiles[2][0], median);
    }

    #[test]
    fn the_sampled_frames_are_those_of_lerobot() {
        assert_eq!(sample(1), [0]);
        assert_eq!(sample(5), [0, 1, 2, 3, 4]);
        assert_eq!(sample(100).len(), 100);
        // numpy.round(numpy.linspace(0, 149, 100)).
        assert_eq!(sample(150)[..6], [0, 2, 3, 5, 6, 8]);
        assert_eq!((sample(1000).len(), sample(1000)[176]), (177, 999));
    }

    #[test]
    fn images_are_scaled_to_one_and_counted() {
        let mut stats = ImageStats::new(2, (16, 16));
        for value in [0, 255] {
            stats.add(&RgbImage::from_pixel(16, 16, image::Rgb([value, 51, 255 - value])));
        }
        let stats = stats.stats();
        assert_eq!(
            (stats.count, stats.min, stats.max),
            (2, vec![0.0, 0.2, 0.0], vec![1.0, 0.2, 1.0])
        );
        assert_eq!((stats.mean, stats.std), (vec![0.5, 0.2, 0.5], vec![0.5, 0.0, 0.5]));
        assert_eq!(stats.quantiles[2], [0.5, 0.2, 0.5]);
    }
}
