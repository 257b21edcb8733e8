//! Packed batches: prompts and completions concatenated without padding.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use embodied_r_kernels::attention::GroupSpan;
use embodied_r_kernels::rope::CosSinCache;

use crate::error::{Error, Result};
use crate::image_rows::BatchImage;
use crate::prompt::{MropePosition, Prompt};

/// A prompt and its completions to score. The prompt is computed once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Group {
    /// The prompt; at least one token.
    pub prompt: Prompt,
    /// Token ids of each completion; an empty one has no scores.
    pub completions: Vec<Vec<u32>>,
}

impl Group {
    /// Number of tokens that the decoder computes: all but each completion's last.
    pub fn tokens(&self) -> usize {
        let own: usize = self.completions.iter().map(|ids| ids.len().saturating_sub(1)).sum();
        self.prompt.len() + own
    }
}

/// Groups packed into one sequence of rows, and which rows predict which tokens.
///
/// The last layer's output is only needed at each prompt's last row and at the completions' rows.
#[derive(Debug, Clone)]
pub(crate) struct PackedBatch {
    /// Input ids.
    pub(crate) ids: Vec<usize>,
    /// Position of each input within its sequence, for RoPE.
    pub(crate) positions: Vec<MropePosition>,
    /// The images in place of tokens.
    pub(crate) images: Vec<BatchImage>,
    /// The rows of each group.
    pub(crate) spans: Vec<GroupSpan>,
    /// The rows whose last-layer output is needed: each prompt's last one, and the completions'.
    pub(crate) output_rows: Vec<usize>,
    /// For each scored token, the index into `output_rows` of the row that predicts it.
    pub(crate) sources: Vec<usize>,
    /// The scored tokens: those of all completions, in order.
    pub(crate) targets: Vec<u32>,
    /// The rows' cosines and sines, shared by the forward and backward passes of one policy.
    pub(crate) cos_sin: BatchCosSin,
}

/// Cosines and sines of a batch's rows, set by the first pass that uses them.
#[derive(Debug, Clone, Default)]
pub(crate) struct BatchCosSin {
    /// Of all rows.
    pub(crate) all: OnceLock<Arc<CosSinCache>>,
    /// Of the output rows.
    pub(crate) output_rows: OnceLock<Arc<CosSinCache>>,
    /// Of the rows after the prompt, in a batch of one group.
    pub(crate) after_prompt: OnceLock<Arc<CosSinCache>>,
}

impl PackedBatch {
    /// Packs the groups.
    ///
    /// # Errors
    /// [`Error::Sequence`] for an empty prompt, an id outside the vocabulary, or a sequence longer
    /// than `max_positions`.
    pub(crate) fn new(groups: &[Group], vocabulary: usize, max_positions: usize) -> Result<Self> {
        let mut batch = Self {
            ids: Vec::new(),
            positions: Vec::new(),
            images: Vec::new(),
            spans: Vec::with_capacity(groups.len()),
            output_rows: Vec::new(),
            sources: Vec::new(),
            targets: Vec::new(),
            cos_sin: BatchCosSin::default(),
        };
        for (index, group) in groups.iter().enumerate() {
            check(group, vocabulary, max_positions)
                .map_err(|fault| Error::Sequence { index, fault })?;
            batch.add(group);
        }
        Ok(batch)
    }

    fn add(&mut self, group: &Group) {
        let first = self.ids.len();
        let prompt = self.push(&group.prompt, group.prompt.ids(), 0);
        let images = group.prompt.images().iter();
        self.images.extend(images.map(|image| {
            let in_batch = |(tokens, rows): (Range<usize>, _)| {
                (first + tokens.start..first + tokens.end, rows)
            };
            BatchImage { parts: image.parts().map(in_batch).collect(), image: image.clone() }
        }));
        let last_of_prompt = self.output_rows.len();
        self.output_rows.push(prompt.end - 1);
        let mut completions = Vec::with_capacity(group.completions.len());
        for ids in &group.completions {
            let Some((_, inputs)) = ids.split_last() else { continue };
            let own = self.push(&group.prompt, inputs, group.prompt.len());
            self.sources.push(last_of_prompt);
            self.sources.extend(self.output_rows.len()..self.output_rows.len() + own.len());
            self.output_rows.extend(own.clone());
            self.targets.extend_from_slice(ids);
            completions.push(own);
        }
        self.spans.push(GroupSpan { prompt, completions, kv_only: 0 });
    }

    /// The spans with queries at the `output_rows` only.
    pub(crate) fn output_spans(&self) -> Vec<GroupSpan> {
        let end = |span: &GroupSpan| GroupSpan { kv_only: span.prompt.len() - 1, ..span.clone() };
        self.spans.iter().map(end).collect()
    }

    /// Adds the tokens of a sequence that begins with `prompt`, from the index `first` of the sequence on.
    fn push(&mut self, prompt: &Prompt, ids: &[u32], first: usize) -> Range<usize> {
        let start = self.ids.len();
        self.ids.extend(ids.iter().map(|id| *id as usize));
        let indices = first..first + ids.len();
        self.positions.extend(indices.map(|index| prompt.position(index)));
        start..self.ids.len()
    }
}

fn check(group: &Group, vocabulary: usize, max_positions: usize) -> Result<(), String> {
    if group.prompt.is_empty() {
        return Err("the prompt is empty".into());
    }
    let longest = group.completions.iter().map(Vec::len).max().unwrap_or(0);
    let length = group.prompt.len() + longest;
    if length > max_positions {
        return Err(format!("{length} tokens, the context length is {max_positions}"));
    }
    let ids = group.prompt.ids().iter().chain(group.completions.iter().flatten());
    match ids.clone().find(|id| **id as usize >= vocabulary) {
        Some(id) => Err(format!("token id {id} is outside the vocabulary of {vocabulary}")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_is_packed_once_and_its_last_row_predicts_every_first_token() {
        let groups = [
            Group { prompt: vec![5, 6].into(), completions: vec![vec![7, 8, 9], vec![], vec![4]] },
            Group { prompt: vec![1].into(), completions: vec![vec![2, 3]] },
        ];
        let batch = PackedBatch::new(&groups, 10, 8).unwrap();
        assert_eq!(batch.ids, [5, 6, 7, 8, 1, 2]);
        assert_eq!(batch.positions, [0, 1, 2, 3, 0, 1].map(|position| [position; 3]));
        assert_eq!(batch.targets, [7, 8, 9, 4, 2, 3]);
        assert_eq!(batch.output_rows, [1, 2, 3, 4, 5]);
        assert_eq!(batch.sources, [0, 1, 2, 0, 3, 4]);
        assert_eq!(batch.ids.len(), groups.iter().map(Group::tokens).sum::<usize>());
    }

    #[test]
    fn the_invalid_group_is_reported_by_index() {
        let group =
            |prompt: Vec<u32>| Group { prompt: prompt.into(), completions: vec![vec![1; 4]] };
        let fault =
            |g: Group| PackedBatch::new(&[group(vec![1]), g], 10, 6).unwrap_err().to_string();
        assert!(fault(group(vec![])).contains("sequence 1: the prompt is empty"));
        assert!(fault(group(vec![10])).contains("token id 10 is outside the vocabulary of 10"));
        assert!(fault(group(vec![1; 3])).contains("7 tokens"));
    }
}
