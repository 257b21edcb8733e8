//! A folder with a data file and its videos, and the command run in it.

use std::path::PathBuf;
use std::process::Command;

use embodied_r_data::scene::{Pose, Scene, SceneObject};
use serde_json::{Value, json};

use super::server::Server;

pub(crate) struct Workspace {
    folder: tempfile::TempDir,
}

/// The result of a run.
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A question about the first video.
pub(crate) fn question(id: u32, word: &str) -> Value {
    json!({"Question_id": id, "video_id": "room.mp4", "question_category": "object_rel_distance",
        "question": format!("Question: {word}?\n\nChoices:\nA. yes\nB. no"), "answer": "A",
        "scene_name": "room"})
}

/// A question about the second video.
pub(crate) fn other_video(id: u32, word: &str) -> Value {
    let mut question = question(id, word);
    question["video_id"] = json!("hall.mp4");
    question
}

/// A question about the third video.
pub(crate) fn third_video(id: u32, word: &str) -> Value {
    let mut question = question(id, word);
    question["video_id"] = json!("yard.mp4");
    question
}

impl Workspace {
    /// Writes `complete/train_data.json` with these questions, and their videos of 3 s at 4 fps. A video
    /// has 4 key frames whatever it shows, which is the minimum and the number of sampled frames.
    pub(crate) fn new(questions: &[Value]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let workspace = Self { folder };
        std::fs::create_dir_all(workspace.path("complete/videos")).unwrap();
        workspace.write_questions(questions);
        for (name, source) in [("room", "testsrc"), ("hall", "testsrc2"), ("yard", "rgbtestsrc")] {
            let named = |question: &Value| question["video_id"] == format!("{name}.mp4");
            if questions.iter().any(named) {
                workspace.write_video(name, source);
            }
        }
        workspace
    }

    fn write_video(&self, name: &str, source: &str) {
        let status = Command::new("ffmpeg")
            .args(["-loglevel", "error", "-f", "lavfi", "-i"])
            .arg(format!("{source}=size=64x48:rate=4:duration=3"))
            .args(["-pix_fmt", "yuv420p"])
            .arg(self.path(&format!("complete/videos/{name}.mp4")))
            .status()
            .unwrap();
        assert!(status.success());
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write_questions(&self, questions: &[Value]) {
        let text = serde_json::to_string_pretty(questions).unwrap();
        std::fs::write(self.path("complete/train_data.json"), text).unwrap();
    }

    pub(crate) fn set_answer(&self, answer: &str) {
        let mut changed = question(1, "one");
        changed["answer"] = json!(answer);
        self.write_questions(&[changed]);
    }

    /// `scenes/room.json`, with a red lamp 3 m ahead of a static camera.
    pub(crate) fn add_scene(&self) {
        let lamp = SceneObject {
            name: "red lamp".into(),
            center_m: [3.0, 0.0, 0.5],
            size_m: [0.3, 0.3, 1.0],
        };
        let scene = Scene {
            scene_name: "room".into(),
            video_id: "room.mp4".into(),
            fps: 4.0,
            room_size_m: [6.0, 6.0, 3.0],
            horizontal_fov_deg: 60.0,
            max_range_m: 9.0,
            objects: vec![lamp],
            camera: vec![Pose { position_m: [0.0, 0.0, 1.5], yaw_deg: 0.0 }; 12],
        };
        scene.write(&self.path("scenes/room.json")).unwrap();
    }

    /// The command on the data file, without a server.
    fn bare(&self, args: &[&str]) -> Command {
        let mut command = Command::new(embodied_r_tests::binary());
        command
            .current_dir(self.folder.path())
            .env_remove("OPENAI_API_KEY")
            .env("NO_PROXY", "127.0.0.1")
            .args(["perceive", "--data", "complete/train_data.json"])
            .args(args);
        if !args.contains(&"--output") {
            command.args(["--output", "inter"]);
        }
        command
    }

    /// `perceive merge` with these shard folders.
    pub(crate) fn run_merge(&self, shards: &[&str]) -> Run {
        let mut command = Command::new(embodied_r_tests::binary());
        command.current_dir(self.folder.path()).args(["perceive", "merge"]).args(shards);
        command.args(["--data", "complete/train_data.json", "--output", "inter"]);
        finish(command)
    }

    pub(crate) fn command(&self, server: &Server, args: &[&str]) -> Command {
        self.command_at(&server.base_url(), args)
    }

    /// The command with the server at `base_url`. Arguments that start with `http` are further base URLs.
    pub(crate) fn command_at(&self, base_url: &str, args: &[&str]) -> Command {
        let mut command = self.bare(&["--base-url", base_url]);
        let (urls, flags): (Vec<&str>, Vec<&str>) =
            args.iter().copied().partition(|arg| arg.starts_with("http"));
        if !urls.is_empty() {
            command = self.bare(&[&["--base-url", base_url], urls.as_slice()].concat());
        }
        command.args(flags);
        command
    }

    pub(crate) fn run(&self, server: &Server, args: &[&str]) -> Run {
        finish(self.command(server, args))
    }

    pub(crate) fn run_bare(&self, args: &[&str]) -> Run {
        finish(self.bare(args))
    }

    /// The captioned questions.
    pub(crate) fn output(&self) -> Vec<Value> {
        let text = std::fs::read(self.path("inter/train_data.json")).unwrap();
        serde_json::from_slice(&text).unwrap()
    }

    /// The complete lines of the log; empty without a log.
    pub(crate) fn log(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.path("inter/train_data.captions.jsonl"));
        let text = text.unwrap_or_default();
        let lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        lines.map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The number of responses in the cache.
    pub(crate) fn cached(&self) -> usize {
        let Ok(files) = std::fs::read_dir(self.path("inter/cache")) else { return 0 };
        let text =
            |file: std::fs::DirEntry| std::fs::read_to_string(file.path()).unwrap_or_default();
        files.flatten().map(|file| text(file).matches('\n').count()).sum()
    }

    /// The text of all output files.
    pub(crate) fn all_outputs(&self) -> String {
        text_of(&self.path("inter"))
    }
}

/// The text of all files under a folder.
fn text_of(folder: &std::path::Path) -> String {
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let text = |path: PathBuf| match path.is_dir() {
        true => text_of(&path),
        false => std::fs::read_to_string(path).unwrap(),
    };
    paths.map(text).collect()
}

fn finish(mut command: Command) -> Run {
    let output = command.output().unwrap();
    Run {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
