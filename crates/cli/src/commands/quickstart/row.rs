//! One model's scores on a question set, computed from its replies.

use std::collections::HashMap;
use std::path::Path;

use anyhow::Context as _;
use embodied_r_data::question::{Question, read_questions};
use embodied_r_eval::{pass_at, samples};
use embodied_r_policy::tokenizer::Tokenizer;
use embodied_r_rewards::answer::{letter, think_tag};
use embodied_r_sim::views::perceived;
use embodied_r_sim::{Grounding, grounding};
use serde::Serialize;

use super::scores::{Marks, Scores, Tally};

/// A model's scores; shares are per cent.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Row {
    /// What was evaluated.
    pub(super) name: &'static str,
    /// Scores of the greedy replies.
    #[serde(flatten)]
    pub(super) scores: Scores,
    /// Greedy replies that quote a true sighting of an object that the question names.
    pub(super) reasons: f64,
    /// Greedy replies that are correct and sound.
    pub(super) sound_at_1: f64,
    /// Questions with a correct and sound reply among 8 samples at temperature 1 (pass@8).
    pub(super) sound_at_8: f64,
    /// Supervised examples that the model was trained on.
    pub(super) supervised_examples: usize,
}

/// Samples per question of `sound_at_8`.
pub(super) const SAMPLES: usize = 8;

/// The files that a row is computed from.
pub(super) struct Replies<'a> {
    /// Questions with greedy replies, as `infer` writes them.
    pub(super) greedy: &'a Path,
    /// [`SAMPLES`] replies to each of the same questions, as `eval --pass-at` writes them.
    pub(super) sampled: &'a Path,
    /// The model's directory, for its tokenizer.
    pub(super) model: &'a Path,
}

impl Row {
    /// Scores a model's replies.
    pub(super) fn read(
        name: &'static str,
        supervised_examples: usize,
        replies: &Replies<'_>,
    ) -> anyhow::Result<Self> {
        let tokenizer = Tokenizer::from_dir(replies.model)?;
        let questions = read_questions(replies.greedy)?;
        let (mut tally, mut reasons, mut sound) = (Tally::default(), 0usize, 0usize);
        for question in &questions {
            let reply = question.content.as_deref().unwrap_or_default();
            let judged = Judged::new(perceived(question), &question.answer, reply)?;
            tally.add(judged.marks, tokenizer.encode(reply)?.len());
            reasons += usize::from(judged.reasons);
            sound += usize::from(judged.is_sound());
        }
        let share = |count: usize| 100.0 * count as f64 / questions.len().max(1) as f64;
        Ok(Self {
            name,
            scores: tally.scores(),
            reasons: share(reasons),
            sound_at_1: share(sound),
            sound_at_8: 100.0 * sound_at_8(replies.sampled, &questions)?,
            supervised_examples,
        })
    }

    /// The heads of the table.
    pub(super) const HEADS: [&str; 10] = [
        "rooms never seen",
        "n",
        "accuracy",
        "parsable",
        "of parsable",
        "reasons",
        "sound@1",
        "sound@8",
        "tokens",
        "supervised examples",
    ];

    /// The cells of the table.
    pub(super) fn cells(&self) -> Vec<String> {
        let shares = [self.reasons, self.sound_at_1, self.sound_at_8].map(|it| format!("{it:.1}"));
        let mut cells = vec![self.name.to_owned()];
        cells.extend(self.scores.cells().into_iter().chain(shares));
        cells.push(format!("{:.0}", self.scores.tokens));
        cells.push(self.supervised_examples.to_string());
        cells
    }
}

/// What a program can tell of one reply.
pub(super) struct Judged {
    pub(super) marks: Marks,
    reasons: bool,
    sound: bool,
}

impl Judged {
    pub(super) fn new(prompt: &str, solution: &str, reply: &str) -> anyhow::Result<Self> {
        let grounded = think_tag(reply)
            .zip(letter(reply).ok())
            .and_then(|(think, letter)| grounding(prompt, think, letter));
        let Grounding { reasons, sound } =
            grounded.unwrap_or(Grounding { reasons: false, sound: false });
        Ok(Self { marks: Marks::new(prompt, solution, reply)?, reasons, sound })
    }

    /// Whether the reply is correct and well formed.
    pub(super) fn is_right(&self) -> bool {
        self.marks.correct == 1.0 && self.marks.parsable
    }

    /// Whether the reply is correct, well formed and sound.
    fn is_sound(&self) -> bool {
        self.is_right() && self.sound
    }
}

/// The mean over questions of pass@8, whose prompts are those of `questions`, where a sample passes if it is correct and sound.
fn sound_at_8(sampled: &Path, questions: &[Question]) -> anyhow::Result<f64> {
    let prompts: HashMap<String, &str> =
        questions.iter().map(|question| (question.id(), perceived(question))).collect();
    let questions = samples::read(sampled)?;
    let mut sum = 0.0;
    for question in &questions {
        let prompt = prompts.get(&question.id).copied().unwrap_or(&question.question);
        let mut sound = 0;
        for reply in &question.samples {
            let judged = Judged::new(prompt, &question.solution, reply)?;
            sound += usize::from(judged.is_sound());
        }
        sum += pass_at(question.samples.len(), sound, SAMPLES)
            .with_context(|| format!("question {} in `{}`", question.id, sampled.display()))?;
    }
    Ok(sum / questions.len().max(1) as f64)
}
