//! Lettered lists of unrelated contents, and the letters of some.

use embodied_r_random::Rng;
use embodied_r_sim::statement::Statement;
use embodied_r_sim::wording::{OBJECT_NAMES, Octant, choices, letter, step_text};

/// What may stand between a content and its letter.
const JOINTS: [&str; 3] = [": ", ". ", " "];

/// A lettered list, in the format of a prompt's choices.
pub(super) struct LetteredList {
    options: Vec<String>,
}

impl LetteredList {
    /// Contents of a random kind: objects, orders of objects, steps, directions, actions or sides.
    pub(super) fn random(rng: &mut Rng) -> Self {
        let names = rng.sample(&OBJECT_NAMES.map(str::to_owned), 4);
        let texts = |text: fn(Octant) -> &'static str| Octant::ALL.map(|o| text(o).to_owned());
        let options = match rng.below(10) {
            0 | 1 => rng.sample(&texts(Octant::direction), 4),
            2 | 3 => rng.sample(&texts(Octant::action), 4),
            4 => rng.sample(&["left".to_owned(), "right".to_owned()], 2),
            5 | 6 => names.iter().map(|name| step_text(name)).collect(),
            7 | 8 => orders(&names[..names.len().min(3)], rng),
            _ => names,
        };
        Self { options }
    }

    /// `Choices:` and a line `A. lamp` per option, as in a prompt.
    pub(super) fn listed(&self) -> String {
        choices(&self.options)
    }

    /// `lamp: A.`: the letter of a random option.
    pub(super) fn lookup(&self, rng: &mut Rng) -> String {
        self.letter_of(rng.below(self.options.len()), rng)
    }

    /// The letter of every option, `rounds` times, one per line.
    pub(super) fn lookups(&self, rounds: usize, rng: &mut Rng) -> String {
        let indices: Vec<usize> = (0..self.options.len()).collect();
        let lines: Vec<String> = (0..rounds)
            .flat_map(|_| rng.sample(&indices, indices.len()))
            .collect::<Vec<_>>()
            .into_iter()
            .map(|index| self.letter_of(index, rng))
            .collect();
        lines.join("\n")
    }

    /// A random option and its letter.
    pub(super) fn option(&self, rng: &mut Rng) -> (&str, char) {
        let index = rng.below(self.options.len());
        (self.content(index), letter(index))
    }

    fn content(&self, index: usize) -> &str {
        self.options.get(index).map_or("", String::as_str)
    }

    fn letter_of(&self, index: usize, rng: &mut Rng) -> String {
        let content = self.content(index);
        if rng.chance(0.5) {
            return conclusion(content, letter(index));
        }
        let joint = rng.pick(&JOINTS).copied().unwrap_or(JOINTS[0]);
        format!("{content}{joint}{}.", letter(index))
    }
}

/// `so lamp A.`
pub(super) fn conclusion(content: &str, letter: char) -> String {
    format!("{}.", Statement::So { content: content.to_owned(), letter })
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

    #[test]
    fn every_letter_belongs_to_its_content() {
        let mut rng = Rng::new(&[1]);
        for _ in 0..200 {
            let list = LetteredList::random(&mut rng);
            let listed = list.listed();
            let options: Vec<(&str, &str)> =
                listed.lines().filter_map(|line| line.split_once(". ")).collect();
            for lookup in list.lookups(2, &mut rng).lines() {
                let letter = lookup.trim_end_matches('.').chars().last().unwrap().to_string();
                let (_, content) = options.iter().find(|(listed, _)| *listed == letter).unwrap();
                let named = lookup.strip_prefix("so ").unwrap_or(lookup);
                assert!(named.starts_with(content), "{listed}\n{lookup}");
            }
        }
    }
}
