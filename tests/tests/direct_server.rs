//! `infer`, `eval` and `filter` with `--direct` and `--base-url`: a model on a server answers from images and video frames.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use embodied_r_test_server::{Response, Server};
use embodied_r_tests::{VisionModel, stderr_of, stdout_of, write_clip};
use image::{Rgb, RgbImage};
use serde_json::{Value, json};

use crate::direct::{embodied_r, read, write_lines};
use crate::serve::client::Server as ServeServer;

const INFER: [&str; 9] = [
    "infer",
    "--direct",
    "--data",
    "data.jsonl",
    "--output",
    "out.json",
    "--max-new-tokens",
    "6",
    "--model",
];

/// `infer` with a model at `url`.
fn infer(dir: &Path, url: &str, more: &[&str]) -> Command {
    embodied_r(dir, &[&INFER[..], &["tiny", "--base-url", url], more].concat())
}

fn answers(dir: &Path) -> Vec<Value> {
    read(&dir.join("out.json"))
}

fn write_records(dir: &Path, records: &[Value]) {
    write_lines(&dir.join("data.jsonl"), records);
}

/// An image of one gray level, which a JPEG file keeps exactly.
fn write_gray(path: &Path, (width, height): (u32, u32), level: u8) {
    RgbImage::from_pixel(width, height, Rgb([level; 3])).save(path).unwrap();
}

/// A video of 2 s whose frames become lighter.
fn write_video(path: &Path) {
    write_clip(
        "-f lavfi -i color=black:s=84x56:r=4:d=2,fade=in:0:8:color=white -pix_fmt yuv420p",
        path,
    );
}

fn question(text: &str, more: Value) -> Value {
    let mut record =
        json!({"problem": text, "answer": "A", "question_category": "Landmark Position"});
    record.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    record
}

#[test]
fn a_served_model_gives_the_answers_of_the_same_model_in_process() {
    let dir = tempfile::tempdir().unwrap();
    VisionModel::Nested.write(&dir.path().join("model"));
    for (name, size, level) in
        [("a.png", (56, 56), 0), ("b.png", (84, 56), 255), ("c.png", (700, 300), 90)]
    {
        write_gray(&dir.path().join(name), size, level);
    }
    write_records(
        dir.path(),
        &[
            question("<image>What is there?", json!({"images": ["a.png"]})),
            question("<image>What is there?", json!({"images": ["b.png"]})),
            question("Before <image>between<image> after", json!({"images": ["c.png", "a.png"]})),
            question(
                "<video>Then <image>?",
                json!({"images": ["b.png"], "videos": [{"frames": ["a.png", "a.png"], "fps": 2.0}]}),
            ),
        ],
    );
    let server = ServeServer::of(dir.path(), &[], None);
    let url = format!("http://{}/v1", server.address());
    // With this system prompt, the random model answers differently about black and white images.
    for more in [
        &["--system-prompt", "Think."][..],
        &["--system-prompt", "Think.", "--max-pixels", "20000"],
    ] {
        let local = [&INFER[..], &["model", "--frame-use", "images"], more].concat();
        stdout_of(&mut embodied_r(dir.path(), &local));
        let in_process = answers(dir.path());
        stdout_of(&mut infer(dir.path(), &url, more));
        assert_eq!(answers(dir.path()), in_process);
        let content = |index: usize| in_process[index]["content"].as_str().unwrap();
        assert!(content(0) != content(1), "the model does not see: {in_process:?}");
    }
    assert!(!dir.path().join("out.json.partial.jsonl").exists());
}

/// A server that answers A.
fn chat_api() -> Server {
    Server::chat(|_| Response::completion("<answer>A</answer>"))
}

/// What a request shows, in order: the text of a part, or the size and the first pixel of an image.
fn shown(message: &Value) -> Vec<String> {
    let Some(parts) = message["content"].as_array() else {
        return vec![message["content"].as_str().unwrap().to_owned()];
    };
    let part = |part: &Value| match part["type"].as_str().unwrap() {
        "text" => part["text"].as_str().unwrap().to_owned(),
        _ => {
            let url = part["image_url"]["url"].as_str().unwrap();
            let jpeg = url.strip_prefix("data:image/jpeg;base64,").unwrap();
            let image = image::load_from_memory(&BASE64_STANDARD.decode(jpeg).unwrap()).unwrap();
            format!("{}x{} {}", image.width(), image.height(), image.to_rgb8().get_pixel(0, 0)[0])
        }
    };
    parts.iter().map(part).collect()
}

#[test]
fn requests_have_images_and_frames_in_their_places() {
    let dir = tempfile::tempdir().unwrap();
    write_gray(&dir.path().join("a.png"), (56, 56), 10);
    write_gray(&dir.path().join("b.png"), (600, 300), 200);
    write_video(&dir.path().join("clip.mp4"));
    let messages = json!([
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "<image>Remember."},
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": "Now <image>?"},
    ]);
    write_records(
        dir.path(),
        &[
            question(
                "x",
                json!({"messages": messages, "images": ["a.png", "b.png"], "solution": "A"}),
            ),
            json!({"messages": [{"role": "user", "content": "<video>Where?"}], "videos": ["clip.mp4"],
                "solution": "A"}),
            json!({"messages": [{"role": "user", "content": "<video>When?"}], "videos": ["clip.mp4"],
                "solution": "B"}),
        ],
    );
    let server = chat_api();
    let more = [
        "--frames",
        "uniform=2",
        "--max-pixels",
        "100000",
        "--concurrency",
        "1",
        "--system-prompt",
        "Think.",
    ];
    stdout_of(&mut infer(dir.path(), &server.base_url(), &more));
    let requests = server.bodies();
    let shown = |request: &Value| -> Vec<(String, Vec<String>)> {
        let message =
            |message: &Value| (message["role"].as_str().unwrap().to_owned(), shown(message));
        request["messages"].as_array().unwrap().iter().map(message).collect()
    };
    let expected = |messages: &[(&str, &[&str])]| -> Vec<(String, Vec<String>)> {
        let texts = |parts: &[&str]| parts.iter().map(|part| (*part).to_owned()).collect();
        messages.iter().map(|(role, parts)| ((*role).to_owned(), texts(parts))).collect()
    };
    assert_eq!(requests.len(), 3);
    // 600 × 300 is reduced to multiples of 28 below 100,000 pixels, 56 × 56 stays.
    assert_eq!(
        shown(&requests[0]),
        expected(&[
            ("system", &["Be brief."]),
            ("user", &["56x56 10", "Remember."]),
            ("assistant", &["Yes."]),
            ("user", &["Now ", "420x196 200", "?"]),
        ])
    );
    let video = shown(&requests[1]);
    assert_eq!(video[0], ("system".to_owned(), vec!["Think.".to_owned()]));
    let [first, last, text] = &video[1].1[..] else { panic!("{video:?}") };
    let level = |frame: &str| frame.strip_prefix("84x56 ").unwrap().parse::<u8>().unwrap();
    assert!(level(first) > 200 && level(last) < 100, "{video:?}");
    assert_eq!(text, "Where?");
    assert_eq!(shown(&requests[2])[1].1, [first, last, "When?"]);
    assert_eq!(answers(dir.path())[2]["content"], "<answer>A</answer>");
}

#[test]
fn a_video_is_decoded_once_as_a_check_and_once_for_all_requests() {
    let dir = tempfile::tempdir().unwrap();
    write_video(&dir.path().join("clip.mp4"));
    let record =
        |index: usize| question(&format!("<video>{index}?"), json!({"videos": ["clip.mp4"]}));
    write_records(dir.path(), &(0..8).map(record).collect::<Vec<_>>());
    // An `ffmpeg` that counts its calls.
    let (programs, calls) = (dir.path().join("programs"), dir.path().join("calls"));
    fs::create_dir(&programs).unwrap();
    let path = std::env::var("PATH").unwrap();
    let script =
        format!("#!/bin/sh\necho x >> '{}'\nPATH='{path}' exec ffmpeg \"$@\"\n", calls.display());
    let program = programs.join("ffmpeg");
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{path}", programs.display());
    let server = chat_api();
    stdout_of(infer(dir.path(), &server.base_url(), &["--concurrency", "8"]).env("PATH", path));
    assert_eq!(fs::read_to_string(calls).unwrap().lines().count(), 2);
    let requests = server.bodies();
    assert_eq!(requests.len(), 8);
    assert!(
        requests
            .iter()
            .all(|it| shown(&it["messages"][1])[..8] == shown(&requests[0]["messages"][1])[..8])
    );
}

#[test]
fn an_image_that_changes_ends_the_run_which_resumes_with_its_question() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (dir.path().join("a.png"), dir.path().join("b.png"));
    write_gray(&first, (56, 56), 10);
    write_gray(&second, (56, 56), 20);
    let records = ["a.png", "b.png"].map(|name| question("<image>?", json!({"images": [name]})));
    write_records(dir.path(), &records);
    let other = dir.path().join("other.png");
    write_gray(&other, (56, 56), 30);
    let (changing, changed) = (second.clone(), other.clone());
    let server = Server::chat(move |request| {
        if request.index == 0 {
            fs::copy(&changed, &changing).unwrap();
        }
        Response::completion("<answer>A</answer>")
    });
    let mut run = infer(dir.path(), &server.base_url(), &["--concurrency", "1"]);
    let text = stderr_of(&mut run, 1);
    assert!(text.contains("error: cannot show question `1`: `"), "{text}");
    assert!(text.contains("b.png` has other pixels than at the start of the run"), "{text}");
    assert!(text.contains("hint: finished questions are kept"), "{text}");
    let text = stderr_of(&mut run, 0);
    assert!(text.contains("resuming: 1 of 2 questions are answered already"), "{text}");
    let requests = server.bodies();
    let images: Vec<String> =
        requests.iter().map(|it| shown(&it["messages"][1])[0].clone()).collect();
    assert_eq!(images, ["56x56 10", "56x56 30"]);
}

#[test]
fn eval_and_filter_show_a_server_the_images() {
    let dir = tempfile::tempdir().unwrap();
    write_gray(&dir.path().join("a.png"), (56, 56), 10);
    let wrong = json!({"images": ["a.png"], "answer": "B"});
    write_records(
        dir.path(),
        &[
            question("<image>Which? A. x B. y", json!({"images": ["a.png"]})),
            question("<image>What? A. x B. y", wrong),
        ],
    );
    let server = chat_api();
    let url = server.base_url();
    let model = ["--direct", "--data", "data.jsonl", "--model", "m", "--base-url", &url];
    let eval = [&["eval"], &model[..], &["--json", "--pass-at", "2"]].concat();
    let report: Value =
        serde_json::from_str(&stdout_of(&mut embodied_r(dir.path(), &eval))).unwrap();
    assert_eq!((&report["n"], &report["overall"]), (&json!(2), &json!(50.0)), "{report}");
    let filter = [&["filter"], &model[..], &["--output", "kept.json", "--tries", "2"]].concat();
    stdout_of(&mut embodied_r(dir.path(), &filter));
    let kept: Value =
        serde_json::from_slice(&fs::read(dir.path().join("kept.json")).unwrap()).unwrap();
    assert_eq!((kept.as_array().unwrap().len(), &kept[0]["answer"]), (1, &json!("B")));
    let requests = server.bodies();
    assert_eq!(requests.len(), 8);
    assert!(requests.iter().all(|it| shown(&it["messages"][1])[0] == "56x56 10"));
}

#[test]
fn a_captioned_question_is_shown_without_its_captions() {
    let dir = tempfile::tempdir().unwrap();
    write_video(&dir.path().join("clip.mp4"));
    let alone = "Question: Which? A. x B. y";
    let prompt = format!("Video content:\n<\nFrame 0: Observe: an elephant\n>\n{alone}");
    let record = |id: u32, question: &str, more: Value| {
        let mut record = json!({"Question_id": id, "video_id": "clip.mp4", "question": question, "answer": "B",
            "question_category": "Landmark Position", "videos": "clip.mp4"});
        record.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        record
    };
    // As `perceive` writes it, and as the paper's code does, which keeps no original question.
    let records = [
        record(1, &prompt, json!({"original_question": alone})),
        record(2, &prompt, json!({})),
        record(3, alone, json!({})),
    ];
    write_records(dir.path(), &records);
    let server = chat_api();
    let url = server.base_url();
    stdout_of(&mut infer(dir.path(), &url, &["--frames", "uniform=2"]));
    let model = ["--direct", "--data", "data.jsonl", "--model", "m", "--base-url", &url];
    let eval = [&["eval"], &model[..], &["--json"]].concat();
    stdout_of(&mut embodied_r(dir.path(), &eval));
    let filter = [&["filter"], &model[..], &["--output", "kept.json", "--tries", "1"]].concat();
    let filter = [&filter[..], &["--system-prompt-preset", "images"]].concat();
    stdout_of(&mut embodied_r(dir.path(), &filter));
    for request in server.bodies() {
        let texts = shown(&request["messages"][1]);
        assert_eq!(texts.last().unwrap(), alone, "{request}");
        assert!(!request.to_string().contains("elephant"), "{request}");
    }
    let requests = server.bodies();
    assert_eq!(requests.len(), 9);
    for (index, request) in requests.iter().enumerate() {
        let of = if index < 6 { "about a video. You see frames" } else { "about images." };
        let system = request["messages"][0]["content"].as_str().unwrap();
        assert!(system.contains(of), "{system}");
    }
    // The records that are written stay captioned.
    for (record, answer) in records[..2].iter().zip(answers(dir.path())) {
        assert_eq!(answer["question"], record["question"]);
        assert_eq!(answer["original_question"], record["original_question"]);
    }
    assert_eq!(read(&dir.path().join("kept.json"))[..2], records[..2]);
}

#[test]
fn the_system_prompt_follows_from_what_the_model_sees() {
    let dir = tempfile::tempdir().unwrap();
    write_video(&dir.path().join("clip.mp4"));
    write_gray(&dir.path().join("a.png"), (56, 56), 10);
    write_records(
        dir.path(),
        &[
            question("<video>Where?", json!({"videos": ["clip.mp4"]})),
            question("<image>Which side is longer?", json!({"images": ["a.png"]})),
        ],
    );
    let server = chat_api();
    let url = server.base_url();
    for more in [&[][..], &["--system-prompt-preset", "bearings"]] {
        let one = ["--frames", "uniform=2", "--concurrency", "1"];
        stdout_of(&mut infer(dir.path(), &url, &[&one[..], more].concat()));
    }
    let requests = server.bodies();
    let system = |index: usize| shown(&requests[index]["messages"][0]).concat();
    assert!(system(0).starts_with("You answer questions about a video. You see frames"));
    assert!(system(1).starts_with("You answer questions about images. First"));
    assert!(system(2).contains("told in words") && system(3) == system(2));
}

#[test]
fn what_a_server_cannot_be_shown_is_said_before_a_request() {
    let dir = tempfile::tempdir().unwrap();
    write_gray(&dir.path().join("a.png"), (56, 56), 10);
    fs::write(dir.path().join("broken.png"), b"no image").unwrap();
    let records =
        ["a.png", "broken.png"].map(|name| question("<image>?", json!({"images": [name]})));
    write_records(dir.path(), &records);
    let server = Server::chat(|_| Response::new(413, ""));
    let url = server.base_url();
    let text = stderr_of(&mut infer(dir.path(), &url, &["--frame-use", "video"]), 2);
    assert!(text.contains("a server gets the frames of a video as separate images"), "{text}");
    let text = stderr_of(&mut infer(dir.path(), &url, &["--min-pixels", "4000"]), 2);
    assert!(text.contains("`--min-pixels` belongs to a local model"), "{text}");
    for command in ["eval", "filter"] {
        let words = [command, "--direct", "--data", "data.jsonl", "--output", "o", "--model", "m"];
        let server = ["--base-url", &url, "--frame-use", "video"];
        let text = stderr_of(&mut embodied_r(dir.path(), &[&words[..], &server].concat()), 2);
        assert!(text.contains("`--frame-use video` belongs to a local model"), "{text}");
    }
    let text = stderr_of(&mut infer(dir.path(), &url, &[]), 1);
    assert!(text.contains("record 2 of `data.jsonl`") && text.contains("broken.png"), "{text}");
    assert_eq!(server.requests().len(), 0);
    let text = stderr_of(&mut infer(dir.path(), &url, &["--skip-bad-records"]), 1);
    assert!(text.contains("returned 413"), "{text}");
    assert!(text.contains("hint: show fewer or smaller frames"), "{text}");
}
