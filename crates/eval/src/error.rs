//! The crate's error type.

/// Errors of reading and scoring predictions.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The prediction file cannot be read, or a field of a record is invalid.
    #[error(transparent)]
    Records(#[from] embodied_r_rewards::Error),
    /// A solution is of the wrong kind for its category.
    #[error("the solution `{solution}` of question `{id}` in `{category}` is not {expected}")]
    Solution {
        /// The question.
        id: String,
        /// Its category.
        category: String,
        /// The invalid solution.
        solution: String,
        /// The expected kind.
        expected: &'static str,
    },
    /// The captions cannot be separated from the question, so a blind baseline is impossible.
    #[error(
        "question `{id}` contains captions but neither `original_question` nor a final `Question:`, \
         so a blind model would see the captions"
    )]
    NotBlind {
        /// The question.
        id: String,
    },
    /// A question has no reference answer to score a blind model with.
    #[error("question `{id}` has {found}; the blind baseline needs an option letter")]
    NoSolution {
        /// The question.
        id: String,
        /// What was found instead.
        found: String,
    },
    /// No record has a prediction, often because a question file was given.
    #[error("none of the {records} records has a `content` or a `prediction`")]
    NoPredictions {
        /// Number of records.
        records: usize,
    },
    /// The protocol scores none of the records' categories.
    #[error("`{protocol}` scores none of the records' categories: {}", found.join(", "))]
    NothingToScore {
        /// The protocol's name.
        protocol: &'static str,
        /// The categories of the records.
        found: Vec<String>,
    },
}

/// The crate's result type.
pub type Result<T, E = Error> = std::result::Result<T, E>;
