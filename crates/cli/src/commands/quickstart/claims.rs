//! What the quickstart claims, compared with its results.

use serde::Serialize;

use super::baselines::{RANDOM_REWARDS, SFT};
use super::row::Row;
use crate::exit::Status;

/// A claim with its measured value.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Claim {
    pub(super) holds: bool,
    /// What is claimed, the measured value and its bound.
    pub(super) text: String,
}

/// Claims as they are checked.
#[derive(Default)]
pub(super) struct Claims(pub(super) Vec<Claim>);

impl Claims {
    pub(super) fn at_least(&mut self, value: f64, least: f64, what: &str) {
        let text = format!("{what}: {value:.1} (at least {least:.1})");
        self.0.push(Claim { holds: value >= least, text });
    }

    pub(super) fn at_most(&mut self, value: f64, most: f64, what: &str) {
        let text = format!("{what}: {value:.1} (at most {most:.1})");
        self.0.push(Claim { holds: value <= most, text });
    }

    /// That `trained` is at least `margin` points above the row of this name, if it was run.
    fn over(&mut self, trained: &Row, rows: &[Row], (name, margin): (&str, f64)) {
        if let Some(baseline) = named(rows, name) {
            let over = trained.scores.accuracy_of_parsable - baseline.scores.accuracy_of_parsable;
            let what = format!("trained over {name}, accuracy of parsable replies");
            self.at_least(over, margin, &what);
        }
    }

    /// That random rewards teach nothing, if they were run.
    fn random_rewards(&mut self, start: &Row, rows: &[Row]) {
        if let Some(random) = named(rows, RANDOM_REWARDS) {
            let gain = random.scores.accuracy - start.scores.accuracy;
            self.at_most(gain, 6.0, "random rewards over cold start, accuracy");
        }
    }
}

fn named<'a>(rows: &'a [Row], name: &str) -> Option<&'a Row> {
    rows.iter().find(|row| row.name == name)
}

/// The cold start and the trained model.
fn main_rows(rows: &[Row]) -> Option<[&Row; 2]> {
    Some([named(rows, "cold start")?, named(rows, "trained")?])
}

/// Points of accuracy that GRPO adds to the cold start, and to the best SFT on the same worked examples.
const MARGIN: f64 = 10.0;

/// The same with `--vision`.
const VISION_MARGIN: f64 = 8.0;

/// The claims whose rows were run. `blind_guess` is the accuracy of guessing, per cent.
pub(super) fn claims(rows: &[Row], blind_guess: f64) -> Vec<Claim> {
    let Some([start, trained]) = main_rows(rows) else { return Vec::new() };
    let mut claims = Claims::default();
    claims.at_least(start.reasons, 95.0, "cold start, replies that reason");
    claims.at_least(start.scores.parsable, 95.0, "cold start, parsable replies");
    for name in ["cold start", SFT, "sft answers"] {
        claims.over(trained, rows, (name, MARGIN));
    }
    claims.over(trained, rows, ("rejection sampling", 5.0));
    let sound = trained.sound_at_1 - start.sound_at_1;
    let half = (trained.scores.accuracy - start.scores.accuracy) / 2.0;
    claims.at_least(sound, half, "trained over cold start, sound@1");
    let sound = trained.sound_at_8 - start.sound_at_8;
    claims.at_least(sound, -3.0, "trained over cold start, sound@8");
    claims.random_rewards(start, rows);
    if let Some(shuffled) = named(rows, "captions shuffled") {
        let off = (shuffled.scores.accuracy - blind_guess).abs();
        claims.at_most(off, 6.0, "captions shuffled, distance from a blind guess");
    }
    claims.0
}

/// Rows of models that do not see the frames of their questions.
pub(super) const BLIND: [&str; 3] = ["frames of other rooms", "grey frames", "no images"];

/// Least share of replies from frames that quote a true sighting, per cent. Captions can be copied; a bearing that is read
/// from pixels may be off by the 10 degrees of its rounding.
const SIGHTS: f64 = 80.0;

/// The claims of `quickstart --vision`. `blind_guess` is the accuracy of guessing, per cent.
pub(super) fn vision_claims(rows: &[Row], blind_guess: f64) -> Vec<Claim> {
    let Some([start, trained]) = main_rows(rows) else { return Vec::new() };
    let mut claims = Claims::default();
    claims.at_least(start.reasons, SIGHTS, "cold start, replies that reason from a true sighting");
    claims.at_least(start.scores.parsable, 95.0, "cold start, parsable replies");
    for name in ["cold start", SFT] {
        claims.over(trained, rows, (name, VISION_MARGIN));
    }
    claims.random_rewards(start, rows);
    for blind in BLIND.into_iter().filter_map(|name| named(rows, name)) {
        let off = (blind.scores.accuracy_of_parsable - blind_guess).abs();
        claims.at_most(off, 6.0, &format!("{}, distance from a blind guess", blind.name));
    }
    claims.0
}

/// How the command ends: with `is_strict`, a claim that fails is a failure.
pub(super) fn status(claims: &[Claim], is_strict: bool) -> Status {
    match is_strict && claims.iter().any(|claim| !claim.holds) {
        true => Status::ClaimFailed,
        false => Status::Done,
    }
}

/// One line per claim.
pub(super) fn listed(claims: &[Claim]) -> String {
    let line = |claim: &Claim| {
        let outcome = if claim.holds { "holds" } else { "FAILS" };
        format!("{outcome}  {}\n", claim.text)
    };
    claims.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::super::scores::Scores;
    use super::*;

    fn row(name: &'static str, accuracy: f64, sound_at_1: f64) -> Row {
        Row {
            name,
            scores: Scores {
                n: 300,
                accuracy,
                stderr: 2.0,
                parsable: 99.0,
                accuracy_of_parsable: accuracy,
                tokens: 50.0,
            },
            reasons: 98.0,
            sound_at_1,
            sound_at_8: 80.0,
            supervised_examples: 80,
        }
    }

    fn unparsable(row: Row) -> Row {
        Row { scores: Scores { parsable: 94.0, ..row.scores }, ..row }
    }

    fn failing(rows: &[Row]) -> Vec<String> {
        let failed = claims(rows, 25.0).into_iter().filter(|claim| !claim.holds);
        failed.map(|claim| claim.text.split(':').next().unwrap_or_default().to_owned()).collect()
    }

    #[test]
    fn a_gain_in_skill_beyond_all_baselines_holds() {
        let rows = [
            row("cold start", 45.0, 30.0),
            row("trained", 70.0, 60.0),
            row("captions shuffled", 27.0, 10.0),
            row(SFT, 55.0, 40.0),
            row("rejection sampling", 60.0, 50.0),
            row("random rewards", 47.0, 30.0),
        ];
        assert_eq!(failing(&rows), Vec::<String>::new());
    }

    #[test]
    fn a_claim_that_fails_is_a_failure_if_strict() {
        let (start, trained) = (row("cold start", 45.0, 30.0), row("trained", 70.0, 60.0));
        let holding = claims(&[start.clone(), trained], 25.0);
        let failing = claims(&[start.clone(), Row { name: "trained", ..start }], 25.0);
        assert_eq!(status(&holding, true), Status::Done);
        assert_eq!(status(&failing, false), Status::Done);
        assert_eq!(status(&failing, true), Status::ClaimFailed);
    }

    #[test]
    fn each_claim_about_frames_fails_alone() {
        let (start, trained) = (row("cold start", 70.0, 60.0), row("trained", 85.0, 80.0));
        let failing = |rows: &[Row]| {
            let failed = vision_claims(rows, 25.0).into_iter().filter(|claim| !claim.holds);
            failed.map(|claim| claim.text).collect::<Vec<_>>()
        };
        let blind = BLIND.map(|name| row(name, 27.0, 0.0));
        let sft = row(SFT, 76.0, 65.0);
        let all = [&[start.clone(), trained.clone(), sft][..], &blind].concat();
        assert_eq!(vision_claims(&all, 25.0).len(), 7);
        assert_eq!(failing(&all), Vec::<String>::new());

        let small = failing(&[start.clone(), row("trained", 77.0, 70.0)]);
        assert_eq!(small.len(), 1, "{small:?}");
        assert!(small[0].starts_with("trained over cold start"), "{small:?}");
        for (name, accuracy) in [(SFT, 78.0), (RANDOM_REWARDS, 77.0)] {
            let failed = failing(&[start.clone(), trained.clone(), row(name, accuracy, 0.0)]);
            assert_eq!(failed.len(), 1, "{failed:?}");
            assert!(failed[0].contains(name), "{failed:?}");
        }
        for name in BLIND {
            for accuracy in [18.0, 32.0] {
                let seen = failing(&[start.clone(), trained.clone(), row(name, accuracy, 0.0)]);
                assert_eq!(seen.len(), 1, "{seen:?}");
                assert!(seen[0].starts_with(name), "{seen:?}");
            }
        }
        let direct = unparsable(Row { reasons: 70.0, ..start });
        assert_eq!(failing(&[direct, trained]).len(), 2);
    }

    #[test]
    fn each_claim_fails_alone() {
        let good = [row("cold start", 45.0, 30.0), row("trained", 70.0, 60.0)];
        let with = |more: Row| failing(&[&good[..], &[more]].concat());
        for (name, accuracy) in [(SFT, 61.0), ("sft answers", 61.0), ("rejection sampling", 66.0)] {
            let expected = format!("trained over {name}, accuracy of parsable replies");
            assert_eq!(with(row(name, accuracy, 0.0)), [expected]);
        }
        assert_eq!(
            with(row("random rewards", 52.0, 0.0)),
            ["random rewards over cold start, accuracy"]
        );
        let off = ["captions shuffled, distance from a blind guess"];
        assert_eq!(with(row("captions shuffled", 32.0, 0.0)), off);
        assert_eq!(with(row("captions shuffled", 18.0, 0.0)), off);

        let small = [good[0].clone(), row("trained", 54.0, 60.0)];
        assert_eq!(failing(&small), ["trained over cold start, accuracy of parsable replies"]);
        let unsound = [good[0].clone(), row("trained", 70.0, 40.0)];
        assert_eq!(failing(&unsound), ["trained over cold start, sound@1"]);
        let narrow = Row { sound_at_8: 76.0, ..good[1].clone() };
        assert_eq!(failing(&[good[0].clone(), narrow]), ["trained over cold start, sound@8"]);
        let direct = unparsable(Row { reasons: 90.0, ..good[0].clone() });
        let expected = ["cold start, replies that reason", "cold start, parsable replies"];
        assert_eq!(failing(&[direct, good[1].clone()]), expected);
    }
}
