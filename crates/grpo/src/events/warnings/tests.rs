use super::*;

/// Metrics of a healthy step.
fn healthy() -> Metrics {
    let metrics = [
        ("loss", 0.05),
        ("reward", 0.5),
        ("reward_std", 0.2),
        ("frac_reward_zero_std", 0.25),
        ("rewards/format/mean", 0.5),
        ("completions/clipped_ratio", 0.1),
        ("kl", 0.001),
        ("grad_norm", 0.3),
    ];
    metrics.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn with(changes: &[(&str, f64)]) -> Metrics {
    let mut metrics = healthy();
    metrics.extend(changes.iter().map(|(name, value)| ((*name).to_owned(), *value)));
    metrics
}

fn observation<'a>(
    step: u64,
    metrics: &'a Metrics,
    format: &'a FormatFailures,
) -> StepObservation<'a> {
    StepObservation {
        step,
        metrics,
        optimizer_steps: 1,
        format,
        estimator: AdvantageEstimator::Grpo,
    }
}

/// The warnings of a sequence of steps: step, kind and message.
fn warnings(
    steps: impl IntoIterator<Item = Metrics>,
    format: &FormatFailures,
) -> Vec<(u64, WarningKind, String)> {
    let mut watch = WarningMonitor::default();
    let mut warnings = Vec::new();
    for (step, metrics) in (1..).zip(steps) {
        for event in watch.observe(&observation(step, &metrics, format)) {
            let Event::Warning { step, concern, message } = event else { panic!("{event:?}") };
            warnings.push((step, concern, message));
        }
    }
    warnings
}

fn concerns(steps: impl IntoIterator<Item = Metrics>) -> Vec<(u64, WarningKind)> {
    let warnings = warnings(steps, &FormatFailures::default());
    warnings.into_iter().map(|(step, concern, _)| (step, concern)).collect()
}

fn same(metrics: Metrics, steps: usize) -> impl Iterator<Item = Metrics> {
    std::iter::repeat_n(metrics, steps)
}

#[test]
fn a_healthy_run_gets_no_warning() {
    assert_eq!(concerns(same(healthy(), 250)), []);
}

#[test]
fn lasting_zero_rewards_are_warned_about_and_repeated_later() {
    let nothing = with(&[("reward", 0.0), ("reward_std", 0.0), ("frac_reward_zero_std", 1.0)]);
    assert_eq!(concerns(same(nothing.clone(), 9)), []);
    let wanted = [(10, WarningKind::NoReward), (110, WarningKind::NoReward)];
    assert_eq!(
        concerns(same(nothing.clone(), 150)),
        wanted,
        "without a second warning about zero variance"
    );
    let broken = same(nothing.clone(), 9).chain([healthy()]).chain(same(nothing, 9));
    assert_eq!(concerns(broken), []);
}

#[test]
fn rewards_that_cancel_out_are_not_rewards_of_0() {
    assert_eq!(concerns(same(with(&[("reward", 0.0), ("reward_std", 0.7)]), 50)), []);
}

#[test]
fn zero_variance_groups_are_warned_about() {
    let flat = with(&[("reward", 0.7), ("frac_reward_zero_std", 1.0)]);
    assert_eq!(concerns(same(flat, 50)), [(10, WarningKind::ZeroVariance)]);
}

#[test]
fn reinforce_plus_plus_is_warned_about_if_all_rewards_are_equal() {
    let of = |reward_std: f64| {
        let metrics =
            with(&[("reward", 0.7), ("frac_reward_zero_std", 1.0), ("reward_std", reward_std)]);
        let (format, mut watch) = (FormatFailures::default(), WarningMonitor::default());
        let observe = |step| {
            let estimator = AdvantageEstimator::ReinforcePlusPlus;
            let observed = StepObservation { estimator, ..observation(step, &metrics, &format) };
            watch.observe(&observed).len()
        };
        (1..=50).map(observe).sum::<usize>()
    };
    assert_eq!([of(0.2), of(0.0)], [0, 1]);
}

#[test]
fn a_loss_near_0_is_explained_once_and_only_if_expected() {
    let near = with(&[("loss", -1e-9)]);
    assert_eq!(concerns(same(near.clone(), 300)), [(1, WarningKind::LossNearZero)]);
    assert_eq!(concerns(same(with(&[("loss", 0.0), ("grad_norm", 0.0)]), 50)), []);
    let format = FormatFailures::default();
    let observation = StepObservation { optimizer_steps: 2, ..observation(1, &near, &format) };
    assert_eq!(
        WarningMonitor::default().observe(&observation),
        [],
        "the ratios of a second optimizer step are not 1"
    );
}

#[test]
fn many_truncated_completions_are_warned_about() {
    let steps = |share| same(with(&[("completions/clipped_ratio", share)]), 50);
    assert_eq!(concerns(steps(0.2)), []);
    assert_eq!(concerns(steps(0.21)), [(10, WarningKind::Truncation)]);
    let one_bad_step = same(healthy(), 20)
        .chain([with(&[("completions/clipped_ratio", 1.0)])])
        .chain(same(healthy(), 20));
    assert_eq!(concerns(one_bad_step), []);
}

#[test]
fn a_rising_kl_is_warned_about() {
    let steps =
        |early, late| same(with(&[("kl", early)]), 20).chain(same(with(&[("kl", late)]), 30));
    assert_eq!(concerns(steps(0.001, 0.09)), [], "a steep rise below the minimum");
    assert_eq!(concerns(steps(0.05, 0.4)), [], "less than ten times the baseline");
    assert_eq!(concerns(steps(0.001, 0.2)), [(30, WarningKind::KlRising)]);
}

#[test]
fn a_new_reference_gets_a_new_kl_baseline() {
    let format = FormatFailures::default();
    let mut watch = WarningMonitor::default();
    let mut step = 0;
    let mut observe = |watch: &mut WarningMonitor, kl: f64, steps: usize| {
        let metrics = with(&[("kl", kl)]);
        let mut warnings = 0;
        for _ in 0..steps {
            step += 1;
            warnings += watch.observe(&observation(step, &metrics, &format)).len();
        }
        warnings
    };
    assert_eq!(observe(&mut watch, 0.001, 25), 0);
    watch.reference_changed();
    assert_eq!(observe(&mut watch, 0.2, 60), 0);
}

#[test]
fn a_missing_format_is_reported_with_its_likely_cause() {
    let reasons = |reason: &'static str| {
        FormatFailures::count([Some(reason), Some(reason), Some("other"), None].into_iter())
    };
    let last = |metrics: Metrics, format: &FormatFailures| {
        let warnings = warnings(same(metrics, 10), format);
        warnings.into_iter().find(|(_, concern, _)| *concern == WarningKind::NoFormat).unwrap().2
    };
    let none = with(&[("rewards/format/mean", 0.0)]);
    assert_eq!(
        last(none.clone(), &reasons("`<answer>` is missing")),
        "no completion has had the expected format for 10 steps: `<answer>` is missing \
         in 50 % of the last step's completions; the model does not know the format; check `system_prompt` and the \
         chat template, or start with supervised fine-tuning (`sft`)"
    );
    assert!(last(none, &reasons("the completion is empty")).contains("chat template and its stop"));
    let cut = with(&[("rewards/format/mean", 0.0), ("completions/clipped_ratio", 0.8)]);
    let warnings = last(cut, &reasons("`</answer>` is missing"));
    assert!(warnings.contains("80 % of them are truncated"), "{warnings}");
}

#[test]
fn a_restored_monitor_warns_as_the_original() {
    let nothing = with(&[("reward", 0.0), ("reward_std", 0.0), ("kl", 0.3)]);
    let format = FormatFailures::default();
    let mut watch = WarningMonitor::default();
    for step in 1..=120 {
        let text = serde_json::to_string(&watch).unwrap();
        let mut saved: WarningMonitor = serde_json::from_str(&text).unwrap();
        assert_eq!(saved, watch);
        let observation = observation(step, &nothing, &format);
        assert_eq!(watch.observe(&observation), saved.observe(&observation));
    }
}

#[test]
fn the_saved_keys_are_those_of_earlier_checkpoints() {
    let saved = serde_json::to_value(WarningMonitor::default()).unwrap();
    let mut keys: Vec<&str> = saved.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    let earlier =
        ["clipped", "early_kl", "early_steps", "kl", "no_format", "no_reward", "no_spread", "told"];
    assert_eq!(keys, earlier);
}

#[test]
fn the_logged_kinds_are_those_of_earlier_versions() {
    let kinds = [
        (WarningKind::NoReward, "no_reward"),
        (WarningKind::ZeroVariance, "no_spread"),
        (WarningKind::NoFormat, "no_format"),
        (WarningKind::LossNearZero, "loss_near_zero"),
        (WarningKind::Truncation, "truncation"),
        (WarningKind::KlRising, "kl_rising"),
        (WarningKind::OtherData, "other_data"),
        (WarningKind::SeveralIterations, "several_iterations"),
    ];
    for (concern, logged) in kinds {
        assert_eq!(serde_json::to_value(concern).unwrap(), logged);
    }
}
