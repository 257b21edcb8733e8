//! The part of an answer between `<think>` and `</think>`, shown dimmed.

const OPEN: &str = "<think>";
const CLOSE: &str = "</think>";
const DIM: &str = "\u{1b}[2m";
const NORMAL: &str = "\u{1b}[22m";

/// Puts a terminal's codes around thoughts, in a text that comes in pieces.
#[derive(Debug, Default)]
pub(super) struct Dimmer {
    dim: bool,
    /// The end of the text so far, if it may be the beginning of a tag.
    held: String,
}

impl Dimmer {
    /// For an answer that goes on after `prompt`, which may have opened the thoughts already; gives
    /// what to write first.
    pub(super) fn after(prompt: &str) -> (Self, &'static str) {
        let dim = prompt.trim_end().ends_with(OPEN);
        (Self { dim, held: String::new() }, if dim { DIM } else { "" })
    }

    /// Takes a piece and gives what to write.
    pub(super) fn push(&mut self, text: &str) -> String {
        self.held.push_str(text);
        let mut shown = String::new();
        while let Some(at) = self.held.find(self.tag()) {
            let end = at + self.tag().len();
            match self.dim {
                true => shown.extend([&self.held[..end], NORMAL]),
                false => shown.extend([&self.held[..at], DIM, &self.held[at..end]]),
            }
            self.held.drain(..end);
            self.dim = !self.dim;
        }
        let keep = self.beginning();
        shown.extend(self.held.drain(..keep));
        shown
    }

    /// What waits, and the end of what is dimmed.
    pub(super) fn finish(&mut self) -> String {
        let mut shown = std::mem::take(&mut self.held);
        if std::mem::take(&mut self.dim) {
            shown.push_str(NORMAL);
        }
        shown
    }

    fn tag(&self) -> &'static str {
        if self.dim { CLOSE } else { OPEN }
    }

    /// Where the longest end of the text begins that the tag begins with.
    fn beginning(&self) -> usize {
        let mut starts = self.held.match_indices('<').map(|(at, _)| at);
        starts.find(|at| self.tag().starts_with(&self.held[*at..])).unwrap_or(self.held.len())
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
    fn thoughts_are_dimmed_however_they_are_cut() {
        let whole = "a < b<think>so</think> it is";
        let expected = "a < b\u{1b}[2m<think>so</think>\u{1b}[22m it is";
        assert_eq!(shown(&[whole]), expected);
        let letters: Vec<String> = whole.chars().map(String::from).collect();
        assert_eq!(shown(&letters.iter().map(String::as_str).collect::<Vec<_>>()), expected);
    }

    #[test]
    fn an_answer_that_stops_while_thinking_leaves_the_terminal_as_it_was() {
        assert_eq!(shown(&["<think>hm</thi"]), "\u{1b}[2m<think>hm</thi\u{1b}[22m");
    }

    #[test]
    fn thoughts_that_the_prompt_opened_are_dimmed_from_the_start() {
        let (mut dimmer, first) = Dimmer::after("assistant\n<think>\n");
        assert_eq!(first, DIM);
        assert_eq!(dimmer.push("so</think>it"), "so</think>\u{1b}[22mit");
    }
}
