//! As many questions of each kind.

use std::collections::BTreeMap;

use embodied_r_random::Rng;

use super::{Questions, RobotQuestion};
use crate::blocks::OPTIONS;
use crate::kind::Kind;
use crate::split::Split;

/// Tells the random numbers of the selection from all others of the seed.
const BALANCE: u64 = 5;

/// Leaves as many questions of each kind in each split as of its rarest kind, in whole blocks. A kind with less than a block
/// in a split stays as it is.
pub(super) fn balance(made: &mut Questions, seed: u64) {
    let mut of: BTreeMap<(Split, Kind), Vec<RobotQuestion>> = BTreeMap::new();
    for question in std::mem::take(&mut made.questions) {
        of.entry((question.split, question.kind)).or_default().push(question);
    }
    let units: BTreeMap<(Split, Kind), Vec<Vec<RobotQuestion>>> =
        of.iter().map(|(key, questions)| (*key, units(questions))).collect();
    let mut fewest: BTreeMap<Split, usize> = BTreeMap::new();
    for ((split, _), units) in units.iter().filter(|(_, units)| !units.is_empty()) {
        let least = fewest.entry(*split).or_insert(usize::MAX);
        *least = (*least).min(units.len());
    }
    for ((key @ (split, kind), mut units), questions) in units.into_iter().zip(of.into_values()) {
        let all = questions.len();
        let kept = match units.is_empty() {
            true => questions,
            false => {
                Rng::new(&[seed, BALANCE, split as u64, kind as u64]).shuffle(&mut units);
                let most = fewest.get(&split).copied().unwrap_or(0);
                units.into_iter().take(most).flatten().collect()
            }
        };
        let count = made.counts.entry(key).or_default();
        count.questions = kept.len();
        count.surplus = all - kept.len();
        made.questions.extend(kept);
    }
}

/// Groups of four questions in which each letter is the answer once: blocks, or else questions of any four letters. Of
/// questions without options, any four. A remainder is left out.
fn units(questions: &[RobotQuestion]) -> Vec<Vec<RobotQuestion>> {
    let shown = |question: &RobotQuestion| {
        let mut options = question.options.clone();
        options.sort_unstable();
        options
    };
    let is_block = |four: &[RobotQuestion]| four.iter().all(|it| shown(it) == shown(&four[0]));
    if questions.chunks_exact(OPTIONS).all(is_block) {
        return questions.chunks_exact(OPTIONS).map(<[RobotQuestion]>::to_vec).collect();
    }
    let mut by_letter: Vec<Vec<&RobotQuestion>> = vec![Vec::new(); OPTIONS];
    for question in questions {
        if let Some(of_letter) = by_letter.get_mut(question.answer) {
            of_letter.push(question);
        }
    }
    let count = by_letter.iter().map(Vec::len).min().unwrap_or(0);
    (0..count).map(|at| by_letter.iter().map(|of_letter| of_letter[at].clone()).collect()).collect()
}
