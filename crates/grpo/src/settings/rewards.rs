//! Settings of the rewards.

use embodied_r_rewards::pointing::{PointReward, PointingRewards, Trace3dReward, TraceReward};
use embodied_r_rewards::{ExternalRewardConfig, Format};
use serde::{Deserialize, Serialize};

use super::faults::Faults;

/// External rewards, and parameters of built-in ones.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RewardSettings {
    /// External rewards, computed by commands or HTTP services. Default: none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reward: Vec<ExternalRewardConfig>,
    /// Reading of the `format` reward: `strict`, where each tag occurs once and whitespace around the completion is ignored, or `official`, the
    /// regular expression of ms-swift and the paper's code, which accepts repeated tags; `r1v` is another name of it.
    /// Default: `strict`.
    pub format: Format,
    /// `accuracy` and `embodied_r15` of points: the mean distance to the nearest true point, in thousandths of the image's width and
    /// height, below which the reward is 1 (`full`) and from which it is 0 (`zero`), as Embodied-R1.5 was trained with. With `recall`,
    /// true points or regions that no answered point reaches cost, too. Default: `{ full = 40, zero = 150, recall = false }`.
    pub point_reward: PointReward,
    /// As `point_reward`, of traces, by the root mean square of the distances. Default: `{ full = 50, zero = 120 }`.
    pub trace_reward: TraceReward,
    /// As `trace_reward`, of traces with depths, whose other half is by the mean error of the depth in metres. Default:
    /// `{ full = 50, zero = 130, depth_full = 0.1, depth_zero = 0.4 }`.
    pub trace_3d_reward: Trace3dReward,
    /// Train on questions whose answer `accuracy` cannot score: neither an option letter nor a number, and without an
    /// `answer_type`. Default: false, which is an error that names them.
    pub allow_unscored: bool,
    /// `soft_overlong`: length in tokens at which the penalty reaches -1. Default: `max_completion_length`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub soft_max_length: Option<usize>,
    /// `soft_overlong`: length in tokens of the interval over which the penalty grows; required by this reward.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub soft_cache_length: Option<usize>,
    /// `repetition`: n-gram size in words. Default: 3.
    pub repetition_n_grams: usize,
    /// `repetition`: maximum penalty, 0 or less, approached by a fully repetitive completion. Default: -1.
    pub repetition_max_penalty: f64,
    /// `cosine`: reward of a wrong answer of length 0. Default: -0.5.
    pub cosine_min_len_value_wrong: f64,
    /// `cosine`: reward of a wrong answer of `cosine_max_len` tokens. Default: 0.
    pub cosine_max_len_value_wrong: f64,
    /// `cosine`: reward of a correct answer of length 0. Default: 1.
    pub cosine_min_len_value_correct: f64,
    /// `cosine`: reward of a correct answer of `cosine_max_len` tokens. Default: 0.5.
    pub cosine_max_len_value_correct: f64,
    /// `cosine`: length in tokens at the end of the curve. Default: `max_completion_length`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cosine_max_len: Option<usize>,
    /// Compute and log the rewards that a stage or `reward_weights` lists even while their weight is 0. This does not
    /// change training, but the judge and external rewards take time; `accuracy` and `format` are always logged.
    /// Default: false.
    pub log_unweighted_rewards: bool,
}

impl Default for RewardSettings {
    fn default() -> Self {
        Self {
            reward: Vec::new(),
            format: Format::Strict,
            point_reward: PointReward::default(),
            trace_reward: TraceReward::default(),
            trace_3d_reward: Trace3dReward::default(),
            allow_unscored: false,
            soft_max_length: None,
            soft_cache_length: None,
            repetition_n_grams: 3,
            repetition_max_penalty: -1.0,
            cosine_min_len_value_wrong: -0.5,
            cosine_max_len_value_wrong: 0.0,
            cosine_min_len_value_correct: 1.0,
            cosine_max_len_value_correct: 0.5,
            cosine_max_len: None,
            log_unweighted_rewards: false,
        }
    }
}

impl RewardSettings {
    /// Parameters of answers that point.
    pub fn pointing(&self) -> PointingRewards {
        PointingRewards {
            point: self.point_reward,
            trace: self.trace_reward,
            trace_3d: self.trace_3d_reward,
        }
    }

    /// Checks the parameters of built-in rewards.
    pub(super) fn add_faults(&self, faults: &mut Faults) {
        let given =
            [("soft_max_length", self.soft_max_length), ("cosine_max_len", self.cosine_max_len)];
        for (key, value) in given {
            faults.unless(value != Some(0), key, || "must be at least 1, not 0".into());
        }
        faults.at_least("repetition_n_grams", self.repetition_n_grams as u64, 1);
        let penalty = self.repetition_max_penalty;
        faults.unless(penalty <= 0.0 && penalty.is_finite(), "repetition_max_penalty", || {
            format!("must be 0 or less, not {penalty}")
        });
        for (key, value) in [
            ("cosine_min_len_value_wrong", self.cosine_min_len_value_wrong),
            ("cosine_max_len_value_wrong", self.cosine_max_len_value_wrong),
            ("cosine_min_len_value_correct", self.cosine_min_len_value_correct),
            ("cosine_max_len_value_correct", self.cosine_max_len_value_correct),
        ] {
            faults.unless(value.is_finite(), key, || format!("must be finite, not {value}"));
        }
        for (key, fault) in self.pointing().faults() {
            faults.unless(false, key, || fault);
        }
    }
}
