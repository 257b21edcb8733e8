//! The frozen reference, and the judge that it can be.

use std::sync::{Arc, PoisonError, RwLock};

use embodied_r_rewards::{Error as RewardError, Judge, JudgePrompt, Result as RewardResult};

use crate::error::Result;
use crate::model::{Model, Request, Sampling, Text, chat_prompt, completion_text};
use crate::team::Team;

/// New tokens of a verdict, as in the official code.
const MAX_NEW_TOKENS: usize = 10;

/// The frozen reference: one copy, shared by the divergence and the judge, replaced where a stage
/// says so.
#[derive(Debug)]
pub struct Reference<M>(RwLock<Arc<M>>);

impl<M> Reference<M> {
    /// Holds `model`.
    pub fn new(model: M) -> Self {
        Self(RwLock::new(Arc::new(model)))
    }

    /// The model of this moment.
    pub fn get(&self) -> Arc<M> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts `model` in the place of the one before.
    pub fn replace(&self, model: M) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(model);
    }
}

/// Judges with the frozen reference, in process: the judge's prompt as a chat, greedy, a few tokens.
pub struct ReferenceJudge<M> {
    reference: Arc<Reference<M>>,
    text: Arc<dyn Text>,
    team: Team,
}

impl<M: Model> ReferenceJudge<M> {
    /// A judge that asks `reference`, and speaks its language by `text`; `team` hears that it works.
    pub fn new(reference: Arc<Reference<M>>, text: Arc<dyn Text>, team: Team) -> Self {
        Self { reference, text, team }
    }

    fn replies(&self, prompts: &[JudgePrompt]) -> Result<Vec<Option<String>>> {
        let text = self.text.as_ref();
        let requests = prompts
            .iter()
            .map(|JudgePrompt { system, user }| {
                Ok(Request {
                    prompt: chat_prompt(text, system, user)?.into(),
                    samples: 1,
                    stream: 0,
                })
            })
            .collect::<Result<Vec<_>>>()?;
        let sampling = Sampling {
            max_new_tokens: MAX_NEW_TOKENS,
            stop_ids: text.stop_ids().to_vec(),
            ..Sampling::greedy()
        };
        let (reference, beat) = (self.reference.get(), || self.team.beat());
        let (samples, _) = reference.generate(&requests, &sampling, (None, None), &beat)?;
        let reply = |group: Vec<crate::model::Sample>| match group.first() {
            Some(sample) => completion_text(text, &sample.ids).map(Some),
            None => Ok(None),
        };
        samples.into_iter().map(reply).collect()
    }
}

impl<M: Model> Judge for ReferenceJudge<M> {
    fn reply(&self, prompts: &[JudgePrompt]) -> RewardResult<Vec<Option<String>>> {
        self.replies(prompts).map_err(RewardError::judge)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::toy::{Bigram, Words};

    fn reply(judge: &ReferenceJudge<Bigram>) -> Option<String> {
        let prompt = JudgePrompt { system: "read".into(), user: "which option?".into() };
        judge.reply(&[prompt.clone(), prompt]).unwrap().remove(1)
    }

    #[test]
    fn the_reference_replies_greedily_without_its_stop_token() {
        let reference = Arc::new(Reference::new(Bigram::saying(6, &[2, 0])));
        let judge = ReferenceJudge::new(reference, Arc::new(Words::new()), Team::default());
        assert_eq!(reply(&judge).as_deref(), Some("<answer>A</answer>"));
    }

    #[test]
    fn a_reply_has_ten_tokens_at_most() {
        let reference = Arc::new(Reference::new(Bigram::saying(6, &[5, 5])));
        let judge = ReferenceJudge::new(reference, Arc::new(Words::new()), Team::default());
        assert_eq!(reply(&judge).as_deref(), Some("xxxxxxxxxx"));
    }

    #[test]
    fn a_new_reference_judges_from_then_on() {
        let reference = Arc::new(Reference::new(Bigram::saying(6, &[2, 0])));
        let judge =
            ReferenceJudge::new(Arc::clone(&reference), Arc::new(Words::new()), Team::default());
        reference.replace(Bigram::saying(6, &[3, 0]));
        assert_eq!(reply(&judge).as_deref(), Some("<answer>B</answer>"));
    }
}
