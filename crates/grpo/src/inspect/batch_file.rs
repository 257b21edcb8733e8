//! Batch files: the tokens of a step with the inputs of its loss.
//!
//! A run writes one for every skipped step, and [`crate::inspect`] reads it. The schema is `{"groups": [{"prompt_ids":
//! [ids], "completions": [{"ids": [ids], "advantage": x}]}]}`, where a completion may have `old_logps`, `ref_logps` and
//! `sampling_logps`, one value per token, and a group `"images": [path]` and `"videos": [{"frames": [path], "fps": x}]`. A
//! [`FileImage`] may be a frame of a video file, and a [`FileVideo`] a file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize};

use crate::error::{Error, Result};
use crate::model::{Group, Prompt};
use crate::rollout::{Completion, Rollout};
use crate::settings::LossSettings;
use crate::update::micro_batch::MicroBatch;
use embodied_r_dist::ProcessGroup;
use embodied_r_media::sampled_video::FrameSelection;
use embodied_r_media::table::ImageTable;

/// A batch of groups.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchFile {
    /// The groups.
    pub groups: Vec<FileGroup>,
    /// The loss settings of the batch, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<LossSettings>,
}

/// A prompt and its completions.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileGroup {
    /// Prompt token ids, with a placeholder for each token of an image.
    pub prompt_ids: Vec<u32>,
    /// The images, in the order of their placeholders; paths are relative to the file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<FileImage>,
    /// The videos, in the order of their placeholders.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub videos: Vec<FileVideo>,
    /// The completions.
    pub completions: Vec<FileCompletion>,
}

/// An image of a batch file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "expected the path of an image, or `{\"video\": path, \"frames\": \"uniform=16\", \"frame\": 0}`"
)]
pub enum FileImage {
    /// The file of an image.
    File(PathBuf),
    /// A frame of a video.
    Frame(VideoFrame),
}

/// A frame of a video file that is an image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VideoFrame {
    /// The file.
    pub video: PathBuf,
    /// Which of its frames are selected.
    pub frames: FrameSelection,
    /// The index of the frame among them.
    pub frame: usize,
}

/// A video of a batch file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "expected `{\"frames\": [path], \"fps\": 2}` or `{\"video\": path, \"frames\": \"uniform=16\"}`"
)]
pub enum FileVideo {
    /// The files of its frames.
    Frames(FrameList),
    /// A video file.
    File(VideoFrames),
}

/// A video given by its frames.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FrameList {
    /// The files of its frames.
    pub frames: Vec<PathBuf>,
    /// Frames per second.
    pub fps: f64,
}

/// A video file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VideoFrames {
    /// The file.
    pub video: PathBuf,
    /// Which of its frames are seen.
    pub frames: FrameSelection,
}

/// A completion. Each list of log-probabilities must be given for all completions of the file or for none.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileCompletion {
    /// Token ids, including the stop token.
    pub ids: Vec<u32>,
    /// The advantage.
    #[serde(deserialize_with = "number")]
    pub advantage: f64,
    /// The scores of the rewards, by name, in a dump of rewards that are too large.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub scores: BTreeMap<String, f64>,
    /// Old log-probabilities, under the policy that sampled; absent on policy.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "logps")]
    pub old_logps: Option<Vec<f64>>,
    /// Log-probabilities under the reference model.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "logps")]
    pub ref_logps: Option<Vec<f64>>,
    /// Log-probabilities reported by the sampler.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "logps")]
    pub sampling_logps: Option<Vec<f64>>,
}

/// A number; NaN and infinity are `null`, since JSON has neither.
fn number<'de, D: Deserializer<'de>>(input: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(input)?.unwrap_or(f64::NAN))
}

/// Log-probabilities; NaN is `null`, since JSON has no NaN.
fn logps<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Vec<f64>>, D::Error> {
    let values: Option<Vec<Option<f64>>> = Option::deserialize(input)?;
    Ok(values.map(|values| values.into_iter().map(|x| x.unwrap_or(f64::NAN)).collect()))
}

/// A list of log-probabilities: its name and accessor.
type List = (&'static str, fn(&FileCompletion) -> Option<&Vec<f64>>);

const LISTS: [List; 3] = [
    ("old_logps", |completion| completion.old_logps.as_ref()),
    ("ref_logps", |completion| completion.ref_logps.as_ref()),
    ("sampling_logps", |completion| completion.sampling_logps.as_ref()),
];

impl BatchFile {
    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read, does not match the schema, contains no completion, or its log-probabilities are not one per
    /// token or missing in some completions.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
        let batch: Self = serde_json::from_slice(&bytes).map_err(Error::json(path))?;
        match batch.fault() {
            Some(what) => Err(Error::Batch { path: path.into(), what }),
            None => Ok(batch),
        }
    }

    /// Converts micro-batches to a batch file.
    pub fn of(batches: &[MicroBatch], settings: LossSettings, table: Option<&ImageTable>) -> Self {
        let groups = batches.iter().flat_map(|batch| groups(batch, table)).collect();
        Self { groups, settings: Some(settings) }
    }

    /// The completions of `rollouts` with their scores, by the `names` of the rewards. There are no loss settings, which
    /// may need log-probabilities.
    pub(crate) fn of_rollouts(
        rollouts: &[Rollout],
        names: &[&str],
        table: Option<&ImageTable>,
    ) -> Self {
        let completion = |completion: &Completion| FileCompletion {
            ids: completion.ids.clone(),
            advantage: completion.advantage,
            scores: names
                .iter()
                .zip(&completion.scores)
                .filter_map(|(name, score)| Some(((*name).to_owned(), score.as_ref()?.value?)))
                .collect(),
            ..FileCompletion::default()
        };
        let group = |rollout: &Rollout| FileGroup {
            completions: rollout.completions.iter().map(completion).collect(),
            ..FileGroup::of_prompt(&rollout.prompt, table)
        };
        Self { groups: rollouts.iter().map(group).collect(), settings: None }
    }

    /// Merges the batches of all ranks, with the settings of rank 0.
    ///
    /// # Errors
    /// A rank is lost, or the batch cannot be serialized.
    pub fn merge_ranks(self, process_group: &ProcessGroup) -> Result<Self> {
        let unwritten = Error::json("batch");
        let text = serde_json::to_string(&self).map_err(unwritten)?;
        let mut whole = Self { groups: Vec::new(), ..self };
        for text in process_group.all_gather(text)? {
            let of_rank: Self = serde_json::from_str(&text).map_err(Error::json("batch"))?;
            whole.groups.extend(of_rank.groups);
        }
        Ok(whole)
    }

    fn fault(&self) -> Option<String> {
        let completions = || self.groups.iter().flat_map(|group| &group.completions);
        let Some(first) = completions().next() else {
            return Some("contains no completion".into());
        };
        for (name, list) in LISTS {
            let wanted = list(first).is_some();
            for (g, group) in self.groups.iter().enumerate() {
                for (c, completion) in group.completions.iter().enumerate() {
                    let place = format!("`groups[{g}].completions[{c}]`");
                    match list(completion) {
                        Some(logps) if logps.len() != completion.ids.len() => {
                            let (found, tokens) = (logps.len(), completion.ids.len());
                            return Some(format!(
                                "has {found} `{name}` for {tokens} tokens at {place}"
                            ));
                        }
                        found if found.is_some() != wanted => {
                            return Some(format!(
                                "has `{name}` for some completions and not for all, see {place}"
                            ));
                        }
                        _ => {}
                    }
                }
            }
        }
        None
    }

    /// The completions of `slices` as one micro-batch, all unmasked, with the `prompts` of the groups.
    pub(crate) fn micro_batch(
        &self,
        prompts: &[Prompt],
        slices: &[crate::update::packing::GroupSlice],
    ) -> MicroBatch {
        let of = |slice: &crate::update::packing::GroupSlice| {
            self.groups[slice.group].completions[slice.completions.clone()].iter()
        };
        let all = |list: fn(&FileCompletion) -> Option<&Vec<f64>>| {
            slices.iter().flat_map(of).filter_map(list).flatten().copied().collect()
        };
        let [old, reference, sampling] = LISTS.map(|(_, list)| all(list));
        MicroBatch {
            groups: slices
                .iter()
                .map(|slice| Group {
                    prompt: prompts[slice.group].clone(),
                    completions: of(slice).map(|completion| completion.ids.clone()).collect(),
                })
                .collect(),
            unmasked: slices.iter().flat_map(of).map(|_| true).collect(),
            advantages: slices.iter().flat_map(of).map(|c| c.advantage).collect(),
            old,
            reference,
            sampling,
        }
    }
}

fn groups(batch: &MicroBatch, table: Option<&ImageTable>) -> Vec<FileGroup> {
    let mut advantages = batch.advantages.iter();
    let mut start = 0;
    let groups = batch.groups.iter();
    groups
        .map(|group| {
            let completions = group.completions.iter().zip(&mut advantages);
            let completions = completions.map(|(ids, advantage)| {
                let tokens = start..start + ids.len();
                start += ids.len();
                let of = |logps: &[f64]| logps.get(tokens.clone()).map(<[f64]>::to_vec);
                FileCompletion {
                    ids: ids.clone(),
                    advantage: *advantage,
                    scores: BTreeMap::new(),
                    old_logps: of(&batch.old),
                    ref_logps: of(&batch.reference),
                    sampling_logps: of(&batch.sampling),
                }
            });
            let completions = completions.collect();
            FileGroup { completions, ..FileGroup::of_prompt(&group.prompt, table) }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(json: &str) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("batch.json");
        std::fs::write(&path, json).unwrap();
        BatchFile::read(&path).unwrap_err().to_string()
    }

    fn completions(completions: &str) -> String {
        format!(r#"{{"groups": [{{"prompt_ids": [1], "completions": [{completions}]}}]}}"#)
    }

    #[test]
    fn a_batch_file_round_trips() {
        let batch = MicroBatch {
            groups: [
                Group { prompt: vec![1, 2].into(), completions: vec![vec![3], vec![4, 5]] },
                Group { prompt: vec![6].into(), completions: vec![vec![7, 8]] },
            ]
            .into(),
            unmasked: vec![true; 3],
            advantages: vec![0.5, -0.5, 1.0],
            reference: vec![-1.0, -2.0, -3.0, -4.0, -5.0],
            ..MicroBatch::default()
        };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("batch.json");
        let file = BatchFile::of(std::slice::from_ref(&batch), LossSettings::default(), None);
        std::fs::write(&path, serde_json::to_vec(&file).unwrap()).unwrap();
        let read = BatchFile::read(&path).unwrap();
        let slice = |group, n| crate::update::packing::GroupSlice { group, completions: 0..n };
        let prompts = read.prompts(None, dir.path()).unwrap();
        assert_eq!(read.micro_batch(&prompts, &[slice(0, 2), slice(1, 1)]), batch);
    }

    #[test]
    fn a_nan_log_probability_round_trips() {
        let batch = MicroBatch {
            groups: [Group { prompt: vec![1].into(), completions: vec![vec![2, 3]] }].into(),
            unmasked: vec![true],
            advantages: vec![0.5],
            reference: vec![f64::NAN, -2.0],
            ..MicroBatch::default()
        };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("batch.json");
        let file = BatchFile::of(&[batch], LossSettings::default(), None);
        std::fs::write(&path, serde_json::to_vec(&file).unwrap()).unwrap();
        let read = BatchFile::read(&path).unwrap();
        let logps = read.groups[0].completions[0].ref_logps.clone().unwrap();
        assert!(logps[0].is_nan() && logps[1] == -2.0);
    }

    #[test]
    fn log_probabilities_are_one_per_token_and_all_or_none() {
        let error = fault(&completions(r#"{"ids": [2, 3], "advantage": 1, "old_logps": [-1.0]}"#));
        assert!(error.ends_with("has 1 `old_logps` for 2 tokens at `groups[0].completions[0]`"));
        let error = fault(&completions(
            r#"{"ids": [2], "advantage": 1, "ref_logps": [-1.0]}, {"ids": [3], "advantage": 1}"#,
        ));
        assert!(error.contains("not for all, see `groups[0].completions[1]`"), "{error}");
    }

    #[test]
    fn an_empty_batch_and_an_unknown_field_are_refused() {
        assert!(fault(r#"{"groups": []}"#).ends_with("contains no completion"));
        let error = fault(&completions(r#"{"ids": [2], "advantages": 1}"#));
        assert!(error.contains("unknown field `advantages`"), "{error}");
    }
}
