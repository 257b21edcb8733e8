//! Measured values by name.

use candle_core::Device;
use embodied_r_grpo::estimate::peak_memory;
use indexmap::IndexMap;
use serde::{Serialize, Serializer};

/// Metrics by name, in the order of a report. They are serialized with six decimals.
#[derive(Debug, Clone, PartialEq)]
pub struct Metrics(IndexMap<&'static str, f64>);

impl Metrics {
    pub(crate) fn new<const N: usize>(metrics: [(&'static str, f64); N]) -> Self {
        Self(IndexMap::from(metrics))
    }

    pub(crate) fn add(&mut self, metrics: impl IntoIterator<Item = (&'static str, f64)>) {
        self.0.extend(metrics);
    }

    /// Adds the peak memory of the process, and of its GPU if it has one. `peak_bytes` is the device's: a GPU's tensors, or
    /// the process on a CPU.
    pub(crate) fn add_peak_memory(&mut self, device: &Device, peak_bytes: Option<u64>) {
        let process = if device.is_cpu() { peak_bytes } else { peak_memory::peak_bytes() };
        let on_device = peak_bytes.filter(|_| !device.is_cpu());
        let gb = |bytes: u64| bytes as f64 / 1e9;
        self.add(process.map(|bytes| ("peak_memory_gb", gb(bytes))));
        self.add(on_device.map(|bytes| ("peak_device_memory_gb", gb(bytes))));
    }

    /// Names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, f64)> {
        self.0.iter().map(|(name, value)| (*name, *value))
    }
}

impl Serialize for Metrics {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter().map(|(name, value)| (name, rounded(value))))
    }
}

/// The median of `values`; NaN if there are none.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// `value` with six decimals.
pub(crate) fn rounded(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_serialized_in_order_with_six_decimals() {
        let metrics = Metrics::new([("step_s", 0.123_456_78), ("mfu", 1.0), ("none", f64::NAN)]);
        let expected = r#"{"step_s":0.123457,"mfu":1.0,"none":null}"#;
        assert_eq!(serde_json::to_string(&metrics).unwrap(), expected);
    }

    #[test]
    fn the_median_is_the_upper_middle_value() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0, 3.0, 2.0].into_iter()), 3.0);
        assert!(median(std::iter::empty()).is_nan());
    }
}
