//! Chats in the format of the quickstart's prompts and replies: statements that lead nowhere, then a letter.

use embodied_r_data::prompts::{judge_system_prompt, judge_user_prompt, system_prompt};

use super::letters::{LetteredList, conclusion};
use super::{Document, RoomText};
use crate::judge_examples::sentence;
use crate::question_template::letter;
use crate::rationale::tagged;
use crate::rng::Rng;

impl RoomText<'_> {
    /// The prompt, and a reply of statements in which the letter is that of a random content.
    pub(super) fn chat(self, rng: &mut Rng) -> Document {
        let (content, letter) = self.random_option(rng);
        let words = 10 + rng.below(70);
        let think = self.reasoning(words, &conclusion(&content, letter), rng);
        let statements = tagged(&think, letter);
        Document { system: Some(system_prompt()), context: self.prompt(), statements }
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
        let reasoning = self.reasoning(words, &end, rng);
        let list = self.page.list.as_ref().map(LetteredList::listed).unwrap_or_default();
        let context = judge_user_prompt(&list, &reasoning);
        Document { system: Some(judge_system_prompt()), context, statements: right.to_string() }
    }

    fn random_option(&self, rng: &mut Rng) -> (String, char) {
        let option = self.page.list.as_ref().map(|list| list.option(rng));
        option.map_or_else(Default::default, |(content, letter)| (content.to_owned(), letter))
    }

    /// Statements of about `words` words, and `end`.
    fn reasoning(&self, words: usize, end: &str, rng: &mut Rng) -> String {
        let mut lines = self.page.lines_before_letter(words, rng);
        lines.push(end.to_owned());
        lines.join(" ")
    }
}
