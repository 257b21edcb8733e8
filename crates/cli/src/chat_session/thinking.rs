//! Dims the reasoning of a completion, between `<think>` and `</think>`.

const OPEN: &str = "<think>";
const CLOSE: &str = "</think>";
const DIM: &str = "\u{1b}[2m";
const NORMAL: &str = "\u{1b}[22m";

/// Adds terminal codes around the reasoning of a streamed text.
#[derive(Debug, Default)]
pub(super) struct Dimmer {
    dim: bool,
    /// The end of the text so far, if it may be the start of a tag.
    pending: String,
}

impl Dimmer {
    /// For a completion of `prompt`, which may end in `<think>`; also returns what to print first.
    pub(super) fn after(prompt: &str) -> (Self, &'static str) {
        let dim = prompt.trim_end().ends_with(OPEN);
        (Self { dim, pending: String::new() }, if dim { DIM } else { "" })
    }

    /// Takes a piece of text and returns what to print.
    pub(super) fn push(&mut self, text: &str) -> String {
        self.pending.push_str(text);
        let mut shown = String::new();
        while let Some(at) = self.pending.find(self.tag()) {
            let end = at + self.tag().len();
            match self.dim {
                true => shown.extend([&self.pending[..end], NORMAL]),
                false => shown.extend([&self.pending[..at], DIM, &self.pending[at..end]]),
            }
            self.pending.drain(..end);
            self.dim = !self.dim;
        }
        let end = self.partial_tag();
        shown.extend(self.pending.drain(..end));
        shown
    }

    /// Returns the pending text, and resets the terminal.
    pub(super) fn finish(&mut self) -> String {
        let mut shown = std::mem::take(&mut self.pending);
        if std::mem::take(&mut self.dim) {
            shown.push_str(NORMAL);
        }
        shown
    }

    fn tag(&self) -> &'static str {
        if self.dim { CLOSE } else { OPEN }
    }

    /// Where a partial tag at the end of the text starts; the length of the text if there is none.
    fn partial_tag(&self) -> usize {
        let mut starts = self.pending.match_indices('<').map(|(at, _)| at);
        starts.find(|at| self.tag().starts_with(&self.pending[*at..])).unwrap_or(self.pending.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(pieces: &[&str]) -> String {
        let (mut dimmer, first) = Dimmer::after("assistant\n");
        let pieces: String = pieces.iter().map(|piece| dimmer.push(piece)).collect();
        format!("{first}{pieces}{}", dimmer.finish())
    }

    #[test]
    fn reasoning_is_dimmed_however_the_stream_is_split() {
        let whole = "a < b<think>so</think> it is";
        let expected = "a < b\u{1b}[2m<think>so</think>\u{1b}[22m it is";
        assert_eq!(shown(&[whole]), expected);
        let letters: Vec<String> = whole.chars().map(String::from).collect();
        assert_eq!(shown(&letters.iter().map(String::as_str).collect::<Vec<_>>()), expected);
    }

    #[test]
    fn a_completion_that_ends_while_reasoning_resets_the_terminal() {
        assert_eq!(shown(&["<think>hm</thi"]), "\u{1b}[2m<think>hm</thi\u{1b}[22m");
    }

    #[test]
    fn reasoning_opened_by_the_prompt_is_dimmed_from_the_start() {
        let (mut dimmer, first) = Dimmer::after("assistant\n<think>\n");
        assert_eq!(first, DIM);
        assert_eq!(dimmer.push("so</think>it"), "so</think>\u{1b}[22mit");
    }
}
