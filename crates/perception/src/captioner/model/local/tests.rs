use std::path::Path;

use embodied_r_openai::{
    ChatCompletion, ChatCompletionMessage, ChatCompletionRequest, ContentPart, Role,
};
use embodied_r_policy::TensorParallel;
use futures_util::future::join_all;
use image::{Rgb, RgbImage};

use super::{ChatModel, FrameImage, LocalModel, Model, VisionEngineOptions};
use crate::error::Result;

fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../vision/tests/fixtures/nested"))
}

fn frame(image: RgbImage) -> FrameImage {
    FrameImage::new(image, Path::new("video.mp4"))
}

fn image(seed: u32) -> FrameImage {
    let pixel = |x, y| Rgb([(x * seed) as u8, (y + 40 * seed) as u8, (x ^ y) as u8]);
    frame(RgbImage::from_fn(90, 60, pixel))
}

/// Requests with one and with two images, some of them shared, and one with an image that is too long.
fn requests() -> Vec<(ChatCompletionRequest, Vec<FrameImage>)> {
    let request = |number: usize, frames: Vec<FrameImage>| {
        let images = frames.iter().map(|_| ContentPart::Image("image".into()));
        let text = ContentPart::Text(format!("What is there, {number}?"));
        let message =
            ChatCompletionMessage { role: Role::User, content: images.chain([text]).collect() };
        let request = ChatCompletionRequest::new("m", vec![message]);
        // Sampled, and greedy.
        let temperature = Some(if number.is_multiple_of(2) { 0.0 } else { 1.0 });
        (ChatCompletionRequest { temperature, max_tokens: Some(6), ..request }, frames)
    };
    let long = frame(RgbImage::new(1, 400));
    let mut requests = vec![request(0, vec![image(1)]), request(1, vec![long])];
    requests.extend((2..9).map(|i| request(i, vec![image(i as u32 / 2), image(i as u32 / 2 + 1)])));
    requests
}

fn completions(model: &LocalModel) -> Vec<Result<ChatCompletion>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let requests = requests();
    runtime.block_on(join_all(requests.iter().map(|(request, images)| model.chat(request, images))))
}

/// Texts, finish reasons and usage.
fn summaries(completions: Vec<Result<ChatCompletion>>) -> Vec<String> {
    let summary = |completion: Result<ChatCompletion>| match completion {
        Ok(ChatCompletion { text, finish_reason, usage, .. }) => {
            format!("{text:?} {finish_reason:?} {usage:?}")
        }
        Err(error) => format!("error: {error}"),
    };
    completions.into_iter().map(summary).collect()
}

fn on_one_rank(options: &VisionEngineOptions) -> LocalModel {
    let model = Model::load_with_vision(folder(), &options.vision).unwrap();
    LocalModel::from_model(folder(), model, options).unwrap()
}

/// [`TensorParallel::on_threads`].
fn on_ranks<R: Send>(ranks: usize, work: impl Fn(&TensorParallel) -> R + Sync) -> Vec<R> {
    TensorParallel::on_threads(ranks, work).unwrap()
}

#[test]
fn two_ranks_generate_the_same_completions_as_one() {
    let options = VisionEngineOptions::default();
    let alone = summaries(completions(&on_one_rank(&options)));
    assert!(
        alone[1].starts_with("error: ")
            && alone.iter().skip(2).all(|summary| summary.contains("Some"))
    );
    // Evicted images are encoded again, on all ranks alike.
    for image_cache_bytes in [1 << 20, 0] {
        let options = VisionEngineOptions { image_cache_bytes, ..VisionEngineOptions::default() };
        let found = on_ranks(2, |ranks| {
            let model = LocalModel::load(folder(), &options, ranks).unwrap();
            model.map(|model| (summaries(completions(&model)), model.image_cache().misses()))
        });
        let [Some((found, encoded)), None] = &found[..] else {
            panic!("only rank 0 gets the model")
        };
        assert_eq!(*found, alone);
        assert!((*encoded == 5) == (image_cache_bytes > 0), "{encoded} images encoded");
    }
}

#[test]
fn a_dropped_request_is_cancelled_on_all_ranks() {
    let results = on_ranks(2, |ranks| {
        let options = VisionEngineOptions::default();
        let model = LocalModel::load(folder(), &options, ranks).unwrap()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let (mut request, images) = requests().swap_remove(0);
        request.max_tokens = Some(3000);
        let timeout = std::time::Duration::from_millis(300);
        let long = async { tokio::time::timeout(timeout, model.chat(&request, &images)).await };
        assert!(runtime.block_on(long).is_err());
        // The ranks are still synchronized for the next one.
        let (request, images) = requests().swap_remove(0);
        let completion = runtime.block_on(model.chat(&request, &images)).unwrap();
        Some((summaries(vec![Ok(completion)]), model.stats().running))
    });
    let alone = summaries(completions(&on_one_rank(&VisionEngineOptions::default())));
    assert_eq!(results[0], Some((vec![alone[0].clone()], 0)));
}
