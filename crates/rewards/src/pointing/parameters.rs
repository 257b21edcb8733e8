//! Parameters of the rewards of answers that point.

use serde::{Deserialize, Serialize};

/// A reward that falls with an error: 1 below `full`, 0 from `zero` on, linear between.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Linear {
    /// The largest error with the full reward.
    pub full: f64,
    /// The smallest error without reward.
    pub zero: f64,
}

impl Linear {
    /// The reward of an error.
    pub fn reward(&self, error: f64) -> f64 {
        match error {
            error if error < self.full => 1.0,
            error if error < self.zero => (self.zero - error) / (self.zero - self.full),
            // NaN too.
            _ => 0.0,
        }
    }

    fn fault(&self) -> Option<String> {
        let Self { full, zero } = *self;
        let valid = full >= 0.0 && full < zero && zero.is_finite();
        (!valid).then(|| format!("needs 0 ≤ full < zero, not {full} and {zero}"))
    }
}

/// Parameters of `point`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PointReward {
    /// The largest mean distance with the full reward.
    pub full: f64,
    /// The smallest mean distance without reward.
    pub zero: f64,
    /// Whether targets that no point of the answer reaches cost, too.
    pub recall: bool,
}

/// Parameters of `trace`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TraceReward {
    /// The largest root mean square of the distances with the full reward.
    pub full: f64,
    /// The smallest root mean square of the distances without reward.
    pub zero: f64,
}

/// Parameters of `trace_3d`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Trace3dReward {
    /// The largest error in the image with the full reward.
    pub full: f64,
    /// The smallest error in the image without reward.
    pub zero: f64,
    /// The largest error of the depth with the full reward, in metres.
    pub depth_full: f64,
    /// The smallest error of the depth without reward, in metres.
    pub depth_zero: f64,
}

impl Default for PointReward {
    fn default() -> Self {
        Self { full: 40.0, zero: 150.0, recall: false }
    }
}

impl Default for TraceReward {
    fn default() -> Self {
        Self { full: 50.0, zero: 120.0 }
    }
}

impl Default for Trace3dReward {
    fn default() -> Self {
        Self { full: 50.0, zero: 130.0, depth_full: 0.1, depth_zero: 0.4 }
    }
}

impl PointReward {
    /// The reward of a mean distance.
    pub fn of_distance(&self) -> Linear {
        Linear { full: self.full, zero: self.zero }
    }
}

impl TraceReward {
    /// The reward of a root mean square.
    pub fn of_image(&self) -> Linear {
        Linear { full: self.full, zero: self.zero }
    }
}

impl Trace3dReward {
    /// The reward of an error in the image.
    pub fn of_image(&self) -> Linear {
        Linear { full: self.full, zero: self.zero }
    }

    /// The reward of an error of the depth.
    pub fn of_depth(&self) -> Linear {
        Linear { full: self.depth_full, zero: self.depth_zero }
    }
}

/// Parameters of all answer types that point; by default those that Embodied-R1.5 was trained with. Distances are on a grid of
/// 0 to 1000 over the image's width and height.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct PointingRewards {
    /// Of `point`, by the mean distance to the nearest true point.
    pub point: PointReward,
    /// Of `trace`, by the root mean square of the distances.
    pub trace: TraceReward,
    /// Of `trace_3d`.
    pub trace_3d: Trace3dReward,
}

impl PointingRewards {
    /// The settings that are out of range, by their names, and what is wrong with them.
    pub fn faults(&self) -> Vec<(&'static str, String)> {
        [
            ("point_reward", self.point.of_distance()),
            ("trace_reward", self.trace.of_image()),
            ("trace_3d_reward", self.trace_3d.of_image()),
            ("trace_3d_reward", self.trace_3d.of_depth()),
        ]
        .into_iter()
        .filter_map(|(name, linear)| Some((name, linear.fault()?)))
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reward_is_linear_between_its_ends() {
        let reward = Linear { full: 40.0, zero: 150.0 };
        for (error, expected) in [
            (0.0, 1.0),
            (39.9, 1.0),
            (40.0, 1.0),
            (95.0, 0.5),
            (150.0, 0.0),
            (1e9, 0.0),
            (f64::NAN, 0.0),
        ] {
            assert_eq!(reward.reward(error), expected, "{error}");
        }
    }

    #[test]
    fn parameters_out_of_order_are_named() {
        assert_eq!(PointingRewards::default().faults(), []);
        let mut rewards = PointingRewards::default();
        rewards.point.full = 150.0;
        rewards.trace.full = -1.0;
        rewards.trace_3d.depth_zero = f64::INFINITY;
        let named: Vec<_> = rewards.faults().into_iter().map(|(name, _)| name).collect();
        assert_eq!(named, ["point_reward", "trace_reward", "trace_3d_reward"]);
    }
}
