//! Pictures that were seen lately, so that none is looked at twice.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use embodied_r_policy::TensorParallel;
use image::RgbImage;

use crate::error::Result;
use crate::model::Eyes;
use crate::seen::{Seen, image_digest};

/// Eyes that remember: a picture that stands in several prompts costs the tower's work once.
///
/// The tower takes all threads, so one caller's pictures are looked at after the other's.
pub struct Gallery {
    eyes: Arc<Eyes>,
    remembered: Mutex<Remembered>,
    /// Held while the tower works.
    looking: Mutex<()>,
    looked: AtomicU64,
    reused: AtomicU64,
}

impl fmt::Debug for Gallery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gallery {{ looked: {}, reused: {} }}", self.looked(), self.reused())
    }
}

/// What is remembered, and for how long it has not been asked for.
struct Remembered {
    seen: HashMap<u128, (Seen, u64)>,
    /// Digests by when they were last asked for.
    order: BTreeMap<u64, u128>,
    clock: u64,
    bytes: usize,
    most_bytes: usize,
}

impl Gallery {
    /// Eyes that remember up to `most_bytes` of what they saw; the picture seen last always.
    #[must_use]
    pub fn new(eyes: Arc<Eyes>, most_bytes: usize) -> Self {
        let remembered = Remembered {
            seen: HashMap::new(),
            order: BTreeMap::new(),
            clock: 0,
            bytes: 0,
            most_bytes,
        };
        Self {
            eyes,
            remembered: Mutex::new(remembered),
            looking: Mutex::new(()),
            looked: AtomicU64::new(0),
            reused: AtomicU64::new(0),
        }
    }

    /// The eyes.
    #[must_use]
    pub fn eyes(&self) -> &Eyes {
        &self.eyes
    }

    /// Pictures that the tower has worked on.
    pub fn looked(&self) -> u64 {
        self.looked.load(Ordering::Relaxed)
    }

    /// Pictures that were remembered when they were asked for.
    pub fn reused(&self) -> u64 {
        self.reused.load(Ordering::Relaxed)
    }

    /// What the pictures are to the decoder.
    ///
    /// # Errors
    /// As [`Eyes::images`].
    pub fn images(&self, pictures: &[&RgbImage]) -> Result<Vec<Seen>> {
        pictures.iter().map(|picture| self.image(picture)).collect()
    }

    /// As [`Self::images`], on ranks that all ask for the same in the same order ([`Eyes::images_over`]): they remember
    /// the same.
    ///
    /// # Errors
    /// As [`Eyes::images_over`].
    pub fn images_over(&self, pictures: &[&RgbImage], ranks: &TensorParallel) -> Result<Vec<Seen>> {
        let _looking = self.looking.lock().unwrap_or_else(PoisonError::into_inner);
        let digests: Vec<u128> = pictures.iter().map(|picture| image_digest(picture)).collect();
        let mut found: HashMap<u128, Seen> = HashMap::new();
        let mut new: Vec<(u128, &RgbImage)> = Vec::new();
        for (digest, picture) in digests.iter().zip(pictures) {
            let known = found.contains_key(digest) || new.iter().any(|(new, _)| new == digest);
            match self.remembered().recall(*digest) {
                Some(seen) => drop(found.insert(*digest, seen)),
                None if known => {}
                None => new.push((*digest, picture)),
            }
        }
        self.reused.fetch_add((pictures.len() - new.len()) as u64, Ordering::Relaxed);
        self.looked.fetch_add(new.len() as u64, Ordering::Relaxed);
        let looked: Vec<&RgbImage> = new.iter().map(|(_, picture)| *picture).collect();
        for seen in self.eyes.images_over(&looked, ranks)? {
            found.insert(seen.digest, seen.clone());
            self.remembered().remember(seen.digest, seen);
        }
        Ok(digests.iter().filter_map(|digest| found.get(digest).cloned()).collect())
    }

    fn image(&self, picture: &RgbImage) -> Result<Seen> {
        let digest = image_digest(picture);
        if let Some(seen) = self.remembered().recall(digest) {
            self.reused.fetch_add(1, Ordering::Relaxed);
            return Ok(seen);
        }
        let _looking = self.looking.lock().unwrap_or_else(PoisonError::into_inner);
        // Another caller may have looked at it meanwhile.
        if let Some(seen) = self.remembered().recall(digest) {
            self.reused.fetch_add(1, Ordering::Relaxed);
            return Ok(seen);
        }
        let seen = self.eyes.image(picture)?;
        self.looked.fetch_add(1, Ordering::Relaxed);
        self.remembered().remember(digest, seen.clone());
        Ok(seen)
    }

    fn remembered(&self) -> MutexGuard<'_, Remembered> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Remembered {
    fn recall(&mut self, digest: u128) -> Option<Seen> {
        let clock = self.tick();
        let (seen, asked) = self.seen.get_mut(&digest)?;
        self.order.remove(asked);
        *asked = clock;
        self.order.insert(clock, digest);
        Some(seen.clone())
    }

    fn remember(&mut self, digest: u128, seen: Seen) {
        let clock = self.tick();
        self.bytes += seen.bytes();
        self.seen.insert(digest, (seen, clock));
        self.order.insert(clock, digest);
        while self.bytes > self.most_bytes && self.seen.len() > 1 {
            let Some((_, digest)) = self.order.pop_first() else { return };
            if let Some((seen, _)) = self.seen.remove(&digest) {
                self.bytes -= seen.bytes();
            }
        }
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use embodied_r_policy::WeightFormat;
    use image::Rgb;
    use std::path::Path;

    fn gallery(most_bytes: usize) -> Gallery {
        let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/flat"));
        Gallery::new(Arc::new(Eyes::load(folder, &WeightFormat::F32.into()).unwrap()), most_bytes)
    }

    fn picture(level: u8) -> RgbImage {
        RgbImage::from_fn(56, 56, |x, y| Rgb([level, x as u8, y as u8]))
    }

    /// What a picture of this size takes: 4 tokens of 32 numbers.
    const BYTES: usize = 4 * 32 * 4;

    #[test]
    fn a_picture_is_looked_at_once_and_stays_the_same() {
        let gallery = gallery(1 << 20);
        let (a, b) = (picture(1), picture(2));
        let seen = gallery.images(&[&a, &b, &a]).unwrap();
        assert_eq!((gallery.looked(), gallery.reused()), (2, 1));
        let numbers = |seen: &Seen| seen.embeddings().to_vec2::<f32>().unwrap();
        assert_eq!(numbers(&seen[0]), numbers(&seen[2]));
        assert_ne!(numbers(&seen[0]), numbers(&seen[1]));
        assert_eq!(numbers(&seen[0]), numbers(&gallery.eyes().images(&[&a]).unwrap()[0]));
    }

    #[test]
    fn what_was_not_asked_for_longest_is_forgotten_first() {
        let gallery = gallery(2 * BYTES);
        let [a, b, c] = [1, 2, 3].map(picture);
        let look = |picture| gallery.images(&[picture]).unwrap();
        look(&a);
        look(&b);
        look(&a);
        look(&c);
        look(&a);
        assert_eq!((gallery.looked(), gallery.reused()), (3, 2));
        look(&b);
        assert_eq!(gallery.looked(), 4);
        assert_eq!(gallery.remembered().bytes, 2 * BYTES);
    }

    #[test]
    fn the_last_picture_is_remembered_however_little_room_there_is() {
        let gallery = gallery(0);
        let (a, b) = (picture(1), picture(2));
        gallery.images(&[&a, &a, &b, &a]).unwrap();
        assert_eq!((gallery.looked(), gallery.reused()), (3, 1));
    }
}
