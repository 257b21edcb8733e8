//! Shards: parts of the questions, for several machines.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use embodied_r_data::Question;

/// One of `count` shards. All questions of a video are in the same shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shard {
    index: usize,
    count: usize,
}

impl Shard {
    /// Shard `index` of `count`, from 1; `None` if out of range.
    pub fn new(index: usize, count: usize) -> Option<Self> {
        (1..=count).contains(&index).then_some(Self { index, count })
    }

    /// Its index, from 1.
    pub fn index(self) -> usize {
        self.index
    }

    /// The number of shards.
    pub fn count(self) -> usize {
        self.count
    }

    /// Its output folder, within the run's.
    pub fn folder(self, save_path: &Path) -> PathBuf {
        save_path.join(format!("shard-{}-of-{}", self.index, self.count))
    }

    /// The shard of an output folder, by the folder's name.
    pub fn from_folder(folder: &Path) -> Option<Self> {
        let name = folder.file_name()?.to_str()?.strip_prefix("shard-")?;
        let (index, count) = name.split_once("-of-")?;
        Self::new(index.parse().ok()?, count.parse().ok()?)
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text.split_once('/').and_then(|(index, count)| {
            Some((index.trim().parse().ok()?, count.trim().parse().ok()?))
        });
        let shard = numbers.and_then(|(index, count)| Self::new(index, count));
        shard.ok_or_else(|| "it must be an index and a count, from `1/8` to `8/8`".to_owned())
    }
}

/// The assignment of videos to shards. It depends on the questions alone and balances the number of
/// questions, as far as whole videos allow.
#[derive(Debug)]
pub(super) struct ShardAssignment<'a>(HashMap<&'a str, usize>);

impl<'a> ShardAssignment<'a> {
    /// Partitions the videos of all questions into `count` shards.
    pub(super) fn new(questions: impl Iterator<Item = &'a Question>, shards: usize) -> Self {
        let mut weights: BTreeMap<&str, usize> = BTreeMap::new();
        for question in questions {
            *weights.entry(video(question)).or_default() += 1;
        }
        let mut videos: Vec<(&str, usize)> = weights.into_iter().collect();
        // Greedy: the heaviest video first, each to the lightest shard so far.
        videos.sort_by_key(|&(_, weight)| std::cmp::Reverse(weight));
        let mut loads = vec![0; shards.max(1)];
        let mut assigned = HashMap::new();
        for (video, weight) in videos {
            let lightest = (0..loads.len()).min_by_key(|&i| loads[i]).unwrap_or(0);
            loads[lightest] += weight;
            assigned.insert(video, lightest + 1);
        }
        Self(assigned)
    }

    /// The index of a question's shard, from 1.
    pub(super) fn of(&self, question: &Question) -> usize {
        self.0.get(video(question)).copied().unwrap_or(1)
    }
}

/// The name of a question's video; empty without one.
fn video(question: &Question) -> &str {
    question.video_id.as_deref().or(question.videos.as_deref()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn questions(videos: &[u8]) -> Vec<Question> {
        let question = |(i, video): (usize, &u8)| {
            serde_json::from_value(json!({
                "Question_id": i, "question": "q", "video_id": format!("{video}.mp4")
            }))
            .unwrap()
        };
        videos.iter().enumerate().map(question).collect()
    }

    #[test]
    fn a_shard_is_written_as_index_and_count() {
        assert_eq!("2/8".parse(), Ok(Shard { index: 2, count: 8 }));
        for text in ["0/8", "9/8", "2", "a/b", "1/0", "-1/2", ""] {
            assert!(text.parse::<Shard>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_shard_is_parsed_from_its_folder() {
        let shard = Shard { index: 2, count: 8 };
        assert_eq!(Shard::from_folder(&shard.folder(Path::new("inter"))), Some(shard));
        for name in ["inter", "shard-2", "shard-9-of-8", "shard-2-of-8.old"] {
            assert_eq!(Shard::from_folder(Path::new(name)), None, "{name}");
        }
    }

    #[test]
    fn shards_are_balanced() {
        let questions = questions(&[1, 1, 1, 2, 2, 2, 3, 4, 5, 6]);
        let assignment = ShardAssignment::new(questions.iter(), 2);
        let loads =
            [1, 2].map(|shard| questions.iter().filter(|q| assignment.of(q) == shard).count());
        assert_eq!(loads, [5, 5]);
    }

    proptest! {
        #[test]
        fn every_video_is_whole_and_the_order_of_questions_does_not_matter(
            videos in prop::collection::vec(0u8..9, 1..40),
            shards in 1usize..6,
        ) {
            let forward = questions(&videos);
            let backward = questions(&videos.iter().rev().copied().collect::<Vec<_>>());
            let a = ShardAssignment::new(forward.iter(), shards);
            let b = ShardAssignment::new(backward.iter(), shards);
            for question in &forward {
                prop_assert!((1..=shards).contains(&a.of(question)));
                prop_assert_eq!(a.of(question), b.of(question));
            }
        }
    }
}
