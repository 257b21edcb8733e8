//! The embeddings of a step's images under a trained tower.

use std::sync::Arc;

use candle_core::Device;
use embodied_r_grpo::images::trained::{ImagePass, TrainedImages};
use embodied_r_media::table::ImageTable;
use embodied_r_policy::Precision;
use embodied_r_vision::{TowerOptions, TrainableTower, VisionProcessor};

use crate::model::{TRAINED, batch, folder};

#[test]
fn the_passes_of_a_step_share_the_memory_for_activations() {
    let batch = batch();
    let processor = VisionProcessor::of_model(&folder()).unwrap();
    let mut table = ImageTable::new(processor.clone());
    let prompts = batch.file.prompts(Some(&mut table), batch.dir.path()).unwrap();
    let table = Arc::new(table);
    let images = |activation_bytes| {
        let options = TowerOptions {
            frozen: TRAINED.unwrap(),
            precision: Precision::F32,
            device: Device::Cpu,
        };
        let tower = TrainableTower::load(&folder(), processor.clone(), &options).unwrap();
        TrainedImages::new(table.clone(), tower, activation_bytes)
    };
    let saved = |images: &TrainedImages| {
        [0, 1].map(|prompt| {
            images.prepare(&prompts[prompt..=prompt], ImagePass::Training).unwrap();
            images.saved_activation_bytes()
        })
    };
    let [first, both] = saved(&images(usize::MAX));
    assert!(0 < first && first < both);
    let bounded = images(first);
    assert_eq!(saved(&bounded), [first, first]);
    bounded.weights_changed();
    assert_eq!(bounded.saved_activation_bytes(), 0);
    assert_eq!(saved(&bounded), [first, first]);
    assert_eq!(saved(&images(0)), [0, 0]);
}
