//! The embeddings of a run's images under a frozen tower.

use std::path::Path;
use std::sync::Arc;

use candle_core::Device;
use embodied_r_grpo::images::disk_cache::DiskCache;
use embodied_r_grpo::images::store::{ImageCounts, ImageStore, StoreOptions};
use embodied_r_grpo::images::table::ImageTable;
use embodied_r_grpo::model::Prompt;
use embodied_r_policy::{ImageEmbedder as _, WeightFormat};
use embodied_r_vision::VisionProcessor;

use crate::model::{Batch, batch, folder};

/// A store for the images of `batch`, and its prompts: of one image, of two with the first again, of an image and a
/// video, and of text.
fn store(batch: &Batch, memory_bytes: usize, disk: Option<DiskCache>) -> (ImageStore, Vec<Prompt>) {
    let mut table = ImageTable::new(VisionProcessor::of_model(&folder(), None).unwrap());
    let prompts = batch.file.prompts(Some(&mut table), batch.dir.path()).unwrap();
    assert_eq!(table.len(), 4);
    let options = StoreOptions {
        model: folder(),
        format: WeightFormat::F32,
        device: Device::Cpu,
        memory_bytes,
        disk,
    };
    (ImageStore::new(Arc::new(table), options), prompts)
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
    let batch = batch();
    let (store, prompts) = store(&batch, usize::MAX, None);
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
    let batch = batch();
    let disk = tempfile::tempdir().unwrap();
    let cache = || Some(DiskCache::open(disk.path(), "tower").unwrap());
    let (kept, prompts) = store(&batch, usize::MAX, None);
    let (store, _) = store(&batch, 0, cache());
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
    let (again, _) = self::store(&batch, 0, cache());
    again.prepare(&prompts).unwrap();
    assert_eq!((again.counts(), again.has_tower()), (counts(0, 4, 0), false));
}

#[test]
fn a_damaged_file_of_the_cache_is_encoded_again() {
    let batch = batch();
    let disk = tempfile::tempdir().unwrap();
    let (store, prompts) = store(&batch, 0, Some(DiskCache::open(disk.path(), "t").unwrap()));
    store.prepare(&prompts[..1]).unwrap();
    let before = values(&store, &prompts[0]);
    let folder = std::fs::read_dir(disk.path()).unwrap().next().unwrap().unwrap().path();
    let file = std::fs::read_dir(&folder).unwrap().next().unwrap().unwrap().path();
    std::fs::write(&file, b"damaged").unwrap();
    let cache = Some(DiskCache::open(disk.path(), "t").unwrap());
    let (again, prompts) = self::store(&batch, 0, cache);
    again.prepare(&prompts[..1]).unwrap();
    assert_eq!(again.counts(), counts(1, 0, 0));
    assert_eq!(values(&again, &prompts[0]), before);
}

#[test]
fn decoding_ahead_changes_nothing() {
    let batch = batch();
    let (ahead, prompts) = store(&batch, usize::MAX, None);
    let (store, _) = store(&batch, usize::MAX, None);
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
    let batch = batch();
    let (store, prompts) = store(&batch, usize::MAX, None);
    let path = batch.dir.path().join(&batch.file.groups[0].images[0]);
    let other = batch.dir.path().join(&batch.file.groups[1].images[0]);
    std::fs::copy(&other, &path).unwrap();
    let message = |prompts: &[Prompt]| store.prepare(prompts).unwrap_err().to_string();
    let changed = message(&prompts[..1]);
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    assert!(changed.contains(&name(&path)) && changed.contains("other pixels"), "{changed}");
    std::fs::remove_file(&path).unwrap();
    assert!(message(&prompts[..1]).contains(&name(&path)));
    // Other images can be used.
    store.prepare(&prompts[3..]).unwrap();
}
