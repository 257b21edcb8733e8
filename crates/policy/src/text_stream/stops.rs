//! Strings that end a text, found across the borders of the pieces in which it comes.

/// Whether a stop string that is complete ends the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Watch {
    On,
    Off,
}

/// Lets text through, up to the first stop string.
#[derive(Debug, Default)]
pub(super) struct Stops {
    strings: Vec<String>,
    /// The end of the text so far, if a stop string begins with it.
    held: String,
    found: Option<usize>,
}

impl Stops {
    pub(super) fn new(mut strings: Vec<String>) -> Self {
        strings.retain(|string| !string.is_empty());
        Self { strings, ..Self::default() }
    }

    /// Takes more text and gives what no stop string can begin with any more.
    pub(super) fn push(&mut self, text: &str, watch: Watch) -> String {
        if self.strings.is_empty() {
            return text.to_owned();
        }
        let known = self.held.len();
        self.held.push_str(text);
        if watch == Watch::On
            && let Some((start, index)) = self.first(known)
        {
            self.found = Some(index);
            self.held.truncate(start);
            return std::mem::take(&mut self.held);
        }
        let keep = self.beginning();
        let rest = self.held.split_off(keep);
        std::mem::replace(&mut self.held, rest)
    }

    /// What waits, which now becomes no stop string.
    pub(super) fn release(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    pub(super) fn found(&self) -> Option<&str> {
        self.found.map(|index| self.strings[index].as_str())
    }

    pub(super) fn held(&self) -> &str {
        &self.held
    }

    /// Where the stop string that is complete first begins, and which it is; only those that end
    /// behind byte `known` count.
    fn first(&self, known: usize) -> Option<(usize, usize)> {
        let found = self.strings.iter().enumerate().filter_map(|(index, string)| {
            let from = self.held.ceil_char_boundary((known + 1).saturating_sub(string.len()));
            let start = from + self.held.get(from..)?.find(string.as_str())?;
            Some((start + string.len(), start, index))
        });
        found.min().map(|(_, start, index)| (start, index))
    }

    /// Where the longest end of the text begins that a stop string begins with.
    fn beginning(&self) -> usize {
        let longest = self.strings.iter().map(String::len).max().unwrap_or(0);
        let from = self.held.ceil_char_boundary((self.held.len() + 1).saturating_sub(longest));
        let mut ends = self.held[from..].char_indices().map(|(at, _)| from + at);
        let begins = |at: &usize| {
            let end = &self.held[*at..];
            self.strings.iter().any(|string| string.len() > end.len() && string.starts_with(end))
        };
        ends.find(begins).unwrap_or(self.held.len())
    }
}
