//! Models and data sets by path or by name on the hub, with the progress of downloads on standard error.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use embodied_r_lerobot::Info;
use embodied_r_policy::hub::{DownloadProgress, Hub, Needs};
use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::terminal::escaped;

/// Interval between plain lines.
const LINES_EVERY: Duration = Duration::from_secs(20);
/// Smaller files get no plain line.
const LARGE: u64 = 10 << 20;

/// The local path of a decoder, or of an adapter with its base model.
///
/// # Errors
/// There is no such model, or it cannot be downloaded.
pub(crate) fn decoder(model: &str, revision: Option<&str>) -> embodied_r_policy::Result<PathBuf> {
    hub().resolve(model, revision, Needs::Decoder)
}

/// The local path of a decoder and its vision encoder, if it has one.
///
/// # Errors
/// As [`decoder`].
pub(crate) fn with_vision_encoder(
    model: &str,
    revision: Option<&str>,
) -> embodied_r_policy::Result<PathBuf> {
    hub().resolve(model, revision, Needs::VisionEncoder)
}

/// The local path of an adapter.
///
/// # Errors
/// As [`decoder`].
pub(crate) fn adapter(adapter: &str) -> embodied_r_policy::Result<PathBuf> {
    hub().resolve(adapter, None, Needs::Adapter)
}

/// The local directory of a LeRobot data set. Of one on the hub, all columns and the videos of `camera` are downloaded;
/// without a name, those of the camera that is chosen by default.
///
/// # Errors
/// There is no such data set, or it cannot be downloaded.
pub(crate) fn dataset(
    dataset: &str,
    revision: Option<&str>,
    camera: Option<&str>,
) -> anyhow::Result<PathBuf> {
    const INFO: &str = "meta/info.json";
    hub().resolve_dataset(dataset, revision, INFO, |path| {
        let info = Info::parse(path, &embodied_r_files::read_text(path)?)?;
        let features = info.features().iter();
        let cameras: Vec<&str> = features
            .filter(|(_, feature)| feature.is_camera())
            .map(|(key, _)| key.as_str())
            .collect();
        let chosen = embodied_r_robot::columns::camera(&cameras, camera)?;
        Ok(info.needed_files(&[chosen.as_str()]))
    })
}

fn hub() -> Hub {
    // The ranks of a machine share a cache, and one report is enough.
    match embodied_r_launch::is_first() {
        true => Hub::from_env().with_progress(Arc::new(Shown::default())),
        false => Hub::from_env(),
    }
}

/// Shows downloads: a bar on a terminal, plain lines elsewhere.
#[derive(Default)]
struct Shown {
    current: Mutex<Option<Current>>,
}

struct Current {
    file: String,
    bytes: u64,
    bar: ProgressBar,
    /// When the last plain line was written; `None` on a terminal.
    line: Option<Instant>,
}

impl Shown {
    fn current(&self) -> std::sync::MutexGuard<'_, Option<Current>> {
        self.current.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl DownloadProgress for Shown {
    fn start(&self, file: &str, bytes: u64, present: u64) {
        let is_terminal = std::io::stderr().is_terminal();
        let bar = ProgressBar::with_draw_target(Some(bytes), ProgressDrawTarget::hidden());
        if is_terminal {
            let style = ProgressStyle::with_template(
                "downloading {prefix} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta}",
            );
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_prefix(escaped(file).into_owned());
            bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(5));
        } else if bytes >= LARGE {
            let present = match present {
                0 => String::new(),
                present => format!(", {} present", HumanBytes(present)),
            };
            eprintln!("downloading {file}: {}{present}", HumanBytes(bytes));
        }
        bar.set_position(present);
        // The rate is that of this download.
        bar.reset_eta();
        let line = (!is_terminal).then(Instant::now);
        *self.current() = Some(Current { file: file.to_owned(), bytes, bar, line });
    }

    fn position(&self, bytes: u64) {
        if let Some(current) = self.current().as_mut() {
            current.bar.set_position(bytes);
            if current.line.is_some_and(|line| line.elapsed() >= LINES_EVERY) {
                current.line = Some(Instant::now());
                let (done, all) = (HumanBytes(bytes), HumanBytes(current.bytes));
                eprintln!("downloading {}: {done} of {all}", current.file);
            }
        }
    }

    fn warn(&self, text: &str) {
        match self.current().as_ref() {
            Some(current) => current.bar.suspend(|| eprintln!("warning: {text}")),
            None => eprintln!("warning: {text}"),
        }
    }

    fn finish(&self) {
        if let Some(current) = self.current().take() {
            current.bar.finish_and_clear();
        }
    }
}
