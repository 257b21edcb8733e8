//! A vision-language model on images: `inspect caption` and `serve`.

#[path = "../../crates/vision/tests/parity/test_image.rs"]
pub(crate) mod test_image;

use std::fs;
use std::io::Cursor;
use std::path::Path;
use std::process::Command;

use assert_cmd::assert::OutputAssertExt as _;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use embodied_r_test_server as http;
use embodied_r_tests::{VisionModel, binary, stdout_of, tiny_model, write_clip};
use image::ImageFormat;
use serde_json::{Value, json};
use test_image::test_image;

use crate::serve::client::{Response, Server};

const CHAT: &str = "/v1/chat/completions";

/// The test case `name` of the reference implementation.
pub(crate) fn case_of(model: VisionModel, name: &str) -> Value {
    let text = fs::read(model.folder().join("expected.json")).unwrap();
    let cases: Value = serde_json::from_slice(&text).unwrap();
    cases.as_array().unwrap().iter().find(|case| case["name"] == name).unwrap().clone()
}

/// A folder with the model in `model`.
fn workspace() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    VisionModel::Nested.write(&dir.path().join("model"));
    dir
}

/// Writes the images of a case, and returns their file names.
pub(crate) fn write_images(dir: &Path, case: &Value) -> Vec<String> {
    let seed = case["seed"].as_u64().unwrap() as u32;
    let sizes = case["sizes"].as_array().unwrap();
    let write = |(size, seed): (&Value, u32)| {
        let [width, height] = [0, 1].map(|side| size[side].as_u64().unwrap() as u32);
        let name = format!("{seed}.png");
        test_image((width, height), seed).save(dir.join(&name)).unwrap();
        name
    };
    sizes.iter().zip(seed..).map(write).collect()
}

pub(crate) fn caption(dir: &Path, names: &[String], arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.current_dir(dir).args(["inspect", "caption", "--model", "model", "--image"]);
    command.args(names).args(["--prompt", "What is there?", "--max-tokens", "6"]).args(arguments);
    command
}

#[test]
fn captions_match_the_reference() {
    captions_match(VisionModel::Nested, VisionModel::Nested);
}

#[test]
fn captions_of_gguf_files_match_the_reference() {
    captions_match(VisionModel::Gguf, VisionModel::Flat);
}

#[test]
fn captions_of_qwen3_vl_match_the_reference() {
    captions_match(VisionModel::Qwen3Vl, VisionModel::Qwen3Vl);
}

/// `reference` has the weights of `model` and the expected outputs.
fn captions_match(model: VisionModel, reference: VisionModel) {
    let dir = tempfile::tempdir().unwrap();
    model.write(&dir.path().join("model"));
    for name in ["windows", "two sizes", "enlarged", "many"] {
        let case = case_of(reference, name);
        let names = write_images(dir.path(), &case);
        let output = caption(dir.path(), &names, &["--json"]).assert().code(0).get_output().clone();
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["grid_thw"], case["grid_thw"], "{name}");
        assert_eq!(report["n_input"], case["ids"].as_array().unwrap().len(), "{name}");
        assert_eq!(report["tokens"], case["greedy"], "{name}");
        let near = |found: &Value, wanted: &Value, most: f64| {
            let (found, wanted) = (found.as_f64().unwrap(), wanted.as_f64().unwrap());
            assert!((found - wanted).abs() < most, "{name}: {found}, not {wanted}");
        };
        near(&report["pixel_mean"], &case["pixels"]["mean"], 1e-6);
        near(&report["pixel_std"], &case["pixels"]["std"], 1e-6);
        let top = report["last_top5"].as_array().unwrap();
        assert_eq!(top.len(), 5);
        for entry in top {
            let id = entry[0].as_u64().unwrap() as usize;
            near(&entry[1], &case["last_logp"][id], 2e-4);
        }
    }
}

#[test]
fn a_video_of_qwen3_vl_has_its_timestamps_and_one_of_two_limits_on_pixels() {
    let dir = tempfile::tempdir().unwrap();
    VisionModel::Qwen3Vl.write(&dir.path().join("model"));
    let write = |size: &str, frames: u32| {
        let source = format!("-f lavfi -i testsrc2=s={size}:r=2 -frames:v {frames}");
        let arguments = format!("{source} -c:v libx264 -preset ultrafast -pix_fmt yuv420p");
        write_clip(&arguments, &dir.path().join("clip.mp4"));
    };
    let report = |more: &[&str]| -> Value {
        let mut inspect = Command::new(binary());
        inspect.current_dir(dir.path()).args(["inspect", "caption", "--model", "model"]);
        inspect.args(["--video", "clip.mp4", "--prompt", "What?", "--json"]).args(more);
        serde_json::from_str(&stdout_of(&mut inspect)).unwrap()
    };
    write("320x240", 7);
    let clip = report(&[]);
    // Seven frames of at most 245,760 pixels together.
    assert_eq!((&clip["video_pixels"], &clip["grid_thw"]), (&json!("clip"), &json!([[4, 10, 12]])));
    let video = &clip["videos"][0];
    assert_eq!(video["frames"], json!([0, 1, 2, 3, 4, 5, 6]));
    assert_eq!(video["times"], json!([0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0]));
    let timestamps = ["<0.2 seconds>", "<1.2 seconds>", "<2.2 seconds>", "<3.0 seconds>"];
    assert_eq!(video["timestamps"], json!(timestamps));
    // The limits of the published models: a clip may have more pixels than 768 tokens per frame.
    let path = dir.path().join("model/video_preprocessor_config.json");
    let mut limits: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    limits["size"]["longest_edge"] = json!(25_165_824);
    fs::write(&path, limits.to_string()).unwrap();
    write("1280x960", 2);
    assert_eq!(report(&["--max-tokens", "1"])["grid_thw"], json!([[1, 60, 80]]));
    let frame = report(&["--max-tokens", "1", "--video-pixels", "frame"]);
    assert_eq!(
        (&frame["video_pixels"], &frame["grid_thw"]),
        (&json!("frame"), &json!([[1, 48, 64]]))
    );
}

#[test]
fn an_unreadable_image_is_named() {
    let dir = workspace();
    fs::write(dir.path().join("note.png"), "not an image").unwrap();
    let stderr = |names: &[&str], arguments: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let output = caption(dir.path(), &names, arguments).assert().failure().get_output().clone();
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(stderr(&["note.png"], &[]).contains("note.png"));
    assert!(stderr(&["absent.png"], &[]).contains("absent.png"));
    let both = stderr(&["note.png"], &["--quantize", "q8_0", "--precision", "bf16"]);
    assert!(both.contains("cannot be used with"), "{both}");
    test_image((9, 9), 1).save(dir.path().join("a.png")).unwrap();
    fs::remove_file(dir.path().join("model/preprocessor_config.json")).unwrap();
    assert!(stderr(&["a.png"], &[]).contains("preprocessor_config.json"));
    fs::remove_dir_all(dir.path().join("model")).unwrap();
    tiny_model::write(&dir.path().join("model"));
    assert!(stderr(&["a.png"], &[]).contains("is a text model"));
}

pub(crate) fn data_url(path: &Path) -> String {
    format!("data:image/png;base64,{}", BASE64_STANDARD.encode(fs::read(path).unwrap()))
}

/// A chat request with these images and a question.
pub(crate) fn request(urls: &[String]) -> Value {
    let images = urls.iter().map(|url| json!({"type": "image_url", "image_url": {"url": url}}));
    let content: Vec<Value> =
        images.chain([json!({"type": "text", "text": "What is there?"})]).collect();
    json!({"model": "tiny", "messages": [{"role": "user", "content": content}],
        "temperature": 0, "max_tokens": 6})
}

fn message(answer: &Response) -> String {
    assert!(answer.status >= 400, "{answer:?}");
    answer.json()["error"]["message"].as_str().unwrap().to_owned()
}

#[test]
fn a_server_describes_images_as_inspect_does() {
    assert_server_matches_inspect(VisionModel::Nested, VisionModel::Nested);
}

#[test]
fn a_server_of_gguf_files_describes_images_as_inspect_does() {
    assert_server_matches_inspect(VisionModel::Gguf, VisionModel::Flat);
}

#[test]
fn a_server_of_qwen3_vl_describes_images_as_inspect_does() {
    assert_server_matches_inspect(VisionModel::Qwen3Vl, VisionModel::Qwen3Vl);
}

fn assert_server_matches_inspect(model: VisionModel, reference: VisionModel) {
    let dir = tempfile::tempdir().unwrap();
    model.write(&dir.path().join("model"));
    let case = case_of(reference, "two sizes");
    let names = write_images(dir.path(), &case);
    let output = caption(dir.path(), &names, &[]).assert().code(0).get_output().clone();
    let stdout = String::from_utf8(output.stdout).unwrap();
    let expected = stdout.split_once("tokens\n").unwrap().1.split_once("tokens\n").unwrap().1;
    let urls: Vec<String> = names.iter().map(|name| data_url(&dir.path().join(name))).collect();
    let server = Server::launch(dir, &[], None);
    for _ in 0..2 {
        let answer = server.post(CHAT, &request(&urls));
        assert_eq!(answer.status, 200, "{answer:?}");
        let answer = answer.json();
        let text = answer["choices"][0]["message"]["content"].as_str().unwrap();
        assert_eq!(text, expected.trim_end_matches('\n'));
        let tokens = case["ids"].as_array().unwrap().len();
        assert_eq!(answer["usage"]["prompt_tokens"], tokens);
    }
}

#[test]
fn a_server_reads_image_files_only_from_the_allowed_folder() {
    let dir = workspace();
    fs::create_dir(dir.path().join("open")).unwrap();
    for name in ["open/a.png", "secret.png"] {
        test_image((60, 60), 3).save(dir.path().join(name)).unwrap();
    }
    let root = dir.path().canonicalize().unwrap();
    std::os::unix::fs::symlink(root.join("secret.png"), root.join("open/link.png")).unwrap();
    let file = |name: &str| format!("file://{}/{name}", root.display());
    let server = Server::launch(dir, &["--allowed-local-media-path", "open"], None);
    let answer = server.post(CHAT, &request(&[file("open/a.png")]));
    assert_eq!(answer.status, 200, "{answer:?}");
    for name in ["secret.png", "open/../secret.png", "open/link.png", "open/none.png", "open"] {
        let error = message(&server.post(CHAT, &request(&[file(name)])));
        assert!(error.contains("is not a file in the directory"), "{name}: {error}");
    }
    let error = message(&server.post(CHAT, &request(&["http://127.0.0.1:1/a.png".to_owned()])));
    assert!(error.contains("is not an allowed host"), "{error}");
    let error = message(&server.post(CHAT, &request(&["ftp://a/b".to_owned()])));
    assert!(error.contains("`ftp:` URL"), "{error}");
}

/// A host with the image `png` at `/a.png`, a redirect to it at `/moved`, and an endless body at `/endless`.
fn host(png: Vec<u8>) -> http::Server {
    http::Server::start(move |request| match request.path.as_str() {
        "/a.png" => http::Response::new(200, png.clone()),
        "/moved" => http::Response::new(302, "").header("location", "/a.png"),
        "/endless" => http::Response::endless(200),
        _ => http::Response::new(404, ""),
    })
}

#[test]
fn a_server_fetches_images_only_from_allowed_hosts() {
    let dir = workspace();
    test_image((60, 60), 3).save(dir.path().join("a.png")).unwrap();
    let inline = data_url(&dir.path().join("a.png"));
    let host = host(fs::read(dir.path().join("a.png")).unwrap());
    let server = Server::launch(dir, &["--allowed-media-domains", "127.0.0.1"], None);
    let reply = |url: String| {
        let answer = server.post(CHAT, &request(&[url]));
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["choices"][0]["message"]["content"].clone()
    };
    assert_eq!(reply(format!("{}/a.png", host.url())), reply(inline));
    for (path, why) in [
        ("moved", "returned 302"),
        ("none.png", "returned 404"),
        ("endless", "is too large: it has more than 33554432 bytes"),
    ] {
        let error = message(&server.post(CHAT, &request(&[format!("{}/{path}", host.url())])));
        assert!(error.contains(why), "{path}: {error}");
    }
    let elsewhere = format!("http://localhost:{}/a.png", host.address().port());
    let error = message(&server.post(CHAT, &request(&[elsewhere])));
    assert!(error.contains("is not an allowed host"), "{error}");
}

#[test]
fn an_image_host_that_is_silent_is_given_up() {
    let dir = workspace();
    let host = http::Server::start(|_| http::Response::hang());
    let url = format!("{}/a.png", host.url());
    let options = ["--allowed-media-domains", "127.0.0.1", "--timeout-media", "1"];
    let server = Server::launch(dir, &options, None);
    let answer = server.post(CHAT, &request(&[url]));
    assert_eq!(answer.status, 400, "{answer:?}");
    let error = message(&answer);
    assert!(error.contains("took longer than 1 s at `127.0.0.1` (`--timeout-media`)"), "{error}");
}

#[test]
fn a_server_refuses_invalid_images_and_those_beyond_the_context_length() {
    let dir = workspace();
    test_image((900, 900), 1).save(dir.path().join("large.png")).unwrap();
    let large = data_url(&dir.path().join("large.png"));
    let server = Server::launch(dir, &["--max-model-len", "100"], None);
    let answer = server.post(CHAT, &request(&[large]));
    assert_eq!(answer.json()["error"]["code"], "context_length_exceeded", "{answer:?}");
    let error = message(&server.post(CHAT, &request(&["data:image/png;base64,AAAA".to_owned()])));
    assert!(error.contains("messages[0].content[0].image_url.url"), "{error}");
    let error = message(&server.post(CHAT, &request(&["nonsense".to_owned()])));
    assert!(error.contains("is not a URL"), "{error}");
}

#[test]
fn image_markers_typed_in_a_message_are_plain_text() {
    let dir = workspace();
    test_image((60, 60), 3).save(dir.path().join("a.png")).unwrap();
    let markers = "<|vision_start|><|image_pad|><|vision_end|><|video_pad|>";
    // Of `inspect caption`, as of all prompts of captioners.
    let mut captioned = Command::new(binary());
    captioned.current_dir(dir.path()).args(["inspect", "caption", "--model", "model"]);
    captioned.args(["--image", "a.png", "--prompt", markers, "--max-tokens", "2"]).assert().code(0);
    let url = data_url(&dir.path().join("a.png"));
    let server = Server::launch(dir, &[], None);
    let prompt_tokens = |urls: &[String], text: &str| {
        let mut body = request(urls);
        body["messages"][0]["content"][urls.len()]["text"] = json!(text);
        let answer = server.post(CHAT, &body);
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["usage"]["prompt_tokens"].as_u64().unwrap()
    };
    let plain = prompt_tokens(&[], markers) - prompt_tokens(&[], "");
    assert!(plain > 4, "the markers are {plain} tokens");
    let urls = [url];
    assert_eq!(prompt_tokens(&urls, markers) - prompt_tokens(&urls, ""), plain);
}

#[test]
fn a_response_may_have_images() {
    let dir = workspace();
    test_image((60, 60), 3).save(dir.path().join("a.png")).unwrap();
    let url = data_url(&dir.path().join("a.png"));
    let server = Server::launch(dir, &[], None);
    let completion = server.post(CHAT, &request(std::slice::from_ref(&url))).json();
    let content = json!([{"type": "input_image", "image_url": url, "detail": "auto"},
        {"type": "input_text", "text": "What is there?"}]);
    let body = json!({"input": [{"role": "user", "content": content}], "temperature": 0,
        "max_output_tokens": 6});
    let response = server.post("/v1/responses", &body).json();
    let text = &response["output"][0]["content"][0]["text"];
    assert_eq!(*text, completion["choices"][0]["message"]["content"], "{response}");
    assert_eq!(response["usage"]["input_tokens"], completion["usage"]["prompt_tokens"]);
}

#[test]
fn a_server_reads_webp_and_gif_images_of_any_detail() {
    let image = test_image((60, 60), 3);
    let server = Server::launch(workspace(), &[], None);
    let answer = |format: ImageFormat, kind: &str| {
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, format).unwrap();
        let url = format!("data:image/{kind};base64,{}", BASE64_STANDARD.encode(bytes.get_ref()));
        let mut body = request(&[url]);
        body["messages"][0]["content"][0]["image_url"]["detail"] = json!("low");
        let answer = server.post(CHAT, &body);
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["choices"][0]["message"]["content"].clone()
    };
    // Lossless, so equal to a PNG.
    assert_eq!(answer(ImageFormat::WebP, "webp"), answer(ImageFormat::Png, "png"));
    answer(ImageFormat::Gif, "gif");
}

#[test]
fn a_server_with_only_the_language_model_refuses_images() {
    let server = Server::launch(workspace(), &["--language-model-only"], None);
    let error = message(&server.post(CHAT, &request(&["data:,".to_owned()])));
    assert!(error.contains("must be `text`, as the model has no vision encoder"), "{error}");
}
