//! A completion: the text of its tokens.

use std::sync::Arc;

use embodied_r_policy::tokenizer::{SpecialTokens, Tokenizer};
use embodied_r_policy::{FinishReason, TextStream};

use crate::error::Result;
use crate::generation::{Event, Generation};

/// A completion, whose text grows with its tokens.
#[derive(Debug)]
pub struct Completion {
    stream: TextStream,
    /// Its text, without special and stop tokens.
    pub text: String,
    /// The number of its tokens, the stop token included.
    pub tokens: usize,
    /// Why it finished; `None` if it has not.
    pub finish: Option<FinishReason>,
}

impl Completion {
    /// A completion without tokens, which one of `stop_ids` ends.
    pub(crate) fn new(tokenizer: &Arc<Tokenizer>, stop_ids: &[u32]) -> Self {
        let stream = TextStream::new(tokenizer.clone(), SpecialTokens::Skip)
            .with_stop_ids(stop_ids.to_vec());
        Self { stream, text: String::new(), tokens: 0, finish: None }
    }

    /// Waits for the only completion of `generation`.
    ///
    /// # Errors
    /// As [`Generation::next`], and if the tokenizer rejects a token.
    pub(crate) async fn read(mut self, mut generation: Generation) -> Result<Self> {
        while self.finish.is_none() {
            self.take(generation.next().await?)?;
        }
        Ok(self)
    }

    /// Takes an event of this completion.
    ///
    /// # Errors
    /// The tokenizer rejects the token.
    pub(crate) fn take(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Prefilled { .. } => {}
            Event::Token { token, .. } => {
                self.tokens += 1;
                self.text.push_str(&self.stream.push(token.id)?);
            }
            Event::Finished { finish, .. } => {
                self.end()?;
                self.finish = Some(finish);
            }
        }
        Ok(())
    }

    /// Adds the text that is held back for later tokens.
    pub(crate) fn end(&mut self) -> Result<()> {
        self.text.push_str(&self.stream.finish()?);
        Ok(())
    }
}
