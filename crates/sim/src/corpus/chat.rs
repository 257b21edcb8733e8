//! Chats in the format of the quickstart's prompts and replies: statements that answer nothing, then a letter.

use embodied_r_data::prompts::{judge_system_prompt, judge_user_prompt, system_prompt};

use super::letters::{LetteredList, conclusion};
use super::{Document, RoomText};
use crate::judge_examples::sentence;
use crate::question_template::letter;
use crate::rationale::tagged;
use crate::rng::Rng;

impl RoomText<'_> {
    /// The prompt, and a reply of statements in which the letter is that of the subject that they mention last, or of a
    /// random content in a list without subjects.
    pub(super) fn chat(self, rng: &mut Rng) -> Document {
        let lines = self.page.lines_before_letter(10 + rng.below(70), rng);
        let mentioned = lines.iter().rev().find_map(|line| {
            let mut words = line.split([' ', ':', ',', '.']);
            words.find(|word| self.page.subjects.iter().any(|subject| subject == word))
        });
        let about = mentioned.and_then(|name| self.page.list.as_ref()?.option_about(name));
        let (content, letter) = about.map_or_else(
            || self.random_option(rng),
            |(content, letter)| (content.to_owned(), letter),
        );
        let think = format!("{} {}", lines.join(" "), conclusion(&content, letter));
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
        let lines = self.page.lines_before_letter(rng.below(60), rng);
        let list = self.page.list.as_ref().map(LetteredList::listed).unwrap_or_default();
        let context = judge_user_prompt(&list, &format!("{} {end}", lines.join(" ")));
        Document { system: Some(judge_system_prompt()), context, statements: right.to_string() }
    }

    fn random_option(&self, rng: &mut Rng) -> (String, char) {
        let option = self.page.list.as_ref().map(|list| list.option(rng));
        option.map_or_else(Default::default, |(content, letter)| (content.to_owned(), letter))
    }
}
