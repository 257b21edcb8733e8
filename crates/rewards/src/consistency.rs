//! The consistency reward: does the reasoning lead to the answer that was given?

use embodied_r_data::prompts;

use crate::accuracy::Solution;
use crate::answer;
use crate::error::{Error, Result};
use crate::judge::{Judge, JudgePrompt};
use crate::reward::{Reward, Score, Scored};

/// 1 if the answer is right and a judge, who sees the question and the reasoning alone, arrives at
/// the same option; else 0 (Embodied-R, arXiv 2504.12680: `a = a' = g`).
///
/// A wrong answer and an empty reasoning score 0 and never reach the judge. Numeric questions have
/// no options to arrive at, so they have no score; nor has a completion to which the judge gave no
/// reply, since its failure says nothing about the reasoning.
pub struct Consistency {
    judge: Box<dyn Judge>,
}

impl Consistency {
    /// A reward that asks `judge`.
    pub fn new(judge: Box<dyn Judge>) -> Self {
        Self { judge }
    }
}

impl std::fmt::Debug for Consistency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consistency").finish_non_exhaustive()
    }
}

impl Reward for Consistency {
    fn name(&self) -> &str {
        "consistency"
    }

    fn score(&self, batch: &[Scored<'_>]) -> Result<Vec<Score>> {
        let cases: Vec<Case> = batch.iter().map(Case::of).collect();
        let prompts: Vec<JudgePrompt> = cases
            .iter()
            .filter_map(|case| match case {
                Case::Ask { prompt, .. } => Some(prompt.clone()),
                Case::Settled(_) => None,
            })
            .collect();
        let replies = if prompts.is_empty() { Vec::new() } else { self.judge.reply(&prompts)? };
        if replies.len() != prompts.len() {
            return Err(Error::Replies { asked: prompts.len(), got: replies.len() });
        }
        let mut replies = replies.into_iter();
        Ok(cases
            .into_iter()
            .map(|case| match case {
                Case::Settled(score) => score,
                Case::Ask { right, .. } => verdict(right, replies.next().flatten()),
            })
            .collect())
    }
}

/// A completion that needs no judge, or the task that the judge gets.
enum Case {
    Settled(Score),
    Ask { right: char, prompt: JudgePrompt },
}

impl Case {
    fn of(scored: &Scored<'_>) -> Self {
        let right = match Solution::parse(scored.solution) {
            Some(Solution::Letter(letter)) => letter,
            Some(Solution::Number(_)) => {
                return Self::Settled(Score::absent("a numeric question has no options to judge"));
            }
            None => {
                return Self::Settled(Score::absent(format!(
                    "the solution `{}` is neither an option letter nor a number",
                    scored.solution
                )));
            }
        };
        if answer::letter(scored.completion) != Ok(right) {
            return Self::Settled(Score::zero("the answer is not right"));
        }
        let think = match answer::think_tag(scored.completion).map(str::trim) {
            None => return Self::Settled(Score::zero("there is no closed `<think>` tag")),
            Some("") => return Self::Settled(Score::zero("the `<think>` tag is empty")),
            Some(think) => think,
        };
        Self::Ask {
            right,
            prompt: JudgePrompt {
                system: prompts::judge_system().to_owned(),
                user: prompts::judge_user(scored.question, think),
            },
        }
    }
}

fn verdict(right: char, reply: Option<String>) -> Score {
    let Some(reply) = reply else {
        return Score::absent("the judge gave no reply");
    };
    match answer::option_letter(&reply) {
        Some(letter) if letter == right => Score::full(),
        Some(letter) => {
            Score::zero(format!("the judge arrives at {letter}, the answer is {right}"))
        }
        None => Score::zero(format!("the judge's reply `{}` names no single option", reply.trim())),
    }
}

#[cfg(test)]
mod tests;
