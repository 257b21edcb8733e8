//! Matches saved outputs to the questions of a question set, so that those it lacks count as wrong.

use std::collections::HashMap;

use embodied_r_data::Question;
use embodied_r_rewards::answer_type::AnswerType;

use crate::error::{Error, Result};
use crate::predictions::{Prediction, PredictionOutput};
use crate::samples::SampledQuestion;

/// A model's output or outputs for one question.
pub trait Answered {
    /// What the record says of its question.
    fn asked(&self) -> Asked<'_>;
    /// The same outputs with the category and the reference answer of `question`. Without an output, the question is
    /// unanswered.
    fn of(self, question: &Question) -> Self;
    /// No output for `question`.
    fn unanswered(question: &Question) -> Self;
}

/// What a record says of its question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked<'a> {
    /// The question's identifier.
    pub id: &'a str,
    /// Its row in the question set, which then identifies it.
    pub row: Option<usize>,
    /// The file name of its video, if known.
    pub video: Option<&'a str>,
    /// Its category and its reference answer, if known.
    pub content: Option<(&'a str, &'a str)>,
}

/// The outputs for a question set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matched<T> {
    /// One for each question, in the order of the question set, with its category and reference answer.
    pub outputs: Vec<T>,
    /// Number of records of other questions, which are left out.
    pub others: usize,
    /// Number of records whose reference answer is not that of the question set.
    pub other_solutions: usize,
}

/// Finds the record of each question, by row, or by identifier and video, or by category where one of them has no video.
/// Questions without a record are unanswered.
///
/// # Errors
/// Two records are of one question, a record fits several questions, the set has no such row, or no record is of a question.
pub fn match_questions<T: Answered>(questions: &[Question], records: Vec<T>) -> Result<Matched<T>> {
    let mut indices: HashMap<String, Vec<usize>> = HashMap::new();
    for (index, question) in questions.iter().enumerate() {
        indices.entry(question.id()).or_default().push(index);
    }
    let count = records.len();
    let (mut found, mut others, mut other_solutions) = (HashMap::new(), 0, 0);
    for record in records {
        let asked = record.asked();
        let same_id = match asked.row {
            Some(row) if row < questions.len() => vec![row],
            Some(row) => return Err(Error::NoSuchRow { row, questions: questions.len() }),
            None => indices.get(asked.id).cloned().unwrap_or_default(),
        };
        let fitting = same_id.into_iter().filter(|index| asked.fits(&questions[*index]));
        let index = match fitting.collect::<Vec<_>>()[..] {
            [] => {
                others += 1;
                continue;
            }
            [index] => index,
            _ => return Err(Error::AmbiguousQuestion { id: asked.id.to_owned() }),
        };
        let question = &questions[index];
        let is_other = |(_, solution): (_, &str)| solution != question.solution();
        other_solutions += usize::from(asked.content.is_some_and(is_other));
        if found.insert(index, record.of(question)).is_some() {
            return Err(Error::Duplicate {
                id: question.id(),
                video: question.key().video,
                first: "one record".to_owned(),
                second: "another".to_owned(),
            });
        }
    }
    if found.is_empty() {
        return Err(Error::OtherQuestionSet { records: count });
    }
    let outputs = questions.iter().enumerate();
    let outputs = outputs
        .map(|(index, question)| found.remove(&index).unwrap_or_else(|| T::unanswered(question)));
    Ok(Matched { outputs: outputs.collect(), others, other_solutions })
}

impl Asked<'_> {
    /// Whether it is `question`, which has its identifier.
    fn fits(&self, question: &Question) -> bool {
        match (self.video, question.key().video) {
            (Some(video), Some(other)) => video == other,
            _ => self.content.is_none_or(|(category, _)| category == question.category()),
        }
    }
}

impl Answered for Prediction {
    fn asked(&self) -> Asked<'_> {
        let Self { id, row, video, category, solution, .. } = self;
        let content = (!self.is_bare()).then_some((category.as_str(), solution.as_str()));
        Asked { id, row: *row, video: video.as_deref(), content }
    }

    fn of(self, question: &Question) -> Self {
        let output = match self.output {
            PredictionOutput::Missing => PredictionOutput::Unanswered,
            output => output,
        };
        Self { output, ..Self::unanswered(question) }
    }

    fn unanswered(question: &Question) -> Self {
        Self {
            id: question.id(),
            video: question.key().video,
            question: question.question.clone(),
            category: question.category().to_owned(),
            solution: question.solution(),
            answer_type: AnswerType::of_columns(&question.extra),
            columns: question.extra.clone(),
            output: PredictionOutput::Unanswered,
            row: None,
        }
    }
}

impl Answered for SampledQuestion {
    fn asked(&self) -> Asked<'_> {
        let Self { id, video, category, solution, .. } = self;
        Asked { id, row: None, video: video.as_deref(), content: Some((category, solution)) }
    }

    fn of(self, question: &Question) -> Self {
        Self { prompt: self.prompt, question: self.question, ..Self::new(question, self.samples) }
    }

    fn unanswered(question: &Question) -> Self {
        Self::new(question, Vec::new())
    }
}

#[cfg(test)]
mod tests;
