//! One model's scores on a question set, computed from its replies.

use std::collections::HashMap;
use std::path::Path;

use anyhow::Context as _;
use embodied_r_data::question::{Question, read_questions};
use embodied_r_eval::{pass_at, samples};
use embodied_r_policy::tokenizer::Tokenizer;
use embodied_r_rewards::answer::{letter, think_tag};
use embodied_r_rewards::{Accuracy, Format, Reward, RewardInput};
use embodied_r_sim::views::perceived;
use embodied_r_sim::{Grounding, grounding};
use serde::Serialize;

/// A model's scores; shares are per cent.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Row {
    /// What was evaluated.
    pub(super) name: &'static str,
    /// Number of questions.
    pub(super) n: usize,
    /// Correct greedy replies.
    pub(super) accuracy: f64,
    /// Standard error of `accuracy`.
    pub(super) stderr: f64,
    /// Well-formed greedy replies.
    pub(super) parsable: f64,
    /// Correct replies among the well-formed ones.
    pub(super) accuracy_of_parsable: f64,
    /// Greedy replies that quote a true sighting of an object that the question names.
    pub(super) reasons: f64,
    /// Greedy replies that are correct and sound.
    pub(super) sound_at_1: f64,
    /// Questions with a correct and sound reply among 8 samples at temperature 1 (pass@8).
    pub(super) sound_at_8: f64,
    /// Mean length of the greedy replies.
    pub(super) tokens: f64,
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
        let n = questions.len();
        let mut sums = Sums::default();
        for question in &questions {
            let reply = question.content.as_deref().unwrap_or_default();
            let judged = Judged::new(perceived(question), &question.answer, reply)?;
            sums.add(&judged, tokenizer.encode(reply)?.len());
        }
        let share = |count: f64| 100.0 * count / n.max(1) as f64;
        let accuracy = share(sums.correct);
        let fraction = accuracy / 100.0;
        Ok(Self {
            name,
            n,
            accuracy,
            stderr: 100.0 * (fraction * (1.0 - fraction) / n.max(1) as f64).sqrt(),
            parsable: share(sums.parsable),
            accuracy_of_parsable: 100.0 * sums.correct_parsable / sums.parsable.max(1.0),
            reasons: share(sums.reasons),
            sound_at_1: share(sums.sound),
            sound_at_8: 100.0 * sound_at_8(replies.sampled, &questions)?,
            tokens: sums.tokens / n.max(1) as f64,
            supervised_examples,
        })
    }
}

/// The accuracy of a file of questions with replies, per cent.
pub(super) fn accuracy(answers: &Path) -> anyhow::Result<f64> {
    let questions = read_questions(answers)?;
    let mut correct = 0.0;
    for question in &questions {
        let reply = question.content.as_deref().unwrap_or_default();
        correct += Judged::new(perceived(question), &question.answer, reply)?.correct;
    }
    Ok(100.0 * correct / questions.len().max(1) as f64)
}

#[derive(Default)]
struct Sums {
    correct: f64,
    parsable: f64,
    correct_parsable: f64,
    reasons: f64,
    sound: f64,
    tokens: f64,
}

impl Sums {
    fn add(&mut self, judged: &Judged, tokens: usize) {
        let one = |holds: bool| f64::from(u8::from(holds));
        self.correct += judged.correct;
        self.parsable += one(judged.parsable);
        self.correct_parsable += judged.correct * one(judged.parsable);
        self.reasons += one(judged.reasons);
        self.sound += one(judged.is_sound());
        self.tokens += tokens as f64;
    }
}

/// What a program can tell of one reply.
pub(super) struct Judged {
    pub(super) correct: f64,
    pub(super) parsable: bool,
    reasons: bool,
    sound: bool,
}

impl Judged {
    pub(super) fn new(prompt: &str, solution: &str, reply: &str) -> anyhow::Result<Self> {
        let input = [RewardInput {
            question: prompt,
            solution,
            completion: reply,
            ..RewardInput::default()
        }];
        let of = |reward: &dyn Reward| -> anyhow::Result<f64> {
            Ok(reward.score(&input)?.first().and_then(|score| score.value).unwrap_or(0.0))
        };
        let grounded = think_tag(reply)
            .zip(letter(reply).ok())
            .and_then(|(think, letter)| grounding(prompt, think, letter));
        let Grounding { reasons, sound } =
            grounded.unwrap_or(Grounding { reasons: false, sound: false });
        Ok(Self {
            correct: of(&Accuracy)?,
            parsable: of(&Format::default())? == 1.0,
            reasons,
            sound,
        })
    }

    /// Whether the reply is correct, well formed and sound.
    fn is_sound(&self) -> bool {
        self.correct == 1.0 && self.parsable && self.sound
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
