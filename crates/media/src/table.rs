//! Every image and video of a run's data, by a digest of its pixels.

use std::ops::Range;
use std::sync::Arc;

use embodied_r_dist::ProcessGroup;
use embodied_r_vision::{Grid, ImageLayout, Pixels, VisionProcessor};
use indexmap::IndexMap;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::kept_frames::KeptFrames;
use crate::source::{ImageSource, ReadError};

/// The layout of a source, or what is wrong with it.
type ReadLayout = std::result::Result<ImageLayout, ReadError>;

/// What a rank says of the sources of all ranks.
#[derive(Serialize, Deserialize)]
struct RankReads {
    /// The number of sources.
    count: usize,
    /// Of its share.
    layouts: Vec<std::result::Result<ImageLayout, String>>,
    /// Of the others: the indices of those that it does not find, and why.
    missing: Vec<(usize, String)>,
}

/// The share of `count` sources that this rank decodes in [`ImageTable::add_shared`]. They are consecutive, as the frames
/// of a video are decoded together.
#[must_use]
pub fn share(count: usize, process_group: &ProcessGroup) -> Range<usize> {
    let start = |rank: usize| count * rank / process_group.world_size();
    start(process_group.rank())..start(process_group.rank() + 1)
}

/// An image or a video of the data.
#[derive(Debug, Clone)]
struct Entry {
    layout: ImageLayout,
    source: Arc<dyn ImageSource>,
}

/// The images and videos of a run's data.
#[derive(Debug)]
pub struct ImageTable {
    processor: VisionProcessor,
    entries: IndexMap<u128, Entry>,
    kept: KeptFrames,
}

impl ImageTable {
    /// A table without images, for a model with this processor.
    #[must_use]
    pub fn new(processor: VisionProcessor) -> Self {
        Self { processor, entries: IndexMap::new(), kept: KeptFrames::default() }
    }

    /// Keeps up to `bytes` of the frames that [`Self::add_all`] decodes until [`Self::pixels`] asks for them the first
    /// time. The others are decoded again.
    #[must_use]
    pub fn keep_frames(self, bytes: usize) -> Self {
        Self { kept: KeptFrames::new(bytes), ..self }
    }

    /// The model's processor.
    #[must_use]
    pub fn processor(&self) -> &VisionProcessor {
        &self.processor
    }

    /// Number of distinct images and videos.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Decodes all sources, on all cores, and adds what is new; returns the layout of each or what is wrong with it.
    /// Pixels are dropped as soon as they are known by their digest, but for those that are kept. `on_read` is called
    /// after each.
    pub fn add_all(
        &mut self,
        sources: &[Arc<dyn ImageSource>],
        on_read: &(dyn Fn() + Sync),
    ) -> Vec<ReadLayout> {
        let layouts = self.read_all(sources, on_read);
        self.insert_all(sources, &layouts);
        layouts
    }

    /// As [`Self::add_all`], for the same sources on all ranks: each rank decodes its [`share`] of them, and all
    /// learn the layouts. A source that a rank does not find is wrong for all.
    ///
    /// # Errors
    /// A rank is lost, or has another number of sources.
    pub fn add_shared(
        &mut self,
        sources: &[Arc<dyn ImageSource>],
        process_group: &ProcessGroup,
        on_read: &(dyn Fn() + Sync),
    ) -> Result<Vec<ReadLayout>> {
        if process_group.world_size() == 1 {
            return Ok(self.add_all(sources, on_read));
        }
        let own = share(sources.len(), process_group);
        let layouts = self.read_all(&sources[own.clone()], on_read).into_iter();
        let layouts = layouts.map(|layout| layout.map_err(|error| error.to_string())).collect();
        let others = sources.par_iter().enumerate().filter(|(index, _)| !own.contains(index));
        let missing = others.filter_map(|(index, source)| Some((index, source.find().err()?)));
        let missing = missing.map(|(index, error)| (index, error.to_string())).collect();
        let count = sources.len();
        let ranks = process_group.all_gather(RankReads { count, layouts, missing })?;
        let mut all = Vec::with_capacity(sources.len());
        let mut missing = Vec::new();
        for (rank, of_rank) in ranks.into_iter().enumerate() {
            if of_rank.count != sources.len() {
                let (count, own) = (of_rank.count, sources.len());
                let what = format!(
                    "its data has {count} images and videos, that of rank {} has {own}",
                    process_group.rank()
                );
                return Err(Error::RankFailed { rank, what });
            }
            all.extend(of_rank.layouts.into_iter().map(|layout| layout.map_err(ReadError::from)));
            missing.extend(of_rank.missing.into_iter().map(|(index, why)| (rank, index, why)));
        }
        for (rank, index, why) in missing {
            // A source that is wrong everywhere keeps what its own rank says.
            if let Some(layout @ Ok(_)) = all.get_mut(index) {
                *layout = Err(format!("{why} (on rank {rank})").into());
            }
        }
        self.insert_all(sources, &all);
        Ok(all)
    }

    fn read_all(
        &self,
        sources: &[Arc<dyn ImageSource>],
        on_read: &(dyn Fn() + Sync),
    ) -> Vec<ReadLayout> {
        let read = |source: &Arc<dyn ImageSource>| {
            let layout = source.read().and_then(|frames| {
                let layout = self.processor.layout(&frames)?;
                self.kept.insert(layout.digest(), frames, self.processor.processor());
                Ok(layout)
            });
            on_read();
            layout
        };
        sources.par_iter().map(read).collect()
    }

    /// Adds the sources that have a layout and are new.
    fn insert_all(&mut self, sources: &[Arc<dyn ImageSource>], layouts: &[ReadLayout]) {
        for (layout, source) in layouts.iter().zip(sources) {
            let Ok(layout) = layout else { continue };
            let entry = || Entry { layout: layout.clone(), source: source.clone() };
            self.entries.entry(layout.digest()).or_insert_with(entry);
        }
    }

    /// The digests of all images and videos.
    pub fn digests(&self) -> impl Iterator<Item = u128> {
        self.entries.keys().copied()
    }

    /// The patch grids of all images and videos.
    pub fn grids(&self) -> impl Iterator<Item = Grid> {
        self.entries.values().map(|entry| entry.layout.grid())
    }

    /// The layout of an image.
    ///
    /// # Errors
    /// The table does not have it.
    pub fn layout_of(&self, digest: u128) -> Result<ImageLayout> {
        Ok(self.entry(digest)?.layout.clone())
    }

    /// Where an image or a video comes from.
    #[must_use]
    pub fn source(&self, digest: u128) -> Option<&Arc<dyn ImageSource>> {
        self.entries.get(&digest).map(|entry| &entry.source)
    }

    /// Cuts an image into patches, which is decoded again unless its frames were kept.
    ///
    /// # Errors
    /// The table does not have it, or the file is not the one that was added.
    pub fn pixels(&self, digest: u128) -> Result<Pixels> {
        let Entry { source, layout } = self.entry(digest)?;
        if let Some(frames) = self.kept.take(digest) {
            return Ok(self.processor.pixels(&frames)?);
        }
        let changed =
            |reason: String| Error::ChangedImage { path: source.paths().join(", "), reason };
        let frames = source.read().map_err(|error| changed(error.to_string()))?;
        if self.processor.layout(&frames)? != *layout {
            return Err(changed("it has other pixels than at the start of the run".into()));
        }
        Ok(self.processor.pixels(&frames)?)
    }

    fn entry(&self, digest: u128) -> Result<&Entry> {
        self.entries.get(&digest).ok_or(Error::UnknownImage { digest })
    }
}
