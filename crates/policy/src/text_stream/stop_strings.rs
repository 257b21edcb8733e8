//! Stop strings, matched across chunks of streamed text.

/// Whether a complete stop string ends the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StopCheck {
    Enabled,
    Disabled,
}

/// Passes text through up to the first stop string.
#[derive(Debug, Default)]
pub(super) struct StopStrings {
    strings: Vec<String>,
    /// The end of the text so far, if it is the prefix of a stop string.
    pending: String,
    found: Option<usize>,
}

impl StopStrings {
    pub(super) fn new(mut strings: Vec<String>) -> Self {
        strings.retain(|string| !string.is_empty());
        Self { strings, ..Self::default() }
    }

    /// Adds text and returns what can no longer be part of a stop string.
    pub(super) fn push(&mut self, text: &str, check: StopCheck) -> String {
        if self.strings.is_empty() {
            return text.to_owned();
        }
        let known = self.pending.len();
        self.pending.push_str(text);
        if check == StopCheck::Enabled
            && let Some((start, index)) = self.first(known)
        {
            self.found = Some(index);
            self.pending.truncate(start);
            return std::mem::take(&mut self.pending);
        }
        let keep = self.beginning();
        let rest = self.pending.split_off(keep);
        std::mem::replace(&mut self.pending, rest)
    }

    /// Returns the buffered text.
    pub(super) fn release(&mut self) -> String {
        std::mem::take(&mut self.pending)
    }

    pub(super) fn found(&self) -> Option<&str> {
        self.found.map(|index| self.strings[index].as_str())
    }

    pub(super) fn pending(&self) -> &str {
        &self.pending
    }

    /// The start and the index of the stop string that completes first, after byte `known`.
    fn first(&self, known: usize) -> Option<(usize, usize)> {
        let found = self.strings.iter().enumerate().filter_map(|(index, string)| {
            let from = self.pending.ceil_char_boundary((known + 1).saturating_sub(string.len()));
            let start = from + self.pending.get(from..)?.find(string.as_str())?;
            Some((start + string.len(), start, index))
        });
        found.min().map(|(_, start, index)| (start, index))
    }

    /// The start of the longest suffix of the text that is a prefix of a stop string.
    fn beginning(&self) -> usize {
        let longest = self.strings.iter().map(String::len).max().unwrap_or(0);
        let from =
            self.pending.ceil_char_boundary((self.pending.len() + 1).saturating_sub(longest));
        let mut ends = self.pending[from..].char_indices().map(|(at, _)| from + at);
        let begins = |at: &usize| {
            let end = &self.pending[*at..];
            self.strings.iter().any(|string| string.len() > end.len() && string.starts_with(end))
        };
        ends.find(begins).unwrap_or(self.pending.len())
    }
}
