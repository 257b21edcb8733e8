//! What was said so far, and how much of it the model still sees.

use embodied_r_policy::tokenizer::ChatMessage;
use embodied_r_vision::Seen;

use crate::speaker::Turn;

/// A conversation.
#[derive(Debug)]
pub(super) struct Conversation {
    system: Option<String>,
    turns: Vec<Turn>,
    /// The first turn that the model sees.
    first: usize,
    cut_told: bool,
}

/// A prompt that fits the model.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fit<P> {
    /// Everything that was said.
    Whole(P),
    /// The first prompt without the oldest turns; later ones are [`Fit::Whole`], as it was told.
    Cut(P),
    /// The last message alone is too long.
    TooLong { tokens: usize, most: usize },
}

impl Conversation {
    pub(super) fn new(system: &str) -> Self {
        let mut new = Self { system: None, turns: Vec::new(), first: 0, cut_told: false };
        new.set_system(system);
        new
    }

    /// Sets the system prompt; a blank one is left out.
    pub(super) fn set_system(&mut self, text: &str) {
        self.system = (!text.trim().is_empty()).then(|| text.to_owned());
    }

    /// Forgets all turns.
    pub(super) fn clear(&mut self) {
        self.turns.clear();
        (self.first, self.cut_told) = (0, false);
    }

    /// Asks `text` about `pictures`, if there are some.
    pub(super) fn ask(&mut self, text: &str, pictures: Vec<Seen>) {
        self.turns.push(Turn { message: ChatMessage::user(text), pictures });
    }

    /// Takes the last question back.
    pub(super) fn take_back(&mut self) {
        self.turns.pop();
        self.first = self.first.min(self.turns.len());
    }

    pub(super) fn answered(&mut self, text: String) {
        self.turns.push(ChatMessage::assistant(text).into());
    }

    /// Everything in words, the system prompt first.
    pub(super) fn messages(&self) -> Vec<ChatMessage> {
        self.from(0).into_iter().map(|turn| turn.message).collect()
    }

    fn from(&self, first: usize) -> Vec<Turn> {
        let system = self.system.iter().map(|text| Turn::from(ChatMessage::system(text)));
        system.chain(self.turns[first..].iter().cloned()).collect()
    }

    /// The prompt of at most `most` tokens with as many of the last turns as have room.
    pub(super) fn fit<P: AsRef<[u32]>>(
        &mut self,
        most: usize,
        prompt: impl Fn(&[Turn]) -> anyhow::Result<P>,
    ) -> anyhow::Result<Fit<P>> {
        let mut first = self.first;
        loop {
            let ids = prompt(&self.from(first))?;
            let tokens = ids.as_ref().len();
            if tokens <= most {
                self.first = first;
                let tell = first > 0 && !std::mem::replace(&mut self.cut_told, first > 0);
                return Ok(if tell { Fit::Cut(ids) } else { Fit::Whole(ids) });
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

    /// One token a letter.
    fn prompt(turns: &[Turn]) -> anyhow::Result<Vec<u32>> {
        let letters = |turn: &Turn| turn.message.content.chars().map(u32::from).collect::<Vec<_>>();
        Ok(turns.iter().flat_map(letters).collect())
    }

    fn said(ids: &[u32]) -> String {
        ids.iter().filter_map(|id| char::from_u32(*id)).collect()
    }

    #[test]
    fn the_oldest_turns_are_left_out_and_it_is_told_once() {
        let mut conversation = Conversation::new("S");
        for (question, answer) in [("aaa", "bbb"), ("ccc", "ddd")] {
            conversation.ask(question, vec![]);
            conversation.answered(answer.into());
        }
        conversation.ask("eee", vec![]);
        let fit = conversation.fit(10, prompt).unwrap();
        assert!(matches!(&fit, Fit::Cut(ids) if said(ids) == "Scccdddeee"), "{fit:?}");
        conversation.answered("fff".into());
        conversation.ask("ggg", vec![]);
        let fit = conversation.fit(10, prompt).unwrap();
        assert!(matches!(&fit, Fit::Whole(ids) if said(ids) == "Seeefffggg"), "{fit:?}");
        assert_eq!(conversation.messages().len(), 8);
    }

    #[test]
    fn a_message_that_never_fits_is_told_with_its_length() {
        let mut conversation = Conversation::new("");
        conversation.ask("a", vec![]);
        conversation.answered("b".into());
        conversation.ask("much too long", vec![]);
        let fit = conversation.fit(5, prompt).unwrap();
        assert_eq!(fit, Fit::TooLong { tokens: 13, most: 5 });
        conversation.take_back();
        conversation.ask("c", vec![]);
        let fit = conversation.fit(5, prompt).unwrap();
        assert!(matches!(&fit, Fit::Whole(ids) if said(ids) == "abc"), "{fit:?}");
    }

    #[test]
    fn a_blank_system_prompt_is_none() {
        let mut conversation = Conversation::new("S");
        conversation.set_system(" ");
        conversation.ask("a", vec![]);
        assert_eq!(conversation.messages(), [ChatMessage::user("a")]);
    }

    #[test]
    fn a_cleared_conversation_keeps_its_system_prompt() {
        let mut conversation = Conversation::new("S");
        conversation.ask("a", vec![]);
        conversation.clear();
        assert_eq!(conversation.messages(), [ChatMessage::system("S")]);
    }
}
