//! Movement questions.
//!
//! A block needs four movements that differ by two edits, of which a validation split has few. So the blocks of the
//! training questions are of training alone, and those of all other questions are of all splits: first of each task, then
//! of what is left of all tasks. Which split an episode is in does not depend on its movements, so that in every split
//! each option of a set is the answer as often as the others, on average.

use std::collections::{BTreeMap, BTreeSet};

use embodied_r_random::Rng;

use super::{BLOCKS, Draft, Pools, QuestionOptions, Questions, RobotQuestion, StartFrame};
use crate::kind::Kind;
use crate::prompt::Prompts;
use crate::split::Split;

/// Tells the random numbers of letters from all others of the seed.
const LETTERS: u64 = 4;

/// Adds the movement questions of all splits.
pub(super) fn add(
    made: &mut Questions,
    pools: &Pools<'_>,
    prompts: &Prompts<'_>,
    options: &QuestionOptions,
) {
    let mut split_of = BTreeMap::new();
    let mut starts: BTreeMap<Split, usize> = BTreeMap::new();
    for (&(split, _), pool) in pools {
        split_of.extend(pool.iter().map(|start| (start.source, split)));
        *starts.entry(split).or_default() += pool.len();
    }
    let of_training = pools.iter().filter(|((split, _), _)| *split == Split::Train);
    let of_all = pools.iter();
    let training = in_blocks(of_training, prompts, options);
    let mut by_split: BTreeMap<Split, Vec<RobotQuestion>> =
        starts.keys().map(|split| (*split, Vec::new())).collect();
    for mut question in in_blocks(of_all, prompts, options) {
        question.split = split_of.get(&question.start.source).copied().unwrap_or(Split::Train);
        by_split.entry(question.split).or_default().push(question);
    }
    for (split, mut questions) in by_split {
        match split {
            Split::Train => questions.clone_from(&training),
            other => balance_letters(&mut questions, options.seed, other),
        }
        made.add(split, Kind::Movement, starts.get(&split).copied().unwrap_or(0), questions);
    }
}

/// Questions in blocks of each task, then in blocks of what is left.
fn in_blocks<'a>(
    pools: impl Iterator<Item = (&'a (Split, &'a str), &'a Vec<StartFrame>)>,
    prompts: &Prompts<'_>,
    options: &QuestionOptions,
) -> Vec<RobotQuestion> {
    let mut by_task: BTreeMap<&str, Vec<StartFrame>> = BTreeMap::new();
    for ((_, task), pool) in pools {
        by_task.entry(task).or_default().extend(pool);
    }
    let draft = |pool: &[StartFrame], number: usize| {
        let draft = Draft { kind: Kind::Movement, split: Split::Train, pool, prompts, options };
        draft.in_blocks(&mut Rng::new(&[options.seed, BLOCKS, 2, number as u64]))
    };
    let (mut questions, mut rest) = (Vec::new(), Vec::new());
    for (index, pool) in by_task.values().enumerate() {
        let made = draft(pool, index);
        let asked: BTreeSet<(usize, usize)> =
            made.iter().map(|it| (it.start.source, it.start.frame)).collect();
        let is_left = |start: &&StartFrame| !asked.contains(&(start.source, start.frame));
        rest.extend(pool.iter().filter(is_left));
        questions.extend(made);
    }
    questions.extend(draft(&rest, by_task.len()));
    questions
}

/// Gives each letter to as many answers as any other, as nearly as their number allows.
fn balance_letters(questions: &mut [RobotQuestion], seed: u64, split: Split) {
    let mut rng = Rng::new(&[seed, LETTERS, split as u64]);
    let mut letters: Vec<usize> = (0..questions.len()).map(|index| index % 4).collect();
    rng.shuffle(&mut letters);
    for (question, letter) in questions.iter_mut().zip(letters) {
        question.options.swap(question.answer, letter);
        question.answer = letter;
    }
}
