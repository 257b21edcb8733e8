use super::*;

/// Figures of a step in which all is well.
fn well() -> Metrics {
    let figures = [
        ("loss", 0.05),
        ("reward", 0.5),
        ("reward_std", 0.2),
        ("frac_reward_zero_std", 0.25),
        ("rewards/format/mean", 0.5),
        ("completions/clipped_ratio", 0.1),
        ("kl", 0.001),
        ("grad_norm", 0.3),
    ];
    figures.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn with(changes: &[(&str, f64)]) -> Metrics {
    let mut metrics = well();
    metrics.extend(changes.iter().map(|(name, value)| ((*name).to_owned(), *value)));
    metrics
}

/// What is told of steps with these figures: the step, what it is about, and the words.
fn told(steps: impl IntoIterator<Item = Metrics>, format: &Reasons) -> Vec<(u64, Concern, String)> {
    let mut watch = Watch::default();
    let mut told = Vec::new();
    for (step, metrics) in (1..).zip(steps) {
        for event in watch.look(&Seen { step, metrics: &metrics, iterations: 1, format }) {
            let Event::Warning { step, concern, message } = event else { panic!("{event:?}") };
            told.push((step, concern, message));
        }
    }
    told
}

fn concerns(steps: impl IntoIterator<Item = Metrics>) -> Vec<(u64, Concern)> {
    let told = told(steps, &Reasons::default());
    told.into_iter().map(|(step, concern, _)| (step, concern)).collect()
}

fn same(metrics: Metrics, steps: usize) -> impl Iterator<Item = Metrics> {
    std::iter::repeat_n(metrics, steps)
}

#[test]
fn nothing_is_told_where_all_is_well() {
    assert_eq!(concerns(same(well(), 250)), []);
}

#[test]
fn rewards_of_0_are_told_once_they_last_and_again_much_later() {
    let nothing = with(&[("reward", 0.0), ("reward_std", 0.0), ("frac_reward_zero_std", 1.0)]);
    assert_eq!(concerns(same(nothing.clone(), 9)), []);
    let wanted = [(10, Concern::NoReward), (110, Concern::NoReward)];
    assert_eq!(concerns(same(nothing.clone(), 150)), wanted, "and not the missing spread as well");
    let broken = same(nothing.clone(), 9).chain([well()]).chain(same(nothing, 9));
    assert_eq!(concerns(broken), []);
}

#[test]
fn rewards_that_cancel_out_are_not_rewards_of_0() {
    assert_eq!(concerns(same(with(&[("reward", 0.0), ("reward_std", 0.7)]), 50)), []);
}

#[test]
fn groups_without_spread_are_told() {
    let flat = with(&[("reward", 0.7), ("frac_reward_zero_std", 1.0)]);
    assert_eq!(concerns(same(flat, 50)), [(10, Concern::NoSpread)]);
}

#[test]
fn a_loss_near_0_is_explained_once_and_only_where_it_is_to_be_expected() {
    let near = with(&[("loss", -1e-9)]);
    assert_eq!(concerns(same(near.clone(), 300)), [(1, Concern::LossNearZero)]);
    assert_eq!(concerns(same(with(&[("loss", 0.0), ("grad_norm", 0.0)]), 50)), []);
    let format = Reasons::default();
    let seen = Seen { step: 1, metrics: &near, iterations: 2, format: &format };
    assert_eq!(Watch::default().look(&seen), [], "the ratios of a second iteration are not 1");
}

#[test]
fn many_completions_cut_off_are_told() {
    let steps = |share| same(with(&[("completions/clipped_ratio", share)]), 50);
    assert_eq!(concerns(steps(0.2)), []);
    assert_eq!(concerns(steps(0.21)), [(10, Concern::Truncation)]);
    let one_bad_step = same(well(), 20)
        .chain([with(&[("completions/clipped_ratio", 1.0)])])
        .chain(same(well(), 20));
    assert_eq!(concerns(one_bad_step), []);
}

#[test]
fn a_divergence_that_rises_is_told() {
    let steps =
        |early, late| same(with(&[("kl", early)]), 20).chain(same(with(&[("kl", late)]), 30));
    assert_eq!(concerns(steps(0.001, 0.09)), [], "far more than at first, and yet little");
    assert_eq!(concerns(steps(0.05, 0.4)), [], "much, and yet not ten times as much");
    assert_eq!(concerns(steps(0.001, 0.2)), [(30, Concern::KlRising)]);
}

#[test]
fn a_new_reference_has_early_steps_of_its_own() {
    let format = Reasons::default();
    let mut watch = Watch::default();
    let mut step = 0;
    let mut look = |watch: &mut Watch, kl: f64, steps: usize| {
        let metrics = with(&[("kl", kl)]);
        let mut told = 0;
        for _ in 0..steps {
            step += 1;
            told +=
                watch.look(&Seen { step, metrics: &metrics, iterations: 1, format: &format }).len();
        }
        told
    };
    assert_eq!(look(&mut watch, 0.001, 25), 0);
    watch.reference_changed();
    assert_eq!(look(&mut watch, 0.2, 60), 0);
}

#[test]
fn a_missing_format_is_told_with_its_likely_cause() {
    let reasons = |reason: &'static str| {
        Reasons::count([Some(reason), Some(reason), Some("other"), None].into_iter())
    };
    let last = |metrics: Metrics, format: &Reasons| {
        let told = told(same(metrics, 10), format);
        told.into_iter().find(|(_, concern, _)| *concern == Concern::NoFormat).unwrap().2
    };
    let none = with(&[("rewards/format/mean", 0.0)]);
    assert_eq!(
        last(none.clone(), &reasons("`<answer>` is missing")),
        "no completion has had the right format for 10 steps: in 50 % of the last ones `<answer>` \
         is missing; the model does not know the form, look at `system_prompt` and the chat \
         template, or begin with a cold start (`sft`)"
    );
    assert!(last(none, &reasons("the output is empty")).contains("chat template and its stop"));
    let cut = with(&[("rewards/format/mean", 0.0), ("completions/clipped_ratio", 0.8)]);
    let told = last(cut, &reasons("`</answer>` is missing"));
    assert!(told.contains("80 % of them are cut off"), "{told}");
}

#[test]
fn a_watch_that_was_saved_tells_what_the_other_one_tells() {
    let nothing = with(&[("reward", 0.0), ("reward_std", 0.0), ("kl", 0.3)]);
    let format = Reasons::default();
    let mut watch = Watch::default();
    for step in 1..=120 {
        let text = serde_json::to_string(&watch).unwrap();
        let mut saved: Watch = serde_json::from_str(&text).unwrap();
        assert_eq!(saved, watch);
        let seen = Seen { step, metrics: &nothing, iterations: 1, format: &format };
        assert_eq!(watch.look(&seen), saved.look(&seen));
    }
}
