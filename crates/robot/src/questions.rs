//! Questions about the next key point, from demonstrations.
//!
//! Each start frame gives up to three questions ([`Kind`]). The options of four questions of one split are the answers
//! of all four (`blocks`), so that a rule that sees the options alone is right in a quarter of them. `movements` says
//! how movements differ.

mod balance;
mod movements;

use std::collections::BTreeMap;

use embodied_r_random::{Rng, stream};
use serde::Serialize;

use crate::blocks::{self, Points};
use crate::demonstration::{Demonstration, Position, distance};
use crate::error::{Error, Result};
use crate::key_points::{KeyPoint, start_frames};
use crate::kind::Kind;
use crate::movement::Movement;
use crate::prompt::{AnswerForm, Prompts};
use crate::split::Split;

/// Tell the random numbers of blocks and of boxes from all others of the seed.
const BLOCKS: u64 = 2;
const BOXES: u64 = 3;

/// Draws of a distractor in a box, until it is far enough from the answer and the others.
const ATTEMPTS: usize = 10_000;

/// Where the distractors of waypoint questions come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Distractors {
    /// Other key points of the same task.
    Keypoints,
    /// Random positions in the robot's workspace, as the paper can be read. The text alone separates many of them from key
    /// points.
    Box,
}

/// Settings of questions.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct QuestionOptions {
    /// Every how many frames is a start frame.
    pub stride: usize,
    /// Options or positions as answers.
    pub form: AnswerForm,
    /// Where the distractors of waypoint questions come from.
    pub distractors: Distractors,
    /// The least distance of two options in metres.
    #[serde(rename = "min_distance_m")]
    pub min_distance: f64,
    /// Axes that move less than this, in metres, are not in movements.
    #[serde(rename = "movement_epsilon_m")]
    pub movement_epsilon: f64,
    /// Whether each split has as many questions of each kind.
    pub balance_kinds: bool,
    /// Seed of splits, options and letters.
    pub seed: u64,
}

/// A demonstration with what follows from it.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// The demonstration.
    pub demonstration: &'a Demonstration,
    /// Its key points.
    pub key_points: &'a [KeyPoint],
    /// What it is for.
    pub split: Split,
    /// In [`Split::HeldOut`], the tasks that questions are about: the episode may have others. Empty for all.
    pub held_out_tasks: &'a [String],
}

impl Source<'_> {
    fn is_asked(&self, task: &str) -> bool {
        let tasks = self.held_out_tasks;
        self.split != Split::HeldOut
            || tasks.is_empty()
            || tasks.iter().any(|held_out| is_same_task(held_out, task))
    }
}

/// Whether two instructions are the same, case and outer spaces aside.
pub(crate) fn is_same_task(a: &str, b: &str) -> bool {
    a.trim().to_lowercase() == b.trim().to_lowercase()
}

/// A frame that questions are about.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StartFrame {
    /// The index of the demonstration's [`Source`].
    pub source: usize,
    /// The frame.
    pub frame: usize,
    /// The frame of the next key point.
    pub key_point: usize,
    /// The position now.
    pub state: Position,
    /// The position of the next key point.
    pub target: Position,
    /// The movement from one to the other; `None` if no axis moves.
    pub movement: Option<Movement>,
}

/// A question.
#[derive(Debug, Clone, PartialEq)]
pub struct RobotQuestion {
    /// What it asks for.
    pub kind: Kind,
    /// What it is for.
    pub split: Split,
    /// The frame that it is about.
    pub start: StartFrame,
    /// The texts of its four options; none if it is open-ended.
    pub options: Vec<String>,
    /// The option that is the answer.
    pub answer: usize,
}

/// How many questions there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Count {
    /// Questions.
    pub questions: usize,
    /// Start frames without a question of the kind: their answers fit into no set of balanced options, or nothing moves.
    pub left_out: usize,
    /// Questions that were left out because there are fewer of another kind.
    pub surplus: usize,
}

/// Questions in order of split, episode, frame and kind.
#[derive(Debug, Clone, PartialEq)]
pub struct Questions {
    /// The questions.
    pub questions: Vec<RobotQuestion>,
    /// Their numbers.
    pub counts: BTreeMap<(Split, Kind), Count>,
}

impl QuestionOptions {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`Error::Option`] if one is out of range.
    pub fn check(&self) -> Result<()> {
        let fault = |option, reason: &str| Err(Error::Option { option, reason: reason.to_owned() });
        let is_length = |value: f64| value.is_finite() && value >= 0.0;
        if self.stride == 0 {
            return fault("--stride", "must be at least 1");
        }
        if !is_length(self.min_distance) {
            return fault("--min-distance", "must be a length of 0 m or more");
        }
        if !is_length(self.movement_epsilon) {
            return fault("--movement-epsilon", "must be a length of 0 m or more");
        }
        Ok(())
    }
}

/// The start frames of each split and task.
type Pools<'a> = BTreeMap<(Split, &'a str), Vec<StartFrame>>;

/// The questions about `sources`, as `prompts` writes them.
///
/// # Errors
/// [`Error::Option`] if a setting is out of range or `--min-distance` leaves no room in the workspace,
/// [`Error::NoQuestions`] if there are none.
pub fn questions(
    sources: &[Source<'_>],
    prompts: &Prompts<'_>,
    options: &QuestionOptions,
) -> Result<Questions> {
    options.check()?;
    let mut pools = Pools::new();
    for (source, of) in sources.iter().enumerate() {
        let demonstration = of.demonstration;
        // Splits without questions are counted, too.
        pools.entry((of.split, demonstration.task(0))).or_default();
        let at = |(frame, key_point): (usize, KeyPoint)| {
            let (from, to) = (
                demonstration.positions.get(frame)?,
                demonstration.positions.get(key_point.frame)?,
            );
            Some(StartFrame {
                source,
                frame,
                key_point: key_point.frame,
                state: *from,
                target: *to,
                movement: Movement::between(*from, *to, options.movement_epsilon),
            })
        };
        for start in start_frames(of.key_points, options.stride).filter_map(at) {
            let task = demonstration.task(start.frame);
            if of.is_asked(task) {
                pools.entry((of.split, task)).or_default().push(start);
            }
        }
    }
    let mut made = Questions { questions: Vec::new(), counts: BTreeMap::new() };
    for (index, (&(split, _), pool)) in pools.iter().enumerate() {
        for (number, kind) in [(0, Kind::Waypoint), (1, Kind::State)] {
            let draft = Draft { kind, split, pool, prompts, options };
            let words = [options.seed, BLOCKS, number, index as u64];
            made.add(split, kind, pool.len(), draft.questions(&mut Rng::new(&words))?);
        }
    }
    if options.form == AnswerForm::MultipleChoice {
        movements::add(&mut made, &pools, prompts, options);
    }
    if made.questions.is_empty() {
        let reason = match pools.values().all(Vec::is_empty) {
            true => "no demonstration has a key point after its first frame",
            false => {
                "no four answers of a task differ enough to be each other's options; give more episodes, or lower \
                 `--min-distance`"
            }
        };
        return Err(Error::NoQuestions { reason: reason.to_owned() });
    }
    if options.balance_kinds {
        balance::balance(&mut made, options.seed);
    }
    let key = |question: &RobotQuestion| {
        let StartFrame { source, frame, .. } = question.start;
        (question.split, sources[source].demonstration.episode, frame, question.kind)
    };
    made.questions.sort_by_key(key);
    Ok(made)
}

impl Questions {
    /// Adds questions about some of `starts` more start frames.
    fn add(&mut self, split: Split, kind: Kind, starts: usize, questions: Vec<RobotQuestion>) {
        let count = self.counts.entry((split, kind)).or_default();
        count.questions += questions.len();
        count.left_out = count.left_out + starts - questions.len();
        self.questions.extend(questions);
    }
}

/// The questions of a kind about start frames of a split.
struct Draft<'a> {
    kind: Kind,
    split: Split,
    pool: &'a [StartFrame],
    prompts: &'a Prompts<'a>,
    options: &'a QuestionOptions,
}

impl Draft<'_> {
    fn questions(&self, rng: &mut Rng) -> Result<Vec<RobotQuestion>> {
        match (self.options.form, self.kind, self.options.distractors) {
            (AnswerForm::OpenEnded, ..) => {
                Ok(self.pool.iter().map(|start| self.question(*start, Vec::new(), 0)).collect())
            }
            (_, Kind::Waypoint, Distractors::Box) => self.in_a_box(rng),
            _ => Ok(self.in_blocks(rng)),
        }
    }

    fn question(&self, start: StartFrame, options: Vec<String>, answer: usize) -> RobotQuestion {
        RobotQuestion { kind: self.kind, split: self.split, start, options, answer }
    }

    /// Questions whose options are the answers of four of them.
    fn in_blocks(&self, rng: &mut Rng) -> Vec<RobotQuestion> {
        let Self { prompts, options, .. } = self;
        let movable: Vec<StartFrame> = match self.kind {
            Kind::Movement => {
                self.pool.iter().filter(|start| start.movement.is_some()).copied().collect()
            }
            Kind::Waypoint | Kind::State => self.pool.to_vec(),
        };
        let position = |start: &StartFrame| match self.kind {
            Kind::State => start.state,
            Kind::Waypoint | Kind::Movement => start.target,
        };
        let (blocks, texts): (_, Vec<String>) = match self.kind {
            Kind::Waypoint | Kind::State => {
                // As they are read, so that no two options are the same text.
                let points: Vec<Position> =
                    movable.iter().map(|start| prompts.rounded(position(start))).collect();
                let states: Vec<Position> = movable.iter().map(|start| start.state).collect();
                let given = Points {
                    points: &points,
                    min_distance: options.min_distance,
                    shown: (self.kind == Kind::Waypoint).then_some(states.as_slice()),
                };
                let blocks = blocks::of_points(given, rng);
                (blocks, points.iter().map(|point| prompts.position(*point)).collect())
            }
            Kind::Movement => {
                let movements: Vec<Movement> =
                    movable.iter().filter_map(|start| start.movement).collect();
                let wording = prompts.wording();
                let text = |movement: &Movement| movement.text(prompts.robot, wording);
                (blocks::of_movements(&movements, rng), movements.iter().map(text).collect())
            }
        };
        let mut made = Vec::new();
        for block in blocks {
            for (question, shown) in block.iter().zip(blocks::options_of(block, rng)) {
                let answer = shown.iter().position(|option| option == question).unwrap_or(0);
                let shown = shown.map(|option| texts[option].clone()).to_vec();
                made.push(self.question(movable[*question], shown, answer));
            }
        }
        made
    }

    /// Waypoint questions whose distractors are anywhere in the workspace.
    fn in_a_box(&self, rng: &mut Rng) -> Result<Vec<RobotQuestion>> {
        let mut letters: Vec<usize> = (0..self.pool.len()).map(|index| index % 4).collect();
        rng.shuffle(&mut letters);
        let place = |(start, letter): (&StartFrame, usize)| {
            let words = [self.options.seed, BOXES, start.source as u64, start.frame as u64];
            let mut rng = Rng::new(&[stream(&words)]);
            let mut shown = vec![self.prompts.rounded(start.target)];
            while shown.len() < blocks::OPTIONS {
                shown.push(self.distractor(&shown, &mut rng)?);
            }
            shown.swap(0, letter);
            let shown = shown.iter().map(|position| self.prompts.position(*position)).collect();
            Ok(self.question(*start, shown, letter))
        };
        self.pool.iter().zip(letters).map(place).collect()
    }

    /// A position of the workspace far enough from all of `others`.
    fn distractor(&self, others: &[Position], rng: &mut Rng) -> Result<Position> {
        let workspace = &self.prompts.robot.workspace;
        for _ in 0..ATTEMPTS {
            let mut drawn = [0.0; 3];
            for (axis, value) in drawn.iter_mut().enumerate() {
                *value = rng.between(workspace.min[axis], workspace.max[axis]);
            }
            let drawn = self.prompts.rounded(drawn);
            let is_far = |other: &Position| {
                *other != drawn && distance(*other, drawn) >= self.options.min_distance
            };
            if others.iter().all(is_far) {
                return Ok(drawn);
            }
        }
        let reason =
            "leaves no room for four options in the robot's workspace; lower it".to_owned();
        Err(Error::Option { option: "--min-distance", reason })
    }
}

#[cfg(test)]
mod tests;
