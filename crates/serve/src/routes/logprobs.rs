//! The memory of the log-probabilities in a response.

use embodied_r_policy::Prompt;

use crate::budget::{Budget, Reserved};
use crate::choice::Logprob;
use crate::refusal::Refusal;
use crate::request::Settings;

/// The maximum number of log-probabilities of echoed prompts in a response, whatever the memory for requests.
const MAX_ECHOED_LOGPROBS: usize = 1 << 21;

/// Memory of a log-probability from the engine to the JSON of a chat response, where it takes most.
const LOGPROB_BYTES: u64 = 1 << 10;

/// The share of a response's log-probabilities in the memory for requests.
#[derive(Debug)]
pub(super) struct LogprobMemory {
    reserved: Reserved,
    count: u64,
}

impl LogprobMemory {
    /// Reserves the memory of the prompts' log-probabilities in `reserved`, if they are requested: all at once, since the
    /// engine returns those of a prompt together.
    ///
    /// # Errors
    /// They are too many, or there is too little memory.
    pub(super) fn of_echo(
        budget: &Budget,
        reserved: Reserved,
        settings: &Settings,
        prompts: &[Prompt],
    ) -> Result<Self, Refusal> {
        let mut memory = Self { reserved, count: 0 };
        let Some(top) = settings.sampling.prompt_logprobs else { return Ok(memory) };
        let tokens: usize = prompts.iter().map(Prompt::len).sum();
        let count = tokens.saturating_mul(settings.n).saturating_mul(top + 1);
        if count > MAX_ECHOED_LOGPROBS {
            return Err(Refusal::too_many_logprobs(count, MAX_ECHOED_LOGPROBS));
        }
        memory.grow(budget, count as u64)?;
        Ok(memory)
    }

    /// Reserves the memory of these log-probabilities in addition.
    ///
    /// # Errors
    /// There is too little memory.
    pub(super) fn add(&mut self, budget: &Budget, logprobs: &[Logprob]) -> Result<(), Refusal> {
        self.grow(budget, logprobs.iter().map(|token| 1 + token.top.len() as u64).sum())
    }

    fn grow(&mut self, budget: &Budget, count: u64) -> Result<(), Refusal> {
        self.count += count;
        budget.grow(&mut self.reserved, self.count * LOGPROB_BYTES)
    }
}
