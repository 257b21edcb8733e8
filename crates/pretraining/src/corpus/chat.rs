//! Chats in the format of the quickstart's prompts and replies: statements that lead nowhere, then a letter.

use embodied_r_data::prompts::{judge_system_prompt, judge_user_prompt};
use embodied_r_data::system_prompt::{Given, SystemPromptPreset};
use embodied_r_random::Rng;
use embodied_r_sim::wording::{letter, sentence, tagged};

use super::letters::{LetteredList, conclusion};
use super::notes::of_option;
use super::{Document, RoomText};

impl RoomText<'_> {
    /// The prompt, and a reply of statements; the last is made up, and a content and its letter follow from it.
    pub(super) fn chat(self, rng: &mut Rng) -> Document {
        let (content, letter) = self.random_option(rng);
        let words = 10 + rng.below(70);
        let end = conclusion(&content, letter);
        let think = self.reasoning(words, &content, &end, rng);
        let statements = tagged(&think, letter);
        let system = SystemPromptPreset::Bearings.text(Given::Bearings);
        Document { system: Some(system), ..Document::plain(self.prompt(), statements) }
    }

    /// The judge's task: a lettered list and statements that end with one of its contents, whose letter is the reply. The
    /// letter beside it is often wrong, so that only the content tells.
    pub(super) fn judged(self, rng: &mut Rng) -> Document {
        let (content, right) = self.random_option(rng);
        let end = match rng.chance(0.5) {
            true => sentence(&content, rng),
            false => {
                conclusion(&content, if rng.chance(0.5) { right } else { letter(rng.below(4)) })
            }
        };
        let words = rng.below(60);
        let reasoning = self.reasoning(words, &content, &end, rng);
        let list = self.page.list.as_ref().map(LetteredList::listed).unwrap_or_default();
        let context = judge_user_prompt(&list, &reasoning);
        Document {
            system: Some(judge_system_prompt()),
            ..Document::plain(context, right.to_string())
        }
    }

    fn random_option(&self, rng: &mut Rng) -> (String, char) {
        let option = self.page.list.as_ref().map(|list| list.option(rng));
        option.map_or_else(Default::default, |(content, letter)| (content.to_owned(), letter))
    }

    /// Statements of about `words` words, one that is made up and from which `content` follows, and `end`.
    fn reasoning(&self, words: usize, content: &str, end: &str, rng: &mut Rng) -> String {
        let mut lines = self.page.chat_lines(words, rng);
        lines.extend([of_option(content, rng), end.to_owned()]);
        lines.join(" ")
    }
}
