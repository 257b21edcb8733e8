use std::io::Cursor;
use std::path::Path;

use embodied_r_openai::{ChatReply, ChatRequest, Content, Message, Role};
use embodied_r_policy::TensorParallel;
use futures_util::future::join_all;
use image::{ImageFormat, Rgb, RgbImage};

use super::super::{ChatModel, LocalModel, LocalOptions};
use crate::error::Result;

fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../vision/tests/fixtures/nested"))
}

fn jpeg(seed: u32) -> Vec<u8> {
    let pixel = |x, y| Rgb([(x * seed) as u8, (y + 40 * seed) as u8, (x ^ y) as u8]);
    let mut bytes = Cursor::new(Vec::new());
    RgbImage::from_fn(90, 60, pixel).write_to(&mut bytes, ImageFormat::Jpeg).unwrap();
    bytes.into_inner()
}

/// Requests with one picture and with two, of which some are the same, and one that is no picture.
fn asked() -> Vec<(ChatRequest, Vec<Vec<u8>>)> {
    let request = |number: usize, jpegs: Vec<Vec<u8>>| {
        let pictures = jpegs.iter().map(|_| Content::Image("picture".into()));
        let text = Content::Text(format!("What is there, {number}?"));
        let message = Message { role: Role::User, content: pictures.chain([text]).collect() };
        let request = ChatRequest::new("m", vec![message]);
        // Drawn, and likeliest.
        let temperature = Some(if number.is_multiple_of(2) { 0.0 } else { 1.0 });
        (ChatRequest { temperature, max_tokens: Some(6), ..request }, jpegs)
    };
    let mut asked = vec![request(0, vec![jpeg(1)]), request(1, vec![b"no picture".to_vec()])];
    asked.extend((2..9).map(|i| request(i, vec![jpeg(i as u32 / 2), jpeg(i as u32 / 2 + 1)])));
    asked
}

fn replies(model: &LocalModel) -> Vec<Result<ChatReply>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let asked = asked();
    runtime.block_on(join_all(asked.iter().map(|(request, jpegs)| model.chat(request, jpegs))))
}

/// What was said, with the counts of tokens.
fn told(replies: Vec<Result<ChatReply>>) -> Vec<String> {
    let told = |reply: Result<ChatReply>| match reply {
        Ok(ChatReply { text, finish_reason, usage, .. }) => {
            format!("{text:?} {finish_reason:?} {usage:?}")
        }
        Err(error) => format!("error: {error}"),
    };
    replies.into_iter().map(told).collect()
}

/// [`TensorParallel::on_threads`].
fn on_ranks<R: Send>(ranks: usize, work: impl Fn(&TensorParallel) -> R + Sync) -> Vec<R> {
    TensorParallel::on_threads(ranks, work).unwrap()
}

#[test]
fn replies_of_two_ranks_are_those_of_one() {
    let options = LocalOptions::default();
    let alone = told(replies(&LocalModel::load(folder(), &options).unwrap()));
    assert!(
        alone[1].starts_with("error: ") && alone.iter().skip(2).all(|told| told.contains("Some"))
    );
    // Pictures that are forgotten are looked at again, on all ranks alike.
    for gallery_bytes in [1 << 20, 0] {
        let options = LocalOptions { gallery_bytes, ..LocalOptions::default() };
        let found = on_ranks(2, |ranks| {
            let model = LocalModel::over_ranks(folder(), &options, ranks).unwrap();
            model.map(|model| (told(replies(&model)), model.gallery().looked()))
        });
        let [Some((found, looked)), None] = &found[..] else {
            panic!("the first rank alone is asked")
        };
        assert_eq!(*found, alone);
        assert!((*looked == 5) == (gallery_bytes > 0), "{looked} pictures looked at");
    }
}

#[test]
fn a_request_that_nobody_waits_for_ends_on_all_ranks() {
    let left = on_ranks(2, |ranks| {
        let options = LocalOptions::default();
        let model = LocalModel::over_ranks(folder(), &options, ranks).unwrap()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let (mut request, jpegs) = asked().swap_remove(0);
        request.max_tokens = Some(3000);
        let hurry = std::time::Duration::from_millis(300);
        let long = async { tokio::time::timeout(hurry, model.chat(&request, &jpegs)).await };
        assert!(runtime.block_on(long).is_err());
        // The next one has the ranks in step.
        let (request, jpegs) = asked().swap_remove(0);
        let reply = runtime.block_on(model.chat(&request, &jpegs)).unwrap();
        Some((told(vec![Ok(reply)]), model.stats().running))
    });
    let alone = told(replies(&LocalModel::load(folder(), &LocalOptions::default()).unwrap()));
    assert_eq!(left[0], Some((vec![alone[0].clone()], 0)));
}
