//! Lettered choices without a question.

use crate::ask::{Ask, Moment, choices, letter, step_text};
use crate::catalogue::KINDS;
use crate::geometry::wrap_whole;
use crate::rationale::{Quadrant, choices_text, reason, so_text};
use crate::rng::Rng;
use crate::trace::Trace;

/// Options of one of the kinds that questions have.
pub(super) struct Choices {
    options: Vec<String>,
    about: About,
}

/// What the options are about.
enum About {
    Places,
    Actions,
    Sides,
    Steps {
        names: Vec<String>,
    },
    Orders {
        names: Vec<String>,
    },
    /// Objects, any of which may be nearest after a turn.
    Objects {
        moment: Moment,
        turn_deg: i32,
    },
}

impl Choices {
    /// Choices among anything that there may be in rooms.
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
            0 => (shuffled(Quadrant::place, rng), About::Places),
            1 => (shuffled(Quadrant::action, rng), About::Actions),
            2 => (rng.sample(&["left".to_owned(), "right".to_owned()], 2), About::Sides),
            3 | 4 if names.len() == 4 => {
                let steps = names.iter().map(|name| step_text(name)).collect();
                (steps, About::Steps { names })
            }
            5 | 6 if names.len() >= 3 => {
                let names = names[..3].to_vec();
                (orders(&names, rng), About::Orders { names })
            }
            _ => {
                let moment = if rng.chance(0.5) { Moment::Start } else { Moment::End };
                let turn_deg = wrap_whole(30 * (1 + rng.below(11)) as i32);
                let count = 3 + rng.below(2);
                let options = names.into_iter().take(count).collect();
                (options, About::Objects { moment, turn_deg })
            }
        };
        Self { options, about }
    }

    /// `Choices:` and a line `A. lamp` for each, as they stand in a prompt.
    pub(super) fn listed(&self) -> String {
        choices(&self.options)
    }

    /// The turn that they are about, if they are, in parts that stand in any order.
    pub(super) fn key(&self) -> Vec<String> {
        let About::Objects { moment, turn_deg } = self.about else { return Vec::new() };
        let side = if turn_deg > 0 { "left" } else { "right" };
        let when = match moment {
            Moment::Start => "at the start",
            Moment::End => "now",
        };
        vec![format!("rotated {side} {}", turn_deg.abs()), when.to_owned()]
    }

    /// `choices: lamp A, bed B. so bed B.`, with the letter of one option or of several.
    pub(super) fn told(&self, rng: &mut Rng) -> String {
        let count = 1 + rng.below(self.options.len());
        self.with_letters_of(rng.sample(&self.indices(), count))
    }

    /// The same, with the letter of every option asked for `rounds` times over.
    pub(super) fn told_often(&self, rounds: usize, rng: &mut Rng) -> String {
        let indices = self.indices();
        self.with_letters_of((0..rounds).flat_map(|_| rng.sample(&indices, indices.len())))
    }

    fn indices(&self) -> Vec<usize> {
        (0..self.options.len()).collect()
    }

    fn with_letters_of(&self, indices: impl IntoIterator<Item = usize>) -> String {
        let conclusions =
            indices.into_iter().map(|index| so_text(&self.options[index], letter(index)));
        let told: Vec<String> =
            std::iter::once(choices_text(&self.options)).chain(conclusions).collect();
        told.join(" ")
    }

    /// What the captions say about the choices, and the choice that this leads to, for `subject`
    /// where they are about one; `None` where it leads to none.
    pub(super) fn reasoned(&self, subject: &str, trace: &Trace) -> Option<String> {
        let name = subject.to_owned();
        let ask = match &self.about {
            About::Places => Ask::Position { name },
            About::Actions => Ask::Action { name },
            About::Sides => return None,
            About::Steps { names } => Ask::Progress { route: names.clone() },
            About::Orders { names } => Ask::Order { names: names.clone() },
            About::Objects { moment, turn_deg } => {
                Ask::Counterfactual { moment: *moment, turn_deg: *turn_deg }
            }
        };
        Some(reason(&ask, &self.options, trace)?.think())
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
    fn letters_are_told_of_the_choices_that_have_them() {
        let mut rng = Rng::new(&[1]);
        for _ in 0..200 {
            let choices = Choices::of_anything(&mut rng);
            let listed = choices.listed();
            let told = [choices.told(&mut rng), choices.told_often(2, &mut rng)].join(" ");
            let mut count = 0;
            for (letter, option) in listed.lines().filter_map(|line| line.split_once(". ")) {
                let conclusion = format!(" so {option} ");
                for (at, _) in told.match_indices(&conclusion) {
                    assert!(told[at + conclusion.len()..].starts_with(letter), "{listed} {told}");
                    count += 1;
                }
            }
            assert!(count > 2 * choices.options.len(), "{listed} {told}");
        }
    }

    #[test]
    fn reasoning_about_choices_ends_at_one_of_them_and_is_about_what_is_named() {
        let mut rng = Rng::new(&[2]);
        let (mut reasoned, mut turned, mut carried) = (0, 0, 0);
        for seed in 0..200 {
            let scene = draw(&[seed]);
            let trace = Trace::from_captions(&captions_at(&scene, &keyframes_by_pose(&scene)));
            let (trace, names) = (trace.unwrap(), names(&scene));
            let choices = Choices::of(&names, &mut rng);
            let subject = &names[0];
            let Some(told) = choices.reasoned(subject, &trace) else { continue };
            let (_, conclusion) = told.rsplit_once(" so ").unwrap();
            let known = choices.options.iter().enumerate();
            let mut known = known.map(|(index, option)| format!("{option} {}.", letter(index)));
            assert!(known.any(|known| known == conclusion), "{told}");
            reasoned += 1;
            match choices.about {
                About::Objects { .. } => {
                    let key = choices.key();
                    let turn = key.iter().find_map(|part| part.strip_prefix("rotated ")).unwrap();
                    let turn = if turn.ends_with(" 180") { "behind" } else { turn };
                    let from_start = key.iter().any(|part| part == "at the start");
                    assert!(told.contains(&format!(", {turn}: ")), "{key:?} {told}");
                    assert!(!from_start || told.contains(" target ahead, "), "{key:?} {told}");
                    turned += 1;
                }
                About::Places | About::Actions => {
                    assert!(told.contains(&format!(". last {subject} ")), "{subject} {told}");
                    carried += 1;
                }
                _ => {}
            }
        }
        assert!(reasoned > 80 && turned > 10 && carried > 10, "{reasoned} {turned} {carried}");
    }
}
