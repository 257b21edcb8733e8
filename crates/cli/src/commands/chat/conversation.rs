//! The conversation, and the part of it in the model's context.

use embodied_r_policy::tokenizer::ChatMessage;
use embodied_r_vision::ImageEmbeddings;

use crate::chat_session::ChatTurn;

/// A conversation.
#[derive(Debug)]
pub(super) struct Conversation {
    system: Option<String>,
    turns: Vec<ChatTurn>,
    /// The first turn in the context.
    first: usize,
    truncation_reported: bool,
}

/// A prompt that fits the context.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fit<P> {
    /// A prompt that needs no warning.
    Whole(P),
    /// The first prompt without the oldest turns; later ones are [`Fit::Whole`], to warn once.
    Truncated(P),
    /// The last message alone is too long.
    TooLong { tokens: usize, most: usize },
}

impl Conversation {
    pub(super) fn new(system: &str) -> Self {
        let mut new =
            Self { system: None, turns: Vec::new(), first: 0, truncation_reported: false };
        new.set_system(system);
        new
    }

    /// Sets the system prompt; a blank one removes it.
    pub(super) fn set_system(&mut self, text: &str) {
        self.system = (!text.trim().is_empty()).then(|| text.to_owned());
    }

    /// Removes all turns.
    pub(super) fn clear(&mut self) {
        self.turns.clear();
        (self.first, self.truncation_reported) = (0, false);
    }

    /// Adds a user turn with its images.
    pub(super) fn push_user(&mut self, text: &str, images: Vec<ImageEmbeddings>) {
        self.turns.push(ChatTurn { message: ChatMessage::user(text), images });
    }

    /// Removes the last turn.
    pub(super) fn pop(&mut self) {
        self.turns.pop();
        self.first = self.first.min(self.turns.len());
    }

    pub(super) fn push_assistant(&mut self, text: String) {
        self.turns.push(ChatMessage::assistant(text).into());
    }

    /// All messages, the system prompt first.
    pub(super) fn messages(&self) -> Vec<ChatMessage> {
        self.from(0).into_iter().map(|turn| turn.message).collect()
    }

    fn from(&self, first: usize) -> Vec<ChatTurn> {
        let system = self.system.iter().map(|text| ChatTurn::from(ChatMessage::system(text)));
        system.chain(self.turns[first..].iter().cloned()).collect()
    }

    /// The prompt with as many of the last turns as fit into `most` tokens.
    pub(super) fn fit<P: AsRef<[u32]>>(
        &mut self,
        most: usize,
        prompt: impl Fn(&[ChatTurn]) -> anyhow::Result<P>,
    ) -> anyhow::Result<Fit<P>> {
        let mut first = self.first;
        loop {
            let ids = prompt(&self.from(first))?;
            let tokens = ids.as_ref().len();
            if tokens <= most {
                self.first = first;
                let warn =
                    first > 0 && !std::mem::replace(&mut self.truncation_reported, first > 0);
                return Ok(if warn { Fit::Truncated(ids) } else { Fit::Whole(ids) });
            }
            let later = self.turns.iter().enumerate().skip(first + 1);
            match later.into_iter().find(|(_, turn)| turn.message.role == "user") {
                Some((next, _)) => first = next,
                None => return Ok(Fit::TooLong { tokens, most }),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One token per character.
    fn prompt(turns: &[ChatTurn]) -> anyhow::Result<Vec<u32>> {
        let letters =
            |turn: &ChatTurn| turn.message.content.chars().map(u32::from).collect::<Vec<_>>();
        Ok(turns.iter().flat_map(letters).collect())
    }

    fn decoded(ids: &[u32]) -> String {
        ids.iter().filter_map(|id| char::from_u32(*id)).collect()
    }

    #[test]
    fn the_oldest_turns_are_dropped_and_it_is_reported_once() {
        let mut conversation = Conversation::new("S");
        for (question, answer) in [("aaa", "bbb"), ("ccc", "ddd")] {
            conversation.push_user(question, vec![]);
            conversation.push_assistant(answer.into());
        }
        conversation.push_user("eee", vec![]);
        let fit = conversation.fit(10, prompt).unwrap();
        assert!(matches!(&fit, Fit::Truncated(ids) if decoded(ids) == "Scccdddeee"), "{fit:?}");
        conversation.push_assistant("fff".into());
        conversation.push_user("ggg", vec![]);
        let fit = conversation.fit(10, prompt).unwrap();
        assert!(matches!(&fit, Fit::Whole(ids) if decoded(ids) == "Seeefffggg"), "{fit:?}");
        assert_eq!(conversation.messages().len(), 8);
    }

    #[test]
    fn a_message_that_never_fits_is_reported_with_its_length() {
        let mut conversation = Conversation::new("");
        conversation.push_user("a", vec![]);
        conversation.push_assistant("b".into());
        conversation.push_user("much too long", vec![]);
        let fit = conversation.fit(5, prompt).unwrap();
        assert_eq!(fit, Fit::TooLong { tokens: 13, most: 5 });
        conversation.pop();
        conversation.push_user("c", vec![]);
        let fit = conversation.fit(5, prompt).unwrap();
        assert!(matches!(&fit, Fit::Whole(ids) if decoded(ids) == "abc"), "{fit:?}");
    }

    #[test]
    fn a_blank_system_prompt_is_removed() {
        let mut conversation = Conversation::new("S");
        conversation.set_system(" ");
        conversation.push_user("a", vec![]);
        assert_eq!(conversation.messages(), [ChatMessage::user("a")]);
    }

    #[test]
    fn a_cleared_conversation_keeps_its_system_prompt() {
        let mut conversation = Conversation::new("S");
        conversation.push_user("a", vec![]);
        conversation.clear();
        assert_eq!(conversation.messages(), [ChatMessage::system("S")]);
    }
}
