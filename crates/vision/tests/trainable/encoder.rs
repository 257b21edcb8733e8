//! The trained tower as a vision encoder.

use embodied_r_kernels::memory;
use embodied_r_policy::{Precision, WeightFormat};
use embodied_r_vision::{
    ImageEmbeddings, Pixels, PreparedImage, TowerOptions, TrainableTower, VisionEncoder,
};
use image::RgbImage;

use super::{LAYOUTS, folder, options, pixels, test_image, tower, values};

const SIZES: [(u32, u32); 3] = [(252, 140), (100, 180), (60, 60)];

fn images() -> Vec<RgbImage> {
    SIZES.into_iter().zip(1..).map(|(size, seed)| test_image(size, seed)).collect()
}

fn encoded(encoder: &VisionEncoder) -> Vec<ImageEmbeddings> {
    encoder.encode_images(&images().iter().collect::<Vec<_>>()).unwrap()
}

fn bits(embeddings: &[ImageEmbeddings]) -> Vec<Vec<f32>> {
    embeddings.iter().map(|image| values(image.embeddings())).collect()
}

#[test]
fn embeddings_have_the_bits_of_the_vision_encoder() {
    for layout in LAYOUTS {
        for (precision, format) in
            [(Precision::F32, WeightFormat::F32), (Precision::Bf16, WeightFormat::Bf16)]
        {
            let expected =
                bits(&encoded(&VisionEncoder::load(&folder(layout), &format.into()).unwrap()));
            let tower =
                TrainableTower::load(&folder(layout), &TowerOptions { precision, ..options() });
            let tower = tower.unwrap();
            let pixels: Vec<Pixels> =
                images().iter().map(|image| tower.processor().image(image).unwrap()).collect();
            let pixels: Vec<&Pixels> = pixels.iter().collect();
            for bytes in [0, 100_000, usize::MAX] {
                let (embeddings, _) = tower.forward(&pixels, bytes).unwrap();
                let found: Vec<Vec<f32>> = embeddings.iter().map(values).collect();
                assert!(found == expected, "{layout} {precision:?} {bytes}");
            }
            assert!(bits(&encoded(&tower.encoder(0).unwrap())) == expected);
        }
    }
}

#[test]
fn an_encoder_and_the_next_pass_see_the_optimizers_writes() {
    let tower = tower("nested");
    let pixels = pixels(&tower);
    let pixels: Vec<&Pixels> = pixels.iter().collect();
    let encoder = tower.encoder(0).unwrap();
    let before = tower.forward(&pixels, 0).unwrap().0;
    for (name, tensor) in tower.parameters() {
        let (start, encoded_before) = (values(tensor), bits(&encoded(&encoder)));
        memory::scale(tensor, 1.5).unwrap();
        let after = tower.forward(&pixels, 0).unwrap().0;
        assert!(values(&after[0]) != values(&before[0]), "{name}");
        let encoded_after = bits(&encoded(&encoder));
        assert!(encoded_after != encoded_before, "{name}");
        assert!(encoded_after == bits(&encoded(&tower.encoder(0).unwrap())), "{name}");
        memory::write_slice(tensor, &start).unwrap();
    }
    let again = tower.forward(&pixels, 0).unwrap().0;
    assert_eq!(values(&again[0]), values(&before[0]));
}

fn digests(embeddings: &[ImageEmbeddings]) -> Vec<u128> {
    embeddings.iter().map(ImageEmbeddings::digest).collect()
}

#[test]
fn digests_depend_on_the_version_of_the_weights() {
    let frozen = VisionEncoder::load(&folder("nested"), &WeightFormat::F32.into()).unwrap();
    let tower = tower("nested");
    let of = |encoder: &VisionEncoder| digests(&encoded(encoder));
    let versions = [0, 1, 2].map(|version| of(&tower.encoder(version).unwrap()));
    assert_eq!(versions[0], of(&frozen));
    for (one, other) in [(0, 1), (0, 2), (1, 2)] {
        assert!(versions[one].iter().zip(&versions[other]).all(|(a, b)| a != b));
    }
    assert_eq!(versions[2], of(&tower.encoder(2).unwrap()));
}

#[test]
fn prepared_images_with_the_passes_embeddings_are_those_of_the_encoder() {
    let tower = tower("flat");
    let frames: Vec<RgbImage> = (11..16).map(|seed| test_image((170, 120), seed)).collect();
    let mut prepared: Vec<PreparedImage> = images()
        .iter()
        .map(|image| PreparedImage::image(tower.processor(), image).unwrap())
        .collect();
    let video = PreparedImage::video(tower.processor(), &frames, 0.5, tower.config());
    prepared.push(video.unwrap());
    let pixels: Vec<&Pixels> = prepared.iter().map(PreparedImage::pixels).collect();
    let (embeddings, _) = tower.forward(&pixels, 0).unwrap();
    let encoder = tower.encoder(3).unwrap();
    let mut expected = encoded(&encoder);
    expected.push(encoder.encode_video(&frames, 0.5).unwrap());
    let found: Vec<ImageEmbeddings> = prepared
        .iter()
        .zip(embeddings)
        .map(|(image, embeddings)| image.embedded(embeddings, 3))
        .collect();
    assert!(bits(&found) == bits(&expected));
    assert_eq!(digests(&found), digests(&expected));
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found.grid(), expected.grid());
    }
}
