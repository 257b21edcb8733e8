//! The embeddings of a run's images under a frozen tower.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use candle_core::Device;
use embodied_r_data::multimodal::MediaFile;
use embodied_r_media::disk_cache::DiskCache;
use embodied_r_media::files::{FrameFiles, ImageFile};
use embodied_r_media::source::{ImageSource, ReadError};
use embodied_r_media::store::{ImageCounts, ImageStore, StoreOptions};
use embodied_r_media::table::ImageTable;
use embodied_r_policy::{ImageEmbedder as _, Prompt, WeightFormat};
use embodied_r_vision::{Frames, VisionProcessor};
use image::{Rgb, RgbImage};

use crate::folder;
use crate::test_image::test_image;

/// The placeholder of a video.
const VIDEO: u32 = 262;

/// Images and a video in files, and the prompts about them.
struct Files {
    dir: tempfile::TempDir,
    /// Of each image of the prompts.
    images: [PathBuf; 3],
}

impl Files {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let images = [((56, 84), 1), ((84, 56), 2), ((56, 56), 3)].map(|(size, seed)| {
            let path = dir.path().join(format!("{seed}.png"));
            test_image(size, seed).save(&path).unwrap();
            path
        });
        Self { dir, images }
    }

    /// The frames of the video, of which the first is the last image.
    fn video(&self) -> FrameFiles {
        let last = self.dir.path().join("4.png");
        test_image((56, 56), 4).save(&last).unwrap();
        FrameFiles {
            frames: vec![MediaFile::Path(self.images[2].clone()), MediaFile::Path(last)],
            fps: 2.0,
        }
    }
}

/// A store for the images of `files`, and its prompts: of one image, of two with the first again, of an image and a
/// video, and of text.
fn store(files: &Files, memory_bytes: usize, disk: Option<DiskCache>) -> (ImageStore, Vec<Prompt>) {
    let processor = VisionProcessor::of_model(&folder()).unwrap();
    let mut table = ImageTable::new(processor.clone());
    let mut sources: Vec<Arc<dyn ImageSource>> = Vec::new();
    for image in &files.images {
        sources.push(Arc::new(ImageFile(MediaFile::Path(image.clone()))));
    }
    sources.push(Arc::new(files.video()));
    let layouts = table.add_all(&sources, &|| ());
    let layouts: Vec<_> = layouts.into_iter().map(Result::unwrap).collect();
    assert_eq!(table.len(), 4);
    let image = processor.image_token_id();
    let prompts = [
        (vec![1, image, 2], &layouts[..1]),
        (vec![image, 1, image], &layouts[..2]),
        (vec![image, 1, VIDEO], &layouts[2..]),
        (vec![1, 2, 3], &[]),
    ];
    let prompts = prompts.map(|(ids, layouts)| processor.prompt(&ids, layouts).unwrap());
    let options = StoreOptions {
        model: folder(),
        format: WeightFormat::F32,
        device: Device::Cpu,
        memory_bytes,
        disk,
    };
    (ImageStore::new(Arc::new(table), options), prompts.into())
}

fn counts(encoded: u64, from_disk: u64, from_memory: u64) -> ImageCounts {
    ImageCounts { encoded, from_disk, from_memory }
}

/// The embeddings of all images of a prompt.
fn values(store: &ImageStore, prompt: &Prompt) -> Vec<Vec<f32>> {
    let of = |digest| store.embeddings(digest).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    prompt.images().iter().map(|image| of(image.digest)).collect()
}

#[test]
fn an_image_is_encoded_once_and_the_tower_then_leaves_memory() {
    let files = Files::new();
    let (store, prompts) = store(&files, usize::MAX, None);
    assert!(!store.has_tower());
    store.prepare(&prompts[..1]).unwrap();
    assert_eq!(store.counts(), counts(1, 0, 0));
    assert!(store.has_tower());
    store.prepare(&prompts).unwrap();
    assert_eq!(store.counts(), counts(4, 0, 1));
    assert!(!store.has_tower());
    store.prepare(&prompts[1..]).unwrap();
    assert_eq!(store.counts(), counts(4, 0, 5));
}

#[test]
fn what_does_not_fit_into_memory_is_read_from_disk_with_the_same_bits() {
    let files = Files::new();
    let disk = tempfile::tempdir().unwrap();
    let cache = || Some(DiskCache::open(disk.path(), "tower").unwrap());
    let (kept, prompts) = store(&files, usize::MAX, None);
    let (store, _) = store(&files, 0, cache());
    store.prepare(&prompts).unwrap();
    assert!(!store.has_tower());
    // The images of the last step stay until the next one.
    store.prepare(&prompts[..1]).unwrap();
    assert_eq!(store.counts(), counts(4, 0, 1));
    store.prepare(&prompts[1..2]).unwrap();
    assert_eq!(store.counts(), counts(4, 1, 2));
    for prompt in &prompts {
        assert_eq!(values(&store, prompt), values(&kept, prompt));
    }
    // Another process goes on with the files, and never reads the tower.
    let (again, _) = self::store(&files, 0, cache());
    again.prepare(&prompts).unwrap();
    assert_eq!((again.counts(), again.has_tower()), (counts(0, 4, 0), false));
}

#[test]
fn a_damaged_file_of_the_cache_is_encoded_again() {
    let files = Files::new();
    let disk = tempfile::tempdir().unwrap();
    let (store, prompts) = store(&files, 0, Some(DiskCache::open(disk.path(), "t").unwrap()));
    store.prepare(&prompts[..1]).unwrap();
    let before = values(&store, &prompts[0]);
    let folder = std::fs::read_dir(disk.path()).unwrap().next().unwrap().unwrap().path();
    let file = std::fs::read_dir(&folder).unwrap().next().unwrap().unwrap().path();
    std::fs::write(&file, b"damaged").unwrap();
    let cache = Some(DiskCache::open(disk.path(), "t").unwrap());
    let (again, prompts) = self::store(&files, 0, cache);
    again.prepare(&prompts[..1]).unwrap();
    assert_eq!(again.counts(), counts(1, 0, 0));
    assert_eq!(values(&again, &prompts[0]), before);
}

#[test]
fn decoding_ahead_changes_nothing() {
    let files = Files::new();
    let (ahead, prompts) = store(&files, usize::MAX, None);
    let (store, _) = store(&files, usize::MAX, None);
    // More than the next step needs, and less than the one after it.
    ahead.prefetch(&prompts[..2]);
    ahead.prepare(&prompts[..1]).unwrap();
    ahead.prefetch(&prompts[..2]);
    ahead.prepare(&prompts).unwrap();
    assert_eq!(ahead.counts(), counts(4, 0, 1));
    store.prepare(&prompts).unwrap();
    for prompt in &prompts {
        assert_eq!(values(&ahead, prompt), values(&store, prompt));
    }
}

#[test]
fn a_file_that_changes_or_vanishes_during_the_run_is_named() {
    let files = Files::new();
    let (store, prompts) = store(&files, usize::MAX, None);
    let [path, other, _] = &files.images;
    std::fs::copy(other, path).unwrap();
    let message = |prompts: &[Prompt]| store.prepare(prompts).unwrap_err().to_string();
    let changed = message(&prompts[..1]);
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    assert!(changed.contains(&name(path)) && changed.contains("other pixels"), "{changed}");
    std::fs::remove_file(path).unwrap();
    assert!(message(&prompts[..1]).contains(&name(path)));
    // Other images can be used.
    store.prepare(&prompts[3..]).unwrap();
}

/// An image of 56 × 56 pixels, 9,408 bytes, that counts how often it is decoded.
#[derive(Debug, Default)]
struct Counted {
    level: u8,
    reads: AtomicUsize,
}

impl Counted {
    fn reads(&self) -> usize {
        self.reads.load(Ordering::SeqCst)
    }
}

impl ImageSource for Counted {
    fn read(&self) -> Result<Frames, ReadError> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        Ok(Frames::Image(RgbImage::from_pixel(56, 56, Rgb([self.level; 3]))))
    }

    fn paths(&self) -> Vec<String> {
        Vec::new()
    }
}

/// A store with two images, of which it keeps `bytes` of decoded frames, and a prompt about each.
fn counted(bytes: usize) -> (ImageStore, Vec<Prompt>, [Arc<Counted>; 2]) {
    let processor = VisionProcessor::of_model(&folder()).unwrap();
    let placeholder = processor.image_token_id();
    let mut table = ImageTable::new(processor).keep_frames(bytes);
    let images = [10, 200].map(|level| Arc::new(Counted { level, ..Counted::default() }));
    let sources = images.each_ref().map(|image| image.clone() as Arc<dyn ImageSource>);
    let layouts = table.add_all(&sources, &|| ());
    let prompt = |layout: Result<_, ReadError>| {
        table.processor().prompt(&[1, placeholder, 2], &[layout.unwrap()]).unwrap()
    };
    let prompts = layouts.into_iter().map(prompt).collect();
    let options = StoreOptions {
        model: folder(),
        format: WeightFormat::F32,
        device: Device::Cpu,
        memory_bytes: usize::MAX,
        disk: None,
    };
    (ImageStore::new(Arc::new(table), options), prompts, images)
}

#[test]
fn frames_are_kept_until_they_are_encoded_as_far_as_there_is_room() {
    let of = |bytes| {
        let (store, prompts, images) = counted(bytes);
        store.prepare(&prompts).unwrap();
        let values: Vec<_> = prompts.iter().map(|prompt| values(&store, prompt)).collect();
        (images.iter().map(|image| image.reads()).sum::<usize>(), values)
    };
    let (never, expected) = of(0);
    assert_eq!(never, 4);
    for (bytes, reads) in [(9_407, 4), (9_408, 3), (18_815, 3), (18_816, 2)] {
        assert_eq!(of(bytes), (reads, expected.clone()), "{bytes}");
    }
}

#[test]
fn the_images_of_the_next_prompt_are_decoded_before_it_comes() {
    let (store, prompts, [_, next]) = counted(0);
    store.prepare_before(&prompts[..1], &prompts[1..]).unwrap();
    let deadline = Instant::now() + Duration::from_secs(120);
    while next.reads() < 2 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(next.reads(), 2);
    store.prepare_before(&prompts[1..], []).unwrap();
    assert_eq!((next.reads(), store.counts()), (2, counts(2, 0, 0)));
}
