//! The loss of one token as a function of its ratio and its log-probability.

use super::LossType;
use crate::settings::LossSettings;

/// Log-ratios to the reference are clamped to this, so that the exponential does not overflow.
const LOG_RATIO_BOUND: f64 = 20.0;

/// A token's loss and derivatives.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Term {
    pub(super) loss: f64,
    /// Derivative by the ratio.
    pub(super) d_ratio: f64,
    /// Derivative by the log-probability, apart from the ratio.
    pub(super) d_logp: f64,
    /// The ratio is clipped below and the advantage is negative.
    pub(super) clipped_low: bool,
    /// The ratio is clipped above and the advantage is positive.
    pub(super) clipped_high: bool,
}

impl Term {
    pub(super) fn new(settings: &LossSettings, ratio: f64, advantage: f64, logp: f64) -> Self {
        match settings.loss_type {
            LossType::Cispo => cispo(settings, ratio, advantage, logp),
            LossType::Sapo => sapo(settings, ratio, advantage),
            LossType::Grpo | LossType::Bnpo | LossType::DrGrpo | LossType::Dapo => {
                clipped(settings, ratio, advantage)
            }
        }
    }
}

/// `-min(min(ratio, delta) A, clamp(ratio, 1 - epsilon, 1 + epsilon_high) A)`.
fn clipped(settings: &LossSettings, ratio: f64, advantage: f64) -> Term {
    let (low, high) = (1.0 - settings.epsilon, 1.0 + settings.epsilon_high());
    let delta = settings.delta.unwrap_or(f64::INFINITY);
    let free = Branch { value: ratio.min(delta) * advantage, passes: ratio <= delta };
    let bounded =
        Branch { value: ratio.clamp(low, high) * advantage, passes: (low..=high).contains(&ratio) };
    // If both are equal, each gets half of the derivative, as in PyTorch's `min`.
    let share = |mine: f64, other: f64| match mine.partial_cmp(&other) {
        Some(std::cmp::Ordering::Less) => 1.0,
        Some(std::cmp::Ordering::Equal) => 0.5,
        _ => 0.0,
    };
    let passed = free.passed(share(free.value, bounded.value))
        + bounded.passed(share(bounded.value, free.value));
    Term {
        loss: -free.value.min(bounded.value),
        d_ratio: -advantage * passed,
        d_logp: 0.0,
        clipped_low: ratio < low && advantage < 0.0,
        clipped_high: ratio > high && advantage > 0.0,
    }
}

struct Branch {
    value: f64,
    /// Whether the gradient passes through.
    passes: bool,
}

impl Branch {
    fn passed(&self, share: f64) -> f64 {
        if self.passes { share } else { 0.0 }
    }
}

/// `-min(ratio, epsilon_high) A logp`, with the weight detached.
fn cispo(settings: &LossSettings, ratio: f64, advantage: f64, logp: f64) -> Term {
    let weight = ratio.min(settings.epsilon_high()) * advantage;
    Term {
        loss: -weight * logp,
        d_logp: -weight,
        clipped_high: ratio > settings.epsilon_high() && advantage > 0.0,
        ..Term::default()
    }
}

/// `-sigmoid(tau (ratio - 1)) (4 / tau) A`.
fn sapo(settings: &LossSettings, ratio: f64, advantage: f64) -> Term {
    let tau = match advantage > 0.0 {
        true => settings.sapo_temperature_pos,
        false => settings.sapo_temperature_neg,
    };
    let gate = 1.0 / (1.0 + (-tau * (ratio - 1.0)).exp());
    Term {
        loss: -gate * 4.0 / tau * advantage,
        d_ratio: -4.0 * gate * (1.0 - gate) * advantage,
        d_logp: 0.0,
        clipped_low: ratio < 1.0 - settings.epsilon && advantage < 0.0,
        clipped_high: ratio > 1.0 + settings.epsilon_high() && advantage > 0.0,
    }
}

/// The k3 KL estimator of one token.
#[derive(Debug, Clone, Copy)]
pub(super) struct K3 {
    pub(super) value: f64,
    pub(super) d_logp: f64,
    /// Whether the log-ratio was clamped.
    pub(super) bounded: bool,
}

/// `exp(d) - d - 1` with `d = reference logp - policy logp`.
pub(super) fn k3(log_ratio: f64) -> K3 {
    let d = log_ratio.clamp(-LOG_RATIO_BOUND, LOG_RATIO_BOUND);
    let bounded = d != log_ratio;
    let d_logp = if bounded { 0.0 } else { 1.0 - d.exp() };
    K3 { value: d.exp() - d - 1.0, d_logp, bounded }
}
