//! The consistency reward: does the reasoning lead to the given answer?

use std::sync::atomic::AtomicBool;

use embodied_r_data::prompts;

use crate::answer;
use crate::answer_type::AnswerType;
use crate::error::{Error, Result};
use crate::judge::{Judge, JudgePrompt};
use crate::reward::{Reward, RewardInput, Score};
use crate::solution::Solution;

/// 1 if the answer is correct and a judge, given only the question and the reasoning, chooses the
/// same option; else 0 (Embodied-R, arXiv 2504.12680: `a = a' = g`).
///
/// Wrong answers and empty reasoning score 0 and are never sent to the judge. There is no score for
/// questions with numbers or texts as answers, which have no options, and none if the judge does not reply, since its failure
/// says nothing about the reasoning.
pub struct Consistency {
    judge: Box<dyn Judge>,
}

impl Consistency {
    /// A reward that uses `judge`.
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

    fn score(&self, batch: &[RewardInput<'_>]) -> Result<Vec<Score>> {
        self.score_until(batch, &AtomicBool::new(false))
    }

    fn score_until(&self, batch: &[RewardInput<'_>], stop: &AtomicBool) -> Result<Vec<Score>> {
        let cases: Vec<Case> = batch.iter().map(Case::of).collect();
        let prompts: Vec<JudgePrompt> = cases
            .iter()
            .filter_map(|case| match case {
                Case::NeedsJudge { prompt, .. } => Some(prompt.clone()),
                Case::Resolved(_) => None,
            })
            .collect();
        let replies = match prompts.is_empty() {
            true => Vec::new(),
            false => self.judge.reply_until(&prompts, stop)?,
        };
        if replies.len() != prompts.len() {
            return Err(Error::ReplyCount { expected: prompts.len(), got: replies.len() });
        }
        let mut replies = replies.into_iter();
        Ok(cases
            .into_iter()
            .map(|case| match case {
                Case::Resolved(score) => score,
                Case::NeedsJudge { right, .. } => score_reply(right, replies.next().flatten()),
            })
            .collect())
    }
}

/// A completion scored without the judge, or its prompt for the judge.
enum Case {
    Resolved(Score),
    NeedsJudge { right: char, prompt: JudgePrompt },
}

impl Case {
    fn of(input: &RewardInput<'_>) -> Self {
        if let Some(kind) = input.answer_type.filter(|kind| *kind != AnswerType::Choice) {
            let reason = format!("not applicable to {}", kind.questions());
            return Self::Resolved(Score::absent(reason));
        }
        let right = match Solution::parse(input.solution) {
            Some(Solution::Letter(letter)) => letter,
            Some(Solution::Number(_)) => {
                return Self::Resolved(Score::absent("not applicable to numeric questions"));
            }
            None => {
                return Self::Resolved(Score::absent(format!(
                    "the solution `{}` is neither an option letter nor a number",
                    input.solution
                )));
            }
        };
        if answer::letter(input.completion) != Ok(right) {
            return Self::Resolved(Score::zero("the answer is wrong"));
        }
        let think = match answer::think_tag(input.completion).map(str::trim) {
            None => return Self::Resolved(Score::zero("no closed `<think>` tag")),
            Some("") => return Self::Resolved(Score::zero("the `<think>` tag is empty")),
            Some(think) => think,
        };
        Self::NeedsJudge {
            right,
            prompt: JudgePrompt {
                system: prompts::judge_system_prompt().to_owned(),
                user: prompts::judge_user_prompt(input.question, think),
            },
        }
    }
}

fn score_reply(right: char, reply: Option<String>) -> Score {
    let Some(reply) = reply else {
        return Score::absent("the judge did not respond");
    };
    match answer::option_letter(&reply) {
        Some(letter) if letter == right => Score::full(),
        Some(letter) => Score::zero(format!("the judge chose {letter}, the answer is {right}")),
        None => {
            Score::zero(format!("the judge's response `{}` names no single option", reply.trim()))
        }
    }
}

#[cfg(test)]
mod tests;
