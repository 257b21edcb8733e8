//! Embedding caches of tensor-parallel ranks.

use std::path::Path;

use embodied_r_media::embedding_cache::EmbeddingCache;
use embodied_r_policy::{TensorParallel, WeightFormat};
use embodied_r_vision::{ImageEmbeddings, VisionLanguageModel};

use crate::test_image::test_image;

fn values(embeddings: &[ImageEmbeddings]) -> Vec<Vec<Vec<f32>>> {
    embeddings.iter().map(|embeddings| embeddings.embeddings().to_vec2().unwrap()).collect()
}

#[test]
fn embedding_caches_of_all_ranks_are_identical() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../vision/tests/fixtures/flat");
    let model = VisionLanguageModel::load(&folder, &WeightFormat::F32.into()).unwrap();
    let images = [((200, 130), 1), ((60, 90), 2), ((84, 56), 4)];
    let [a, b, c] = &images.map(|(size, seed)| test_image(size, seed));
    let want = values(&model.vision_encoder().encode_images(&[a, b, a, c, a]).unwrap());
    for (found, misses, hits) in TensorParallel::on_threads(2, |ranks| {
        let cache = EmbeddingCache::new(model.vision_encoder().clone(), 1 << 20);
        let mut embeddings = cache.encode_images_over(&[a, b, a], ranks).unwrap();
        embeddings.extend(cache.encode_images_over(&[c, a], ranks).unwrap());
        (values(&embeddings), cache.misses(), cache.hits())
    })
    .unwrap()
    {
        assert_eq!((misses, hits), (3, 2));
        assert_eq!(found, want);
    }
}
