//! Videos in requests.

use std::fs;
use std::io::Cursor;
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use embodied_r_policy::tokenizer::{SpecialTokens, Tokenizer};
use embodied_r_test_server as http;
use embodied_r_tests::{VisionModel, stderr_of, tiny_model, write_clip};
use image::ImageFormat;
use serde_json::{Value, json};

use super::CHAT;
use super::client::{Response, Server, command};
use super::load::in_parallel;
use crate::images::test_image::test_image;

/// The field of the first part's URL.
const URL: &str = "messages[0].content[0].video_url.url";

fn workspace() -> tempfile::TempDir {
    workspace_of(VisionModel::Nested)
}

fn workspace_of(model: VisionModel) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    model.write(&dir.path().join("model"));
    dir
}

/// A video of patterns: 6 frames of 84 × 56 pixels, 6 tokens in each pair of them.
fn clip(dir: &Path, name: &str) -> Vec<u8> {
    let path = dir.join(name);
    let source = "-f lavfi -i testsrc2=s=84x56:r=2 -frames:v 6";
    write_clip(&format!("{source} -c:v libx264 -preset ultrafast -pix_fmt yuv420p"), &path);
    fs::read(path).unwrap()
}

fn data_url(bytes: &[u8]) -> String {
    format!("data:video/mp4;base64,{}", BASE64_STANDARD.encode(bytes))
}

/// The frames as images in one URL.
fn frames_url(sizes: &[(u32, u32)], seed: u32) -> String {
    let frame = |(size, seed): (&(u32, u32), u32)| {
        let mut png = Cursor::new(Vec::new());
        test_image(*size, seed).write_to(&mut png, ImageFormat::Png).unwrap();
        BASE64_STANDARD.encode(png.into_inner())
    };
    let frames: Vec<String> = sizes.iter().zip(seed..).map(frame).collect();
    format!("data:video/jpeg;base64,{}", frames.join(","))
}

/// A question about videos.
fn request(urls: &[String]) -> Value {
    let videos = urls.iter().map(|url| json!({"type": "video_url", "video_url": {"url": url}}));
    let content: Vec<Value> =
        videos.chain([json!({"type": "text", "text": "What is there?"})]).collect();
    json!({"model": "tiny", "messages": [{"role": "user", "content": content}],
        "temperature": 0, "max_tokens": 6})
}

fn text(answer: &Response) -> String {
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["choices"][0]["message"]["content"].as_str().unwrap().to_owned()
}

fn prompt_tokens(server: &Server, urls: &[String]) -> u64 {
    let answer = server.post(CHAT, &request(urls));
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["usage"]["prompt_tokens"].as_u64().unwrap()
}

#[track_caller]
fn refusal(server: &Server, url: &str) -> String {
    let answer = server.post(CHAT, &request(&[url.to_owned()]));
    let error = &answer.json()["error"];
    assert_eq!((answer.status, &error["param"]), (400, &json!(URL)), "{answer:?}");
    error["message"].as_str().unwrap().to_owned()
}

#[test]
fn frames_in_a_request_are_described_as_the_reference_does() {
    let text_file = fs::read(VisionModel::Nested.folder().join("expected.json")).unwrap();
    let cases: Vec<Value> = serde_json::from_slice(&text_file).unwrap();
    let case = cases.iter().find(|case| case["name"] == "video").unwrap();
    let numbers = |value: &Value| -> Vec<u32> { serde_json::from_value(value.clone()).unwrap() };
    let sizes: Vec<(u32, u32)> = serde_json::from_value(case["sizes"].clone()).unwrap();
    let tokenizer = Tokenizer::from_dir(&VisionModel::Nested.folder()).unwrap();
    let expected = tokenizer.decode(&numbers(&case["greedy"]), SpecialTokens::Skip).unwrap();
    let server = Server::launch(workspace(), &[], None);
    // A list of frames has 2 fps.
    assert_eq!(case["seconds"], 0.5);
    let url = frames_url(&sizes, case["seed"].as_u64().unwrap() as u32);
    let mut body = request(&[url]);
    body["logprobs"] = json!(true);
    body["top_logprobs"] = json!(20);
    let answer = server.post(CHAT, &body);
    assert_eq!(text(&answer), expected);
    let mut largest: Vec<f64> = serde_json::from_value(case["last_logp"].clone()).unwrap();
    largest.sort_by(|a, b| b.total_cmp(a));
    let answer_json = answer.json();
    let first = &answer_json["choices"][0]["logprobs"]["content"][0]["top_logprobs"];
    let found = first.as_array().unwrap().iter().map(|top| top["logprob"].as_f64().unwrap());
    let found: Vec<f64> = found.collect();
    assert_eq!(found.len(), 20);
    for (found, expected) in found.iter().zip(&largest) {
        assert!((found - expected).abs() < 2e-4, "{found} {expected}");
    }
    let usage = &answer.json()["usage"]["prompt_tokens"];
    assert_eq!(*usage, numbers(&case["ids"]).len());
}

#[test]
fn frames_of_qwen3_vl_have_the_timestamps_of_the_reference() {
    let file = fs::read(VisionModel::Qwen3Vl.folder().join("videos.json")).unwrap();
    let cases: Vec<Value> = serde_json::from_slice(&file).unwrap();
    let case = cases.iter().find(|case| case["name"] == "a video at 2 fps").unwrap();
    let numbers = |value: &Value| -> Vec<u32> { serde_json::from_value(value.clone()).unwrap() };
    let sizes = serde_json::from_value(case["visuals"][0]["sizes"].clone()).unwrap();
    let sizes: Vec<(u32, u32)> = sizes;
    let tokenizer = Tokenizer::from_dir(&VisionModel::Qwen3Vl.folder()).unwrap();
    let expected = tokenizer.decode(&numbers(&case["greedy"]), SpecialTokens::Skip).unwrap();
    let server = Server::launch(workspace_of(VisionModel::Qwen3Vl), &[], None);
    let url = frames_url(&sizes, case["seed"].as_u64().unwrap() as u32);
    let body = request(&[url]);
    let answer = server.post(CHAT, &body);
    assert_eq!(text(&answer), expected);
    let counted = server.post("/tokenize", &body).json()["tokens"].clone();
    assert_eq!(numbers(&counted), numbers(&case["ids"]));
    assert_eq!(answer.json()["usage"]["prompt_tokens"], numbers(&case["ids"]).len());
}

#[test]
fn a_clip_is_answered_and_encoded_once() {
    let dir = workspace();
    let temporary = dir.path().join("tmp");
    fs::create_dir(&temporary).unwrap();
    let url = data_url(&clip(dir.path(), "a.mp4"));
    let mut serve = command(dir.path());
    serve.env("TMPDIR", &temporary);
    let server = Server::spawn(serve, None).keeping(dir);
    let first = server.post(CHAT, &request(std::slice::from_ref(&url)));
    let again = server.post(CHAT, &request(std::slice::from_ref(&url)));
    assert_eq!(text(&first), text(&again));
    let cached = |of: &str| server.metric(&format!("embedding_cache_{of}_total"));
    assert_eq!((cached("misses"), cached("hits")), (1.0, 1.0));
    // A video has three temporal patches between two markers.
    let urls = [url.clone(), url];
    let [none, one, two] = [0, 1, 2].map(|count| prompt_tokens(&server, &urls[..count]));
    assert_eq!((one - none, two - one), (3 * 6 + 2, 3 * 6 + 2));
    let left: Vec<_> = fs::read_dir(temporary).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn the_frames_of_a_clip_are_chosen_by_options() {
    for (arguments, frames) in [
        (&["--frames", "uniform=2"][..], 2),
        (&["--frames", "key"], 4),
        (&["--fps", "2"], 6),
        (&["--fps", "2", "--max-frames", "4"], 4),
    ] {
        let dir = workspace();
        let url = data_url(&clip(dir.path(), "a.mp4"));
        let server = Server::launch(dir, arguments, None);
        let tokens = prompt_tokens(&server, &[url]) - prompt_tokens(&server, &[]);
        assert_eq!(tokens, frames / 2 * 6 + 2, "{arguments:?}");
    }
}

#[test]
fn images_and_videos_keep_their_places_in_a_message() {
    let dir = workspace();
    let video = data_url(&clip(dir.path(), "a.mp4"));
    test_image((60, 60), 3).save(dir.path().join("a.png")).unwrap();
    let image = fs::read(dir.path().join("a.png")).unwrap();
    let image = format!("data:image/png;base64,{}", BASE64_STANDARD.encode(image));
    let server = Server::launch(dir, &[], None);
    let image = json!({"type": "image_url", "image_url": {"url": image}});
    let video = json!({"type": "video_url", "video_url": video});
    let question = json!({"type": "text", "text": "What is there?"});
    let tokens = |content: Value| {
        let body = json!({"model": "tiny", "max_tokens": 2,
            "messages": [{"role": "user", "content": content}]});
        let counted = server.post("/tokenize", &body);
        let answer = server.post(CHAT, &body);
        assert_eq!(answer.status, 200, "{answer:?}");
        let tokens: Vec<u32> = serde_json::from_value(counted.json()["tokens"].clone()).unwrap();
        assert_eq!(answer.json()["usage"]["prompt_tokens"], tokens.len());
        tokens
    };
    let tokenizer = Tokenizer::from_dir(&VisionModel::Nested.folder()).unwrap();
    let [image_pad, video_pad] = ["<|image_pad|>", "<|video_pad|>"].map(|pad| {
        let ids = tokenizer.encode_with_special_tokens(pad).unwrap();
        assert_eq!(ids.len(), 1);
        ids[0]
    });
    let first = |tokens: &[u32], id: u32| tokens.iter().position(|token| *token == id).unwrap();
    for (content, image_is_first) in
        [(json!([image, video, question]), true), (json!([video, image, question]), false)]
    {
        let tokens = tokens(content);
        let count = |id: u32| tokens.iter().filter(|token| **token == id).count();
        assert_eq!((count(image_pad), count(video_pad)), (4, 18));
        assert_eq!(first(&tokens, image_pad) < first(&tokens, video_pad), image_is_first);
    }
}

#[test]
fn what_is_no_video_is_refused_with_its_field() {
    let dir = workspace();
    let whole = clip(dir.path(), "a.mp4");
    let sound = dir.path().join("sound.m4a");
    write_clip("-f lavfi -i sine=r=8000:d=1 -c:a aac", &sound);
    let sound = fs::read(sound).unwrap();
    let server = Server::launch(dir, &[], None);
    let [small, large] = [(84, 56), (84, 84)];
    for (url, why) in [
        (data_url(b""), "the video is empty"),
        (data_url(b"no video at all"), "is not a video that FFmpeg can read"),
        (data_url(&sound), "no video track"),
        (data_url(&whole[..whole.len() / 2]), ""),
        ("data:video/mp4;base64,#".to_owned(), "is not valid base64"),
        ("data:video/mp4,abc".to_owned(), "not in base64"),
        ("data:video/jpeg;base64,".to_owned(), "frame 0: "),
        ("data:video/jpeg;base64,AAAA,AAAA".to_owned(), "frame 0: "),
        (frames_url(&[small, small, large], 1), "frame 2 has 84 × 84 pixels"),
        (format!("data:video/jpeg;base64,{}", "AAAA,".repeat(768)), "has 769 frames"),
        ("nonsense".to_owned(), "is not a URL"),
        ("ftp://a/b.mp4".to_owned(), "`ftp:` URL; send a `data:` URL with the video in base64"),
    ] {
        let message = refusal(&server, &url);
        let is_named = message.contains(why) && message.starts_with(&format!("`{URL}`"));
        assert!(is_named && !message.contains("/tmp"), "{why}: {message}");
    }
    // A frame whose pixels are missing has a valid header.
    let mut png = Cursor::new(Vec::new());
    test_image(small, 1).write_to(&mut png, ImageFormat::Png).unwrap();
    let half = BASE64_STANDARD.encode(&png.get_ref()[..png.get_ref().len() / 2]);
    let message = refusal(&server, &format!("data:video/jpeg;base64,{half}"));
    assert!(message.contains("cannot read the image"), "{message}");
    let text_only =
        json!({"messages": [{"role": "user", "content": [{"type": "video", "video": "a"}]}]});
    let answer = server.post(CHAT, &text_only);
    assert!(answer.body.contains("must be `text`, `image_url` or `video_url`"), "{answer:?}");
}

#[test]
fn videos_beyond_the_limits_are_refused_before_they_are_decoded() {
    for (arguments, code) in [
        (&["--max-model-len", "30"][..], "context_length_exceeded"),
        // Six frames of 84 × 56.
        (&["--max-prompt-pixels", "28223"], "image_too_large"),
    ] {
        let dir = workspace();
        let url = data_url(&clip(dir.path(), "a.mp4"));
        let server = Server::launch(dir, arguments, None);
        let answer = server.post(CHAT, &request(&[url, frames_url(&[(84, 56); 4], 1)]));
        assert_eq!(answer.json()["error"]["code"], code, "{answer:?}");
        assert_eq!(server.metric("embedding_cache_misses_total"), 0.0);
    }
}

#[test]
fn videos_come_only_from_allowed_folders_and_hosts() {
    let dir = workspace();
    fs::create_dir(dir.path().join("open")).unwrap();
    let video = clip(dir.path(), "open/a.mp4");
    fs::copy(dir.path().join("open/a.mp4"), dir.path().join("secret.mp4")).unwrap();
    fs::write(dir.path().join("open/note.mp4"), "no video").unwrap();
    let root = dir.path().canonicalize().unwrap();
    let file = |name: &str| format!("file://{}/{name}", root.display());
    let sent = video.clone();
    let host = http::Server::start(move |_| http::Response::new(200, sent.clone()));
    let options = ["--allowed-local-media-path", "open", "--allowed-media-domains", "127.0.0.1"];
    let server = Server::launch(dir, &options, None);
    let expected = text(&server.post(CHAT, &request(&[data_url(&video)])));
    for url in [file("open/a.mp4"), format!("{}/a.mp4", host.url())] {
        assert_eq!(
            text(&server.post(CHAT, &request(std::slice::from_ref(&url)))),
            expected,
            "{url}"
        );
    }
    for name in ["secret.mp4", "open/../secret.mp4", "open/none.mp4", "open"] {
        let message = refusal(&server, &file(name));
        assert!(message.contains("is not a file in the directory"), "{name}: {message}");
    }
    let message = refusal(&server, &format!("http://localhost:{}/a.mp4", host.address().port()));
    assert!(message.contains("is not an allowed host"), "{message}");
    let message = refusal(&server, &file("open/note.mp4"));
    assert!(message.contains("is not a video that FFmpeg can read"), "{message}");
}

const MB: u64 = 1 << 20;

#[test]
fn large_videos_of_several_requests_are_decoded_in_bounded_memory() {
    let dir = workspace();
    let large = |color: &str| {
        let path = dir.path().join("large.mp4");
        let source = format!("-f lavfi -i color={color}:s=2048x2048:r=4 -frames:v 64");
        write_clip(&format!("{source} -c:v libx264 -preset ultrafast -pix_fmt yuv420p"), &path);
        request(&[data_url(&fs::read(path).unwrap())])
    };
    let requests = ["gray", "red", "blue"].map(large);
    let mut serve = command(dir.path());
    serve.args(["--frames", "uniform=64"]).env("MIMALLOC_PURGE_DELAY", "0");
    let server = Server::spawn(serve, None).keeping(dir);
    let before = server.memory().peak;
    in_parallel(3, &requests, |request| {
        let answer = server.post(CHAT, request);
        assert_eq!(answer.status, 200, "{answer:?}");
        // 280 × 280 pixels for each frame.
        let tokens = answer.json()["usage"]["prompt_tokens"].as_u64().unwrap();
        assert!(tokens > 32 * 100, "{tokens}");
    });
    let after = server.memory().peak;
    // All frames of a video have 805 MB.
    assert!(after < before + 400 * MB, "{before} bytes have become {after}");
}

#[test]
fn ffmpeg_ends_when_the_client_of_a_video_disconnects() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = workspace();
    let url = data_url(&clip(dir.path(), "a.mp4"));
    let bin = dir.path().join("bin");
    fs::create_dir(&bin).unwrap();
    let started = dir.path().join("started");
    let script = format!("#!/bin/sh\necho $$ > {}\nexec sleep 900\n", started.display());
    fs::write(bin.join("ffmpeg"), script).unwrap();
    fs::set_permissions(bin.join("ffmpeg"), fs::Permissions::from_mode(0o755)).unwrap();
    let path = std::env::var("PATH").unwrap();
    let mut serve = command(dir.path());
    serve.env("PATH", format!("{}:{path}", bin.display()));
    let server = Server::spawn(serve, None).keeping(dir);
    let connection = server.open("POST", CHAT, &request(&[url]).to_string());
    let began = std::time::Instant::now();
    let wait = |what: &str, is_done: &dyn Fn() -> bool| {
        while !is_done() {
            assert!(began.elapsed() < Duration::from_secs(50), "{what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    wait("FFmpeg is not started", &|| {
        fs::read_to_string(&started).is_ok_and(|id| id.ends_with('\n'))
    });
    let id = fs::read_to_string(&started).unwrap();
    drop(connection);
    // It would take 60 s otherwise.
    let process = format!("/proc/{}", id.trim());
    wait("FFmpeg goes on", &|| !Path::new(&process).exists());
}

#[test]
fn without_ffmpeg_the_answer_says_how_to_install_it() {
    let dir = workspace();
    let url = data_url(&clip(dir.path(), "a.mp4"));
    let empty = dir.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let mut serve = command(dir.path());
    serve.env("PATH", empty);
    let server = Server::spawn(serve, None).keeping(dir);
    let answer = server.post(CHAT, &request(&[url]));
    assert_eq!((answer.status, &answer.json()["error"]["code"]), (500, &json!("server_failed")));
    assert!(answer.body.contains("apt-get install ffmpeg"), "{answer:?}");
}

#[test]
fn options_for_frames_are_checked_before_the_model_is_loaded() {
    let dir = tempfile::tempdir().unwrap();
    for (arguments, message) in [
        (&["--frames", "uniform=0"][..], "`uniform` must be from 1 to 768 frames, not 0"),
        (&["--frames", "some"], "`frames` must be `key`, `uniform=N`"),
        (&["--fps", "0"], "`fps` must be a positive number, not 0"),
        (&["--fps", "-1"], "`fps` must be a positive number, not -1"),
        (&["--fps", "NaN"], "`fps` must be a positive number, not NaN"),
        (&["--max-frames", "1"], "`max_frames` must be from 2 to 768, not 1"),
        (&["--frames", "key", "--fps", "2"], "cannot be used with"),
    ] {
        let stderr = stderr_of(command(dir.path()).args(arguments), 2);
        assert!(stderr.contains(message), "{arguments:?}: {stderr}");
    }
    tiny_model::write(&dir.path().join("model"));
    let stderr = stderr_of(command(dir.path()).args(["--fps", "2"]), 2);
    assert!(stderr.contains("needs a vision-language model"), "{stderr}");
}
