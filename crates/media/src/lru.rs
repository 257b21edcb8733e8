//! Embeddings of images and videos in memory, by their digest.

use std::collections::{BTreeMap, HashMap};

use candle_core::Tensor;
use embodied_r_vision::ImageEmbeddings;

/// The embeddings of an image or a video, with or without its layout.
pub(crate) trait Embeddings: Clone {
    /// The embeddings (tokens, hidden size of the decoder).
    fn tensor(&self) -> &Tensor;
}

impl Embeddings for Tensor {
    fn tensor(&self) -> &Tensor {
        self
    }
}

impl Embeddings for ImageEmbeddings {
    fn tensor(&self) -> &Tensor {
        self.embeddings()
    }
}

/// Embeddings by digest, and the order of their last use. Nothing is evicted before [`Self::evict`].
#[derive(Debug)]
pub(crate) struct EmbeddingLru<T> {
    /// With the time of their last use.
    embeddings: HashMap<u128, (T, u64)>,
    /// Digests by last use.
    order: BTreeMap<u64, u128>,
    clock: u64,
    bytes: usize,
}

impl<T> Default for EmbeddingLru<T> {
    fn default() -> Self {
        Self { embeddings: HashMap::new(), order: BTreeMap::new(), clock: 0, bytes: 0 }
    }
}

impl<T: Embeddings> EmbeddingLru<T> {
    /// Bytes of all embeddings.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether there are embeddings with this digest; this is no use of them.
    pub(crate) fn contains(&self, digest: u128) -> bool {
        self.embeddings.contains_key(&digest)
    }

    /// The embeddings with this digest, which are now the last used.
    pub(crate) fn get(&mut self, digest: u128) -> Option<T> {
        let (embeddings, used) = self.embeddings.get_mut(&digest)?;
        self.order.remove(used);
        self.clock += 1;
        *used = self.clock;
        self.order.insert(self.clock, digest);
        Some(embeddings.clone())
    }

    /// Adds embeddings, which are now the last used.
    pub(crate) fn insert(&mut self, digest: u128, embeddings: T) {
        self.clock += 1;
        self.order.insert(self.clock, digest);
        self.bytes += bytes(&embeddings);
        if let Some((before, used)) = self.embeddings.insert(digest, (embeddings, self.clock)) {
            self.order.remove(&used);
            self.bytes -= bytes(&before);
        }
    }

    /// Drops what was not used for longest until at most `max_bytes` are left, but nothing in `kept`.
    pub(crate) fn evict(&mut self, max_bytes: usize, kept: &[u128]) {
        if self.bytes <= max_bytes {
            return;
        }
        let oldest: Vec<(u64, u128)> = self.order.iter().map(|(used, it)| (*used, *it)).collect();
        for (used, digest) in oldest {
            if self.bytes <= max_bytes {
                return;
            }
            if kept.contains(&digest) {
                continue;
            }
            self.order.remove(&used);
            if let Some((embeddings, _)) = self.embeddings.remove(&digest) {
                self.bytes -= bytes(&embeddings);
            }
        }
    }
}

fn bytes(embeddings: &impl Embeddings) -> usize {
    let tensor = embeddings.tensor();
    tensor.elem_count() * tensor.dtype().size_in_bytes()
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;

    /// A cache of embeddings of 8 bytes each.
    fn cache(digests: &[u128]) -> EmbeddingLru<Tensor> {
        let mut cache = EmbeddingLru::default();
        for digest in digests {
            cache.insert(*digest, Tensor::zeros((1, 2), DType::F32, &Device::Cpu).unwrap());
        }
        cache
    }

    fn left(cache: &EmbeddingLru<Tensor>) -> Vec<u128> {
        (0..10).filter(|digest| cache.contains(*digest)).collect()
    }

    #[test]
    fn what_was_not_used_for_longest_is_evicted_first() {
        let mut cache = cache(&[1, 2, 3]);
        assert!(cache.get(1).is_some() && cache.get(4).is_none());
        cache.evict(16, &[]);
        assert_eq!((left(&cache), cache.bytes()), (vec![1, 3], 16));
    }

    #[test]
    fn what_is_kept_stays_beyond_the_limit() {
        let mut cache = cache(&[1, 2, 3]);
        cache.evict(0, &[2]);
        assert_eq!((left(&cache), cache.bytes()), (vec![2], 8));
    }

    #[test]
    fn embeddings_that_are_inserted_again_count_once() {
        let mut cache = cache(&[1, 2, 1]);
        assert_eq!(cache.bytes(), 16);
        cache.evict(8, &[]);
        assert_eq!(left(&cache), [1]);
    }
}
