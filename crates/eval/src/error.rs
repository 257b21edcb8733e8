//! The crate's error.

/// Why predictions cannot be scored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file of predictions cannot be read, or a field of a record is wrong.
    #[error(transparent)]
    Records(#[from] embodied_r_rewards::Error),
    /// A solution is not of the kind that its category has.
    #[error("the solution `{solution}` of question `{id}` in `{category}` is not {wanted}")]
    Solution {
        /// The question.
        id: String,
        /// Its category.
        category: String,
        /// The solution at fault.
        solution: String,
        /// What it should be.
        wanted: &'static str,
    },
    /// A blind model cannot be asked, as the video's text cannot be told from the question.
    #[error(
        "question `{id}` holds text of the video and neither `original_question` nor a last \
         `Question:`, so a blind model would read the video"
    )]
    NotBlind {
        /// The question.
        id: String,
    },
    /// A question has no right answer to hold a blind model's against.
    #[error("question `{id}` has {found}, a blind model's answers need the letter of an option")]
    NoSolution {
        /// The question.
        id: String,
        /// What it has instead.
        found: String,
    },
    /// No record holds a prediction; often a file of questions was given.
    #[error("none of the {records} records holds a `content` or a `prediction`")]
    NoPredictions {
        /// Number of records.
        records: usize,
    },
    /// No record is of a category that the protocol scores.
    #[error("`{protocol}` scores none of the categories there are: {}", found.join(", "))]
    NothingToScore {
        /// The protocol's name.
        protocol: &'static str,
        /// The categories of the records.
        found: Vec<String>,
    },
}

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;
