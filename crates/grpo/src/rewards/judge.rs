//! The frozen reference model, and the judge that uses it.

use std::sync::{Arc, PoisonError, RwLock};

use embodied_r_rewards::{Error as RewardError, Judge, JudgePrompt, Result as RewardResult};

use crate::error::Result;
use crate::model::{
    ChatTokenizer, GenerateOptions, GenerationRequest, Model, SamplingParams, chat_prompt,
    completion_text,
};
use embodied_r_dist::ProcessGroup;

/// Maximum number of new tokens of a judgment, as in the official code.
const MAX_NEW_TOKENS: usize = 10;

/// The frozen reference model: one copy, shared by the KL term and the judge; a stage may replace it.
#[derive(Debug)]
pub struct ReferenceModel<M>(RwLock<Arc<M>>);

impl<M> ReferenceModel<M> {
    /// Wraps `model`.
    pub fn new(model: M) -> Self {
        Self(RwLock::new(Arc::new(model)))
    }

    /// The current reference model.
    pub fn get(&self) -> Arc<M> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces the reference model with `model`.
    pub fn replace(&self, model: M) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(model);
    }
}

/// A judge that runs the frozen reference in process: the judge's prompt as a chat, greedy decoding, few tokens.
pub struct ReferenceJudge<M> {
    reference: Arc<ReferenceModel<M>>,
    tokenizer: Arc<dyn ChatTokenizer>,
    process_group: ProcessGroup,
}

impl<M: Model> ReferenceJudge<M> {
    /// A judge that generates with `reference`; each decoding step sends a heartbeat through `process_group`.
    pub fn new(
        reference: Arc<ReferenceModel<M>>,
        tokenizer: Arc<dyn ChatTokenizer>,
        process_group: ProcessGroup,
    ) -> Self {
        Self { reference, tokenizer, process_group }
    }

    fn replies(&self, prompts: &[JudgePrompt]) -> Result<Vec<Option<String>>> {
        let tokenizer = self.tokenizer.as_ref();
        let reference = self.reference.get();
        let mut replies = vec![None; prompts.len()];
        let (mut requests, mut indices) = (Vec::new(), Vec::new());
        for (index, JudgePrompt { system, user }) in prompts.iter().enumerate() {
            let prompt = chat_prompt(tokenizer, Some(system.as_str()), user)?;
            // A question that almost fills the context leaves no room for the reasoning to judge.
            if prompt.len() >= reference.context_length() {
                tracing::warn!("a judge's prompt exceeds the reference model's context length");
                continue;
            }
            indices.push(index);
            requests.push(GenerationRequest {
                prompt: prompt.into(),
                samples: 1,
                stream: 0,
                first_sample: 0,
            });
        }
        let sampling = SamplingParams {
            max_new_tokens: MAX_NEW_TOKENS,
            stop_ids: tokenizer.stop_ids().to_vec(),
            ..SamplingParams::greedy()
        };
        let on_step = || self.process_group.heartbeat();
        let (samples, _) =
            reference.generate(&requests, &sampling, GenerateOptions::default(), &on_step)?;
        for (index, group) in indices.into_iter().zip(samples) {
            let Some(sample) = group.first() else { continue };
            if sample.logps.iter().any(|logp| logp.is_nan()) {
                return Err(embodied_r_policy::Error::NonFiniteLogits.into());
            }
            replies[index] = Some(completion_text(tokenizer, &sample.ids)?);
        }
        Ok(replies)
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
    use crate::model::tests::toy::{Bigram, Words};

    fn reply(judge: &ReferenceJudge<Bigram>) -> Option<String> {
        let prompt = JudgePrompt { system: "read".into(), user: "which option?".into() };
        judge.reply(&[prompt.clone(), prompt]).unwrap().remove(1)
    }

    #[test]
    fn the_reference_replies_greedily_without_its_stop_token() {
        let reference = Arc::new(ReferenceModel::new(Bigram::saying(6, &[2, 0])));
        let judge = ReferenceJudge::new(reference, Arc::new(Words::new()), ProcessGroup::default());
        assert_eq!(reply(&judge).as_deref(), Some("<answer>A</answer>"));
    }

    #[test]
    fn a_reply_has_ten_tokens_at_most() {
        let reference = Arc::new(ReferenceModel::new(Bigram::saying(6, &[5, 5])));
        let judge = ReferenceJudge::new(reference, Arc::new(Words::new()), ProcessGroup::default());
        assert_eq!(reply(&judge).as_deref(), Some("xxxxxxxxxx"));
    }

    #[test]
    fn a_prompt_that_fills_the_context_gets_no_reply_and_the_others_do() {
        let reference = Bigram::saying(6, &[2, 0]).with_context_length(3);
        let reference = Arc::new(ReferenceModel::new(reference));
        let judge = ReferenceJudge::new(reference, Arc::new(Words::new()), ProcessGroup::default());
        let prompt = |user: &str| JudgePrompt { system: "read".into(), user: user.into() };
        let replies = judge.reply(&[prompt("x x x x"), prompt("x")]).unwrap();
        assert_eq!(replies, [None, Some("<answer>A</answer>".into())]);
    }

    #[test]
    fn a_reference_with_non_finite_logits_is_an_error() {
        let reference = Arc::new(ReferenceModel::new(Bigram::overflowing(6)));
        let judge = ReferenceJudge::new(reference, Arc::new(Words::new()), ProcessGroup::default());
        let prompt = JudgePrompt { system: "read".into(), user: "x".into() };
        let error = judge.reply(&[prompt]).unwrap_err().to_string();
        assert!(error.contains("the model's logits are not finite"), "{error}");
    }

    #[test]
    fn a_new_reference_judges_from_then_on() {
        let reference = Arc::new(ReferenceModel::new(Bigram::saying(6, &[2, 0])));
        let judge = ReferenceJudge::new(
            Arc::clone(&reference),
            Arc::new(Words::new()),
            ProcessGroup::default(),
        );
        reference.replace(Bigram::saying(6, &[3, 0]));
        assert_eq!(reply(&judge).as_deref(), Some("<answer>B</answer>"));
    }
}
