//! The embeddings of a run's images under a frozen vision tower: each image is encoded once per run.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use candle_core::{Device, Tensor};
use embodied_r_policy::{ImageEmbedder, Prompt, WeightFormat, WeightPlacement};
use embodied_r_vision::{PixelOptions, Pixels, TrainableTower, VisionEncoder, VisionOptions};

use crate::digests;
use crate::disk_cache::DiskCache;
use crate::error::{Error, Result};
use crate::lock::locked;
use crate::lru::EmbeddingLru;
use crate::prefetch::Prefetch;
use crate::table::ImageTable;

/// Where images are encoded and their embeddings kept.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// The model's folder, whose vision tower is read when an image is first encoded.
    pub model: PathBuf,
    /// Format of the tower's weights.
    pub format: WeightFormat,
    /// The device of the tower.
    pub device: Device,
    /// Bytes of embeddings in memory; those of the current step are kept beyond it.
    pub memory_bytes: usize,
    /// Embeddings on disk.
    pub disk: Option<DiskCache>,
}

/// The embeddings of a run's images, encoded on first use by a frozen vision tower, which leaves memory when all images
/// of the data are encoded, unless it was given.
pub struct ImageStore {
    table: Arc<ImageTable>,
    options: StoreOptions,
    /// The tower of a copy of a model, in place of that in the model's folder.
    own_tower: Option<TrainableTower>,
    tower: Mutex<Option<VisionEncoder>>,
    memory: Mutex<EmbeddingLru<Tensor>>,
    prefetch: Prefetch,
    counts: Mutex<ImageCounts>,
}

/// How images got their embeddings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ImageCounts {
    /// Encoded by the tower.
    pub encoded: u64,
    /// Read from disk.
    pub from_disk: u64,
    /// Found in memory.
    pub from_memory: u64,
}

impl std::fmt::Debug for ImageStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ImageStore {{ {} images, {:?} }}", self.table.len(), self.counts())
    }
}

impl ImageStore {
    /// A store for the images of `table`.
    #[must_use]
    pub fn new(table: Arc<ImageTable>, options: StoreOptions) -> Self {
        Self {
            table,
            own_tower: None,
            tower: Mutex::default(),
            memory: Mutex::default(),
            prefetch: Prefetch::new(&options.device),
            counts: Mutex::default(),
            options,
        }
    }

    /// A store with the same images for another tower. Its embeddings are kept in memory, as far as this store's may be.
    #[must_use]
    pub fn with_tower(&self, tower: TrainableTower) -> Self {
        let options = StoreOptions { disk: None, ..self.options.clone() };
        Self { own_tower: Some(tower), ..Self::new(self.table.clone(), options) }
    }

    /// The tower that it was given.
    #[must_use]
    pub fn own_tower(&self) -> Option<&TrainableTower> {
        self.own_tower.as_ref()
    }

    /// The model's folder.
    #[must_use]
    pub fn model(&self) -> &Path {
        &self.options.model
    }

    /// Forgets what was encoded by the tower's weights so far.
    pub fn weights_changed(&self) {
        *locked(&self.tower) = None;
        *locked(&self.memory) = EmbeddingLru::default();
    }

    /// The images.
    #[must_use]
    pub fn table(&self) -> &Arc<ImageTable> {
        &self.table
    }

    /// How images got their embeddings so far.
    #[must_use]
    pub fn counts(&self) -> ImageCounts {
        *locked(&self.counts)
    }

    /// Whether the tower is in memory.
    #[must_use]
    pub fn has_tower(&self) -> bool {
        locked(&self.tower).is_some()
    }

    /// Gets the embeddings of all images of `prompts`, so that passes over them find these in memory. Images that have
    /// none are encoded together.
    ///
    /// # Errors
    /// An image file has changed, the tower cannot be read, or the disk is full.
    pub fn prepare<'a>(&self, prompts: impl IntoIterator<Item = &'a Prompt>) -> Result<()> {
        self.prepare_before(prompts, [])
    }

    /// As [`Self::prepare`]; as soon as the images of `prompts` are cut into patches, those of `coming` are, as by
    /// [`Self::prefetch`].
    ///
    /// # Errors
    /// As [`Self::prepare`].
    pub fn prepare_before<'a>(
        &self,
        prompts: impl IntoIterator<Item = &'a Prompt>,
        coming: impl IntoIterator<Item = &'a Prompt>,
    ) -> Result<()> {
        let wanted = digests::of_prompts(prompts);
        let (mut missing, mut counts) = (Vec::new(), ImageCounts::default());
        for digest in &wanted {
            if locked(&self.memory).get(*digest).is_some() {
                counts.from_memory += 1;
            } else if let Some(embeddings) =
                self.options.disk.as_ref().and_then(|it| it.read(*digest))
            {
                counts.from_disk += 1;
                locked(&self.memory).insert(*digest, embeddings);
            } else {
                missing.push(*digest);
            }
        }
        counts.encoded = missing.len() as u64;
        let pixels = self.cut(&missing)?;
        // Those that are encoded next are not prefetched.
        let mut next = digests::of_prompts(coming);
        next.retain(|digest| !missing.contains(digest) && !self.has_embeddings(*digest));
        self.prefetch.start(&self.table, next);
        self.encode(&missing, &pixels)?;
        locked(&self.memory).evict(self.options.memory_bytes, &wanted);
        let mut all = locked(&self.counts);
        all.encoded += counts.encoded;
        all.from_disk += counts.from_disk;
        all.from_memory += counts.from_memory;
        Ok(())
    }

    /// Cuts the images of `prompts` that have no embeddings yet into patches, on threads of their own, for the next
    /// [`Self::prepare`]. A file that cannot be read is an error there.
    pub fn prefetch<'a>(&self, prompts: impl IntoIterator<Item = &'a Prompt>) {
        let mut missing = digests::of_prompts(prompts);
        missing.retain(|digest| !self.has_embeddings(*digest));
        self.prefetch.start(&self.table, missing);
    }

    fn has_embeddings(&self, digest: u128) -> bool {
        locked(&self.memory).contains(digest)
            || self.options.disk.as_ref().is_some_and(|disk| disk.contains(digest))
    }

    /// The patches of images.
    fn cut(&self, missing: &[u128]) -> Result<Vec<Pixels>> {
        match missing {
            [] => Ok(Vec::new()),
            missing => self.prefetch.take(&self.table, missing),
        }
    }

    /// Encodes images and keeps their embeddings.
    fn encode(&self, missing: &[u128], pixels: &[Pixels]) -> Result<()> {
        if missing.is_empty() {
            return Ok(());
        }
        let mut tower = locked(&self.tower);
        let encoder = match tower.take() {
            Some(encoder) => encoder,
            None => self.load()?,
        };
        let pixels: Vec<&Pixels> = pixels.iter().collect();
        let embeddings = tower.insert(encoder).encode_pixels(&pixels)?;
        for (digest, embeddings) in missing.iter().zip(embeddings) {
            if let Some(disk) = &self.options.disk {
                disk.write(*digest, &embeddings)?;
            }
            locked(&self.memory).insert(*digest, embeddings);
        }
        if self.all_are_kept() {
            *tower = None;
        }
        Ok(())
    }

    fn load(&self) -> Result<VisionEncoder> {
        if let Some(tower) = &self.own_tower {
            return Ok(tower.encoder()?);
        }
        let StoreOptions { model, format, device, .. } = &self.options;
        let placement = WeightPlacement { format: *format, device: device.clone() };
        // Images are cut by the processor of the table.
        Ok(VisionEncoder::load(
            model,
            &VisionOptions { placement, pixels: PixelOptions::default() },
        )?)
    }

    /// Whether no image has to be encoded any more.
    fn all_are_kept(&self) -> bool {
        let memory = locked(&self.memory);
        let on_disk = |digest| self.options.disk.as_ref().is_some_and(|disk| disk.contains(digest));
        let fits = memory.bytes() <= self.options.memory_bytes;
        self.table.digests().all(|digest| on_disk(digest) || (fits && memory.contains(digest)))
    }
}

impl ImageEmbedder for ImageStore {
    fn levels(&self) -> usize {
        self.table.processor().config().feature_levels()
    }

    fn embeddings(&self, digest: u128) -> embodied_r_policy::Result<Tensor> {
        if let Some(embeddings) = locked(&self.memory).get(digest) {
            return Ok(embeddings);
        }
        let failed = |error: Error| embodied_r_policy::Error::Image { source: Box::new(error) };
        if let Some(embeddings) = self.options.disk.as_ref().and_then(|disk| disk.read(digest)) {
            locked(&self.memory).insert(digest, embeddings.clone());
            return Ok(embeddings);
        }
        let encoded = self.cut(&[digest]).and_then(|pixels| self.encode(&[digest], &pixels));
        encoded.map_err(failed)?;
        let found = locked(&self.memory).get(digest);
        found.ok_or_else(|| failed(Error::UnknownImage { digest }))
    }
}
