//! Prompts and examples over the length limit.

use crate::data::length_limit::{LengthLimit, TruncationStrategy};
use crate::error::{Error, Result};

/// Items over a limit: their number, and the first.
#[derive(Debug, Default)]
pub(crate) struct TooLong {
    pub(crate) count: usize,
    first: Option<(String, usize)>,
}

impl TooLong {
    /// Counts an item of `tokens` tokens, such as question `7`.
    pub(crate) fn add(&mut self, item: impl FnOnce() -> String, tokens: usize) {
        self.count += 1;
        self.first.get_or_insert_with(|| (item(), tokens));
    }

    /// The number of items that are left out.
    ///
    /// # Errors
    /// [`Error::TooLong`] if there are any and `limit` allows none to be left out.
    pub(crate) fn left_out(self, limit: &LengthLimit) -> Result<usize> {
        match (limit.strategy, self.first) {
            (TruncationStrategy::Raise, Some((item, tokens))) => {
                let others = self.count - 1;
                Err(Error::TooLong { item, tokens, others, limit: *limit })
            }
            _ => Ok(self.count),
        }
    }
}
