//! An LRU cache of the embeddings of images and videos, so that repeated ones are encoded once.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use embodied_r_policy::TensorParallel;
use embodied_r_vision::{
    Frames, ImageEmbeddings, Result, SampledVideo, VisionEncoder, image_digest,
};
use image::RgbImage;

use crate::lock::locked;
use crate::lru::EmbeddingLru;

/// A vision encoder with an LRU cache: an image or a video that occurs in several prompts is encoded once.
///
/// The encoder uses all threads, so concurrent callers encode one after the other.
pub struct EmbeddingCache {
    vision_encoder: Arc<VisionEncoder>,
    max_bytes: usize,
    entries: Mutex<EmbeddingLru<ImageEmbeddings>>,
    /// Held while the encoder runs.
    encoding: Mutex<()>,
    misses: AtomicU64,
    hits: AtomicU64,
}

impl fmt::Debug for EmbeddingCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EmbeddingCache {{ misses: {}, hits: {} }}", self.misses(), self.hits())
    }
}

impl EmbeddingCache {
    /// A cache of up to `max_bytes` of embeddings; the last image or video is always kept.
    #[must_use]
    pub fn new(vision_encoder: Arc<VisionEncoder>, max_bytes: usize) -> Self {
        Self {
            vision_encoder,
            max_bytes,
            entries: Mutex::default(),
            encoding: Mutex::new(()),
            misses: AtomicU64::new(0),
            hits: AtomicU64::new(0),
        }
    }

    /// The vision encoder.
    #[must_use]
    pub fn vision_encoder(&self) -> &VisionEncoder {
        &self.vision_encoder
    }

    /// Images and videos that were encoded.
    pub fn misses(&self) -> u64 {
        self.misses.load(Ordering::Relaxed)
    }

    /// Images and videos whose embeddings were cached.
    pub fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }

    /// The embeddings of images.
    ///
    /// # Errors
    /// As [`VisionEncoder::encode_images`].
    pub fn encode_images(&self, images: &[&RgbImage]) -> Result<Vec<ImageEmbeddings>> {
        images.iter().map(|image| self.encode_image(image)).collect()
    }

    /// [`Self::encode_images`] on ranks that all make the same calls in the same order
    /// ([`VisionEncoder::encode_images_over`]), so that their caches are identical.
    ///
    /// # Errors
    /// As [`VisionEncoder::encode_images_over`].
    pub fn encode_images_over(
        &self,
        images: &[&RgbImage],
        ranks: &TensorParallel,
    ) -> Result<Vec<ImageEmbeddings>> {
        let _encoding = locked(&self.encoding);
        let digests: Vec<u128> = images.iter().map(|image| image_digest(image)).collect();
        let mut found: HashMap<u128, ImageEmbeddings> = HashMap::new();
        let mut new: Vec<(u128, &RgbImage)> = Vec::new();
        for (digest, image) in digests.iter().zip(images) {
            let known = found.contains_key(digest) || new.iter().any(|(new, _)| new == digest);
            match locked(&self.entries).get(*digest) {
                Some(embeddings) => drop(found.insert(*digest, embeddings)),
                None if known => {}
                None => new.push((*digest, image)),
            }
        }
        self.hits.fetch_add((images.len() - new.len()) as u64, Ordering::Relaxed);
        self.misses.fetch_add(new.len() as u64, Ordering::Relaxed);
        let missing: Vec<&RgbImage> = new.iter().map(|(_, image)| *image).collect();
        for embeddings in self.vision_encoder.encode_images_over(&missing, ranks)? {
            found.insert(embeddings.digest(), embeddings.clone());
            self.insert(embeddings);
        }
        Ok(digests.iter().filter_map(|digest| found.get(digest).cloned()).collect())
    }

    /// The embeddings of a video. Videos of the same frames at other times are others.
    ///
    /// # Errors
    /// As [`VisionEncoder::encode_video`].
    pub fn encode_video(&self, video: &SampledVideo) -> Result<ImageEmbeddings> {
        let digest = self.vision_encoder.vision_processor().video_layout(video)?.digest();
        self.cached(digest, || self.vision_encoder.encode_video(video))
    }

    /// The embeddings of an image or a video.
    ///
    /// # Errors
    /// As [`VisionEncoder::encode`].
    pub fn encode(&self, frames: &Frames) -> Result<ImageEmbeddings> {
        match frames {
            Frames::Image(image) => self.encode_image(image),
            Frames::Video(video) => self.encode_video(video),
        }
    }

    fn encode_image(&self, image: &RgbImage) -> Result<ImageEmbeddings> {
        self.cached(image_digest(image), || self.vision_encoder.encode_image(image))
    }

    /// The cached embeddings with this digest, or else those that `encode` gives.
    fn cached(
        &self,
        digest: u128,
        encode: impl FnOnce() -> Result<ImageEmbeddings>,
    ) -> Result<ImageEmbeddings> {
        if let Some(embeddings) = locked(&self.entries).get(digest) {
            self.hits.fetch_add(1, Ordering::Relaxed);
            return Ok(embeddings);
        }
        let _encoding = locked(&self.encoding);
        // Another caller may have encoded it meanwhile.
        if let Some(embeddings) = locked(&self.entries).get(digest) {
            self.hits.fetch_add(1, Ordering::Relaxed);
            return Ok(embeddings);
        }
        let embeddings = encode()?;
        self.misses.fetch_add(1, Ordering::Relaxed);
        self.insert(embeddings.clone());
        Ok(embeddings)
    }

    /// Adds embeddings, and evicts others if these do not fit beside them.
    fn insert(&self, embeddings: ImageEmbeddings) {
        let digest = embeddings.digest();
        let mut entries = locked(&self.entries);
        entries.insert(digest, embeddings);
        entries.evict(self.max_bytes, &[digest]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use embodied_r_policy::WeightFormat;
    use embodied_r_vision::FrameTimes;
    use image::Rgb;
    use std::path::Path;

    fn cache(max_bytes: usize) -> EmbeddingCache {
        let folder =
            Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../vision/tests/fixtures/flat"));
        let vision_encoder = VisionEncoder::load(folder, &WeightFormat::F32.into()).unwrap();
        EmbeddingCache::new(Arc::new(vision_encoder), max_bytes)
    }

    fn image(level: u8) -> RgbImage {
        RgbImage::from_fn(56, 56, |x, y| Rgb([level, x as u8, y as u8]))
    }

    fn video(frames: &[RgbImage], fps: f64) -> SampledVideo {
        let times = FrameTimes::at_rate(frames.len(), fps);
        SampledVideo { frames: frames.to_vec(), times }
    }

    /// The embeddings of such an image: 4 tokens of hidden size 32.
    const BYTES: usize = 4 * 32 * 4;

    #[test]
    fn an_image_is_encoded_once_with_the_same_result() {
        let cache = cache(1 << 20);
        let (a, b) = (image(1), image(2));
        let found = cache.encode_images(&[&a, &b, &a]).unwrap();
        assert_eq!((cache.misses(), cache.hits()), (2, 1));
        let values = |found: &ImageEmbeddings| found.embeddings().to_vec2::<f32>().unwrap();
        assert_eq!(values(&found[0]), values(&found[2]));
        assert_ne!(values(&found[0]), values(&found[1]));
        let uncached = cache.vision_encoder().encode_images(&[&a]).unwrap();
        assert_eq!(values(&found[0]), values(&uncached[0]));
    }

    #[test]
    fn a_video_is_encoded_once_unless_its_frames_or_times_differ() {
        let cache = cache(1 << 20);
        let frames = [image(1), image(2), image(3)];
        let values = |found: &ImageEmbeddings| found.embeddings().to_vec2::<f32>().unwrap();
        let first = cache.encode_video(&video(&frames, 2.0)).unwrap();
        let again = cache.encode_video(&video(&frames, 2.0)).unwrap();
        assert_eq!((cache.misses(), cache.hits()), (1, 1));
        assert_eq!((values(&again), again.digest()), (values(&first), first.digest()));
        let slower = cache.encode_video(&video(&frames, 1.0)).unwrap();
        let shorter = cache.encode_video(&video(&frames[..2], 2.0)).unwrap();
        let reversed = [image(2), image(1), image(3)];
        let reversed = cache.encode_video(&video(&reversed, 2.0)).unwrap();
        assert_eq!((cache.misses(), cache.hits()), (4, 1));
        // A video of one frame is no image.
        let one = cache.encode_video(&video(&frames[..1], 2.0)).unwrap();
        let still = cache.encode_images(&[&frames[0]]).unwrap().remove(0);
        assert_eq!((cache.misses(), cache.hits()), (6, 1));
        let all = [first, slower, shorter, reversed, one, still];
        let digests: std::collections::HashSet<u128> =
            all.iter().map(ImageEmbeddings::digest).collect();
        assert_eq!(digests.len(), all.len());
    }

    #[test]
    fn the_least_recently_used_image_is_evicted_first() {
        let cache = cache(2 * BYTES);
        let [a, b, c] = [1, 2, 3].map(image);
        let encode = |image| cache.encode_images(&[image]).unwrap();
        encode(&a);
        encode(&b);
        encode(&a);
        encode(&c);
        encode(&a);
        assert_eq!((cache.misses(), cache.hits()), (3, 2));
        encode(&b);
        assert_eq!(cache.misses(), 4);
        assert_eq!(locked(&cache.entries).bytes(), 2 * BYTES);
    }

    #[test]
    fn the_last_image_is_cached_whatever_the_capacity() {
        let cache = cache(0);
        let (a, b) = (image(1), image(2));
        cache.encode_images(&[&a, &a, &b, &a]).unwrap();
        assert_eq!((cache.misses(), cache.hits()), (3, 1));
    }
}
