//! A model's scores on one kind of questions.

use std::path::Path;

use embodied_r_data::question::read_questions;
use embodied_r_policy::tokenizer::Tokenizer;
use embodied_r_robot::Kind;
use serde::Serialize;

use super::super::scores::{Marks, Scores, Tally};

/// Which questions a row is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(into = "&'static str")]
pub(super) enum Scope {
    /// All kinds.
    All,
    /// One kind.
    Of(Kind),
}

impl Scope {
    /// All kinds, then each.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        std::iter::once(Self::All).chain(Kind::ALL.map(Self::Of))
    }

    /// `all`, or the kind's name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Of(kind) => kind.name(),
        }
    }

    fn contains(self, kind: &str) -> bool {
        self == Self::All || self.name() == kind
    }
}

impl From<Scope> for &'static str {
    fn from(scope: Scope) -> Self {
        scope.name()
    }
}

/// A model's scores on one kind of questions, or on all.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(in super::super) struct KindRow {
    /// What was evaluated.
    pub(super) name: &'static str,
    /// The kind of the questions.
    pub(super) kind: Scope,
    /// Scores of the greedy replies.
    #[serde(flatten)]
    pub(super) scores: Scores,
    /// Supervised examples that the model was trained on.
    pub(super) supervised_examples: usize,
}

impl KindRow {
    /// The heads of the table.
    pub(super) const HEADS: [&str; 8] = [
        "episodes never seen",
        "kind",
        "n",
        "accuracy",
        "parsable",
        "of parsable",
        "tokens",
        "supervised examples",
    ];

    /// Scores the replies in `greedy`, over all kinds and for each; a kind without questions has no row. `model` is the
    /// model's directory, for its tokenizer.
    pub(super) fn read(
        name: &'static str,
        supervised_examples: usize,
        greedy: &Path,
        model: &Path,
    ) -> anyhow::Result<Vec<Self>> {
        let tokenizer = Tokenizer::from_dir(model)?;
        let mut replies = Vec::new();
        for question in read_questions(greedy)? {
            let reply = question.content.as_deref().unwrap_or_default();
            let tokens = tokenizer.encode(reply)?.len();
            replies.push((Marks::of(&question)?, tokens, question.question_category));
        }
        let row = |kind: Scope| {
            let mut tally = Tally::default();
            for (marks, tokens, _) in replies.iter().filter(|(.., of)| kind.contains(of)) {
                tally.add(*marks, *tokens);
            }
            Self { name, kind, scores: tally.scores(), supervised_examples }
        };
        Ok(Scope::all().map(row).filter(|row| row.scores.n > 0).collect())
    }

    /// The cells of the table.
    pub(super) fn cells(&self) -> Vec<String> {
        let mut cells = vec![self.name.to_owned(), self.kind.name().to_owned()];
        cells.extend(self.scores.cells());
        cells.push(format!("{:.0}", self.scores.tokens));
        cells.push(self.supervised_examples.to_string());
        cells
    }
}

/// The names of the rows, each once.
pub(super) fn names(rows: &[KindRow]) -> impl Iterator<Item = &'static str> {
    rows.iter().filter(|row| row.kind == Scope::All).map(|row| row.name)
}

#[cfg(test)]
mod tests {
    use super::super::super::scores::Tally;
    use super::*;

    #[test]
    fn a_row_has_the_name_of_its_kind_and_the_scores_beside() {
        let row = |kind| KindRow {
            name: "trained",
            kind,
            scores: Tally::default().scores(),
            supervised_examples: 60,
        };
        let json = |kind| serde_json::to_value(row(kind)).unwrap();
        assert_eq!(json(Scope::All)["kind"], "all");
        let movement = json(Scope::Of(Kind::Movement));
        assert_eq!(movement["kind"], "movement");
        let keys: Vec<&str> = movement.as_object().unwrap().keys().map(String::as_str).collect();
        let expected = [
            "name",
            "kind",
            "n",
            "accuracy",
            "stderr",
            "parsable",
            "accuracy_of_parsable",
            "tokens",
            "supervised_examples",
        ];
        assert_eq!(keys, expected);
    }
}
