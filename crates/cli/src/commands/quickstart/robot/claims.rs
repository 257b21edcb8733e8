//! What `quickstart --robot` claims, compared with its results.

use embodied_r_robot::Kind;

use super::super::baselines::{RANDOM_REWARDS, SFT};
use super::super::claims::{Claim, Claims};
use super::super::scores::Scores;
use super::baselines::GREY_IN_TRAINING;
use super::row::{KindRow, Scope};
use super::{COLD_START, GREY, TRAINED};

/// The kinds that a policy can partly learn without images, from the task and the state in the prompt.
const LEARNED_BLIND: [Kind; 2] = [Kind::Waypoint, Kind::Movement];

/// The claims whose rows were run. `blind_guess` is the accuracy of guessing, per cent.
pub(super) fn claims(rows: &[KindRow], blind_guess: f64) -> Vec<Claim> {
    let scores = |name, kind| scores(rows, name, kind);
    let over = |kind, name, other| -> Option<f64> {
        Some(scores(name, kind)?.accuracy - scores(other, kind)?.accuracy)
    };
    let mut claims = Claims::default();
    if let Some(gain) = over(Scope::All, TRAINED, SFT) {
        claims.at_least(gain, 5.0, "trained over the best SFT, accuracy");
    }
    for kind in Kind::ALL {
        if let Some(gain) = over(Scope::Of(kind), TRAINED, COLD_START) {
            let what = format!("trained over cold start, accuracy of {}", kind.name());
            claims.at_least(gain, -3.0, &what);
        }
    }
    if let Some(grey) = scores(GREY, Scope::Of(Kind::State)) {
        let off = (grey.accuracy_of_parsable - blind_guess).abs();
        claims.at_most(off, 6.0, "grey images, state: distance from a blind guess");
    }
    for kind in LEARNED_BLIND {
        if let Some(gain) = over(Scope::Of(kind), TRAINED, GREY_IN_TRAINING) {
            let what = format!("trained over {GREY_IN_TRAINING}, accuracy of {}", kind.name());
            claims.at_least(gain, 5.0, &what);
        }
    }
    if let Some(gain) = over(Scope::All, RANDOM_REWARDS, COLD_START) {
        claims.at_most(gain, 6.0, "random rewards over cold start, accuracy");
    }
    claims.0
}

fn scores<'a>(rows: &'a [KindRow], name: &str, kind: Scope) -> Option<&'a Scores> {
    rows.iter().find(|row| row.name == name && row.kind == kind).map(|row| &row.scores)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of a model: over all, and of waypoint, state and movement questions.
    fn model(name: &'static str, accuracies: [f64; 4]) -> Vec<KindRow> {
        let row = |(kind, accuracy)| KindRow {
            name,
            kind,
            scores: Scores {
                n: 300,
                accuracy,
                stderr: 2.0,
                parsable: 100.0,
                accuracy_of_parsable: accuracy,
                tokens: 50.0,
            },
            supervised_examples: 60,
        };
        Scope::all().zip(accuracies).map(row).collect()
    }

    fn all() -> Vec<Vec<KindRow>> {
        vec![
            model(COLD_START, [40.0, 40.0, 40.0, 40.0]),
            model(TRAINED, [60.0, 60.0, 50.0, 70.0]),
            model(SFT, [45.0, 45.0, 45.0, 45.0]),
            model(GREY, [35.0, 45.0, 27.0, 40.0]),
            model(GREY_IN_TRAINING, [42.0, 50.0, 25.0, 60.0]),
            model(RANDOM_REWARDS, [41.0, 40.0, 42.0, 40.0]),
        ]
    }

    fn failing(models: &[Vec<KindRow>]) -> Vec<String> {
        let failed = claims(&models.concat(), 25.0).into_iter().filter(|claim| !claim.holds);
        failed.map(|claim| claim.text).collect()
    }

    #[test]
    fn a_gain_from_images_holds() {
        assert_eq!(claims(&all().concat(), 25.0).len(), 8);
        assert_eq!(failing(&all()), Vec::<String>::new());
    }

    #[test]
    fn each_claim_fails_alone() {
        for (index, accuracies, expected) in [
            (1, [49.0, 60.0, 50.0, 70.0], "trained over the best SFT, accuracy: 4.0"),
            (1, [60.0, 60.0, 36.0, 70.0], "trained over cold start, accuracy of state: -4.0"),
            (3, [35.0, 45.0, 32.0, 40.0], "grey images, state: distance from a blind guess: 7.0"),
            (3, [35.0, 45.0, 18.0, 40.0], "grey images, state: distance from a blind guess: 7.0"),
            (
                4,
                [42.0, 56.0, 25.0, 60.0],
                "trained over trained on grey images, accuracy of waypoint",
            ),
            (
                4,
                [42.0, 50.0, 25.0, 66.0],
                "trained over trained on grey images, accuracy of movement",
            ),
            (5, [47.0, 40.0, 42.0, 40.0], "random rewards over cold start, accuracy: 7.0"),
        ] {
            let mut models = all();
            let name = models[index][0].name;
            models[index] = model(name, accuracies);
            let failed = failing(&models);
            assert_eq!(failed.len(), 1, "{failed:?}");
            assert!(failed[0].starts_with(expected), "{failed:?}");
        }
    }

    #[test]
    fn runs_without_a_kind_claim_nothing_about_it() {
        let mut rows = all()[..4].concat();
        rows.retain(|row| row.kind != Scope::Of(Kind::Movement));
        assert_eq!(claims(&rows, 25.0).len(), 4);
    }
}
