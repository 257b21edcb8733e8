//! Lettered choices without a question.

use crate::caption_trace::CaptionTrace;
use crate::catalogue::KINDS;
use crate::geometry::wrap_whole;
use crate::question_template::{Moment, QuestionTemplate, choices, letter, step_text};
use crate::rationale::{Quadrant, choices_text, derive_rationale, so_text};
use crate::rng::Rng;

/// Options of one of the question categories.
pub(super) struct Choices {
    options: Vec<String>,
    about: ChoiceTopic,
}

/// The topic of the options.
enum ChoiceTopic {
    Places,
    Actions,
    Sides,
    Steps {
        names: Vec<String>,
    },
    Orders {
        names: Vec<String>,
    },
    /// Objects, one of which is nearest to straight ahead after a rotation.
    Objects {
        moment: Moment,
        turn_deg: i32,
    },
}

impl Choices {
    /// Choices among all objects of the catalogue.
    pub(super) fn of_anything(rng: &mut Rng) -> Self {
        let names: Vec<String> = KINDS.iter().map(|kind| kind.name.to_owned()).collect();
        Self::of(&names, rng)
    }

    /// Choices among `names`.
    pub(super) fn of(names: &[String], rng: &mut Rng) -> Self {
        let names = rng.sample(names, 4);
        let shuffled = |text: fn(Quadrant) -> &'static str, rng: &mut Rng| {
            let quadrants = rng.sample(&Quadrant::ALL, 4);
            quadrants.into_iter().map(|quadrant| text(quadrant).to_owned()).collect()
        };
        let (options, about) = match rng.below(9) {
            0 => (shuffled(Quadrant::direction, rng), ChoiceTopic::Places),
            1 => (shuffled(Quadrant::action, rng), ChoiceTopic::Actions),
            2 => (rng.sample(&["left".to_owned(), "right".to_owned()], 2), ChoiceTopic::Sides),
            3 | 4 if names.len() == 4 => {
                let steps = names.iter().map(|name| step_text(name)).collect();
                (steps, ChoiceTopic::Steps { names })
            }
            5 | 6 if names.len() >= 3 => {
                let names = names[..3].to_vec();
                (orders(&names, rng), ChoiceTopic::Orders { names })
            }
            _ => {
                let moment = if rng.chance(0.5) { Moment::Start } else { Moment::End };
                let turn_deg = wrap_whole(30 * (1 + rng.below(11)) as i32);
                let count = 3 + rng.below(2);
                let options = names.into_iter().take(count).collect();
                (options, ChoiceTopic::Objects { moment, turn_deg })
            }
        };
        Self { options, about }
    }

    /// `Choices:` and a line `A. lamp` per option, as in a prompt.
    pub(super) fn listed(&self) -> String {
        choices(&self.options)
    }

    /// The key phrases of the rotation they depend on, if any, in any order.
    pub(super) fn key(&self) -> Vec<String> {
        let ChoiceTopic::Objects { moment, turn_deg } = self.about else { return Vec::new() };
        let side = if turn_deg > 0 { "left" } else { "right" };
        let when = match moment {
            Moment::Start => "at the start",
            Moment::End => "now",
        };
        vec![format!("rotated {side} {}", turn_deg.abs()), when.to_owned()]
    }

    /// `choices: lamp A, bed B. so bed B.`, with the letters of one or more options.
    pub(super) fn with_some_letters(&self, rng: &mut Rng) -> String {
        let count = 1 + rng.below(self.options.len());
        self.with_letters_of(rng.sample(&self.indices(), count))
    }

    /// The same, with the letter of every option, `rounds` times.
    pub(super) fn with_all_letters(&self, rounds: usize, rng: &mut Rng) -> String {
        let indices = self.indices();
        self.with_letters_of((0..rounds).flat_map(|_| rng.sample(&indices, indices.len())))
    }

    fn indices(&self) -> Vec<usize> {
        (0..self.options.len()).collect()
    }

    fn with_letters_of(&self, indices: impl IntoIterator<Item = usize>) -> String {
        let conclusions =
            indices.into_iter().map(|index| so_text(&self.options[index], letter(index)));
        let sentences: Vec<String> =
            std::iter::once(choices_text(&self.options)).chain(conclusions).collect();
        sentences.join(" ")
    }

    /// The rationale for these choices, about `subject` if they need one; `None` if the captions
    /// support none of them.
    pub(super) fn reasoned(&self, subject: &str, trace: &CaptionTrace) -> Option<String> {
        let name = subject.to_owned();
        let template = match &self.about {
            ChoiceTopic::Places => QuestionTemplate::Position { name },
            ChoiceTopic::Actions => QuestionTemplate::Action { name },
            ChoiceTopic::Sides => return None,
            ChoiceTopic::Steps { names } => QuestionTemplate::Progress { route: names.clone() },
            ChoiceTopic::Orders { names } => QuestionTemplate::Order { names: names.clone() },
            ChoiceTopic::Objects { moment, turn_deg } => {
                QuestionTemplate::Counterfactual { moment: *moment, turn_deg: *turn_deg }
            }
        };
        Some(derive_rationale(&template, &self.options, trace)?.think())
    }
}

/// Four orders of three names.
fn orders(names: &[String], rng: &mut Rng) -> Vec<String> {
    let mut orders: Vec<String> = Vec::new();
    while orders.len() < 4 {
        let order = rng.sample(names, names.len()).join(", ");
        if !orders.contains(&order) {
            orders.push(order);
        }
    }
    orders
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::captions::captions_at;
    use crate::world::{draw, keyframes_by_pose, names};

    #[test]
    fn every_letter_belongs_to_its_choice() {
        let mut rng = Rng::new(&[1]);
        for _ in 0..200 {
            let choices = Choices::of_anything(&mut rng);
            let listed = choices.listed();
            let text = [choices.with_some_letters(&mut rng), choices.with_all_letters(2, &mut rng)]
                .join(" ");
            let mut count = 0;
            for (letter, option) in listed.lines().filter_map(|line| line.split_once(". ")) {
                let conclusion = format!(" so {option} ");
                for (at, _) in text.match_indices(&conclusion) {
                    assert!(text[at + conclusion.len()..].starts_with(letter), "{listed} {text}");
                    count += 1;
                }
            }
            assert!(count > 2 * choices.options.len(), "{listed} {text}");
        }
    }

    #[test]
    fn reasoning_concludes_one_of_the_choices_and_is_about_the_subject() {
        let mut rng = Rng::new(&[2]);
        let (mut reasoned, mut turned, mut tracked) = (0, 0, 0);
        for seed in 0..200 {
            let scene = draw(&[seed]);
            let trace =
                CaptionTrace::from_captions(&captions_at(&scene, &keyframes_by_pose(&scene)));
            let (trace, names) = (trace.unwrap(), names(&scene));
            let choices = Choices::of(&names, &mut rng);
            let subject = &names[0];
            let Some(text) = choices.reasoned(subject, &trace) else { continue };
            let (_, conclusion) = text.rsplit_once(" so ").unwrap();
            let known = choices.options.iter().enumerate();
            let mut known = known.map(|(index, option)| format!("{option} {}.", letter(index)));
            assert!(known.any(|known| known == conclusion), "{text}");
            reasoned += 1;
            match choices.about {
                ChoiceTopic::Objects { .. } => {
                    let key = choices.key();
                    let turn = key.iter().find_map(|part| part.strip_prefix("rotated ")).unwrap();
                    let turn = if turn.ends_with(" 180") { "behind" } else { turn };
                    let from_start = key.iter().any(|part| part == "at the start");
                    assert!(text.contains(&format!(", {turn}: ")), "{key:?} {text}");
                    assert!(!from_start || text.contains(" target ahead, "), "{key:?} {text}");
                    turned += 1;
                }
                ChoiceTopic::Places | ChoiceTopic::Actions => {
                    assert!(text.contains(&format!(". last {subject} ")), "{subject} {text}");
                    tracked += 1;
                }
                _ => {}
            }
        }
        assert!(reasoned > 80 && turned > 10 && tracked > 10, "{reasoned} {turned} {tracked}");
    }
}
