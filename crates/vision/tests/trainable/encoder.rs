//! The trained tower as a vision encoder.

use embodied_r_kernels::memory;
use embodied_r_policy::{Precision, WeightFormat};
use embodied_r_vision::{ImageEmbeddings, Pixels, TowerOptions, VisionEncoder};
use image::RgbImage;

use super::{LAYOUTS, folder, options, pixels, test_image, tower, tower_with, values};

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
            let tower = tower_with(layout, &TowerOptions { precision, ..options() });
            let pixels: Vec<Pixels> = images()
                .iter()
                .map(|image| tower.processor().processor().image(image).unwrap())
                .collect();
            let pixels: Vec<&Pixels> = pixels.iter().collect();
            for bytes in [0, 100_000, usize::MAX] {
                let (embeddings, _) = tower.forward(&pixels, bytes).unwrap();
                let found: Vec<Vec<f32>> = embeddings.iter().map(values).collect();
                assert!(found == expected, "{layout} {precision:?} {bytes}");
            }
            assert!(bits(&encoded(&tower.encoder().unwrap())) == expected);
        }
    }
}

#[test]
fn an_encoder_and_the_next_pass_see_the_optimizers_writes() {
    let tower = tower("nested");
    let pixels = pixels(&tower);
    let pixels: Vec<&Pixels> = pixels.iter().collect();
    let encoder = tower.encoder().unwrap();
    let before = tower.forward(&pixels, 0).unwrap().0;
    for (name, tensor) in tower.parameters() {
        let (start, encoded_before) = (values(tensor), bits(&encoded(&encoder)));
        memory::scale(tensor, 1.5).unwrap();
        let after = tower.forward(&pixels, 0).unwrap().0;
        assert!(values(&after[0]) != values(&before[0]), "{name}");
        let encoded_after = bits(&encoded(&encoder));
        assert!(encoded_after != encoded_before, "{name}");
        assert!(encoded_after == bits(&encoded(&tower.encoder().unwrap())), "{name}");
        memory::write_slice(tensor, &start).unwrap();
    }
    let again = tower.forward(&pixels, 0).unwrap().0;
    assert_eq!(values(&again[0]), values(&before[0]));
}
