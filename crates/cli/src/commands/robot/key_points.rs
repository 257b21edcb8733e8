//! `embodied-r robot questions --show-keypoints`: contact sheets and plots of demonstrations.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::Path;

use embodied_r_files::write_atomic;
use embodied_r_keyframes::contact_sheet::{self, Cell};
use embodied_r_lerobot::Dataset;
use embodied_r_robot::{Cause, Error, Prepared, Settings, plot};
use image::ImageFormat;

/// The directory below the output.
const FOLDER: &str = "keypoints";

/// Writes the contact sheets and plots of the first `shown` demonstrations of each task into `folder`; none if `None`.
///
/// # Errors
/// A frame cannot be decoded, or a file cannot be written.
pub(super) fn write(
    prepared: &Prepared,
    dataset: &Dataset,
    settings: &Settings,
    shown: Option<usize>,
    folder: &Path,
) -> Result<(), Error> {
    let folder = folder.join(FOLDER);
    let mut of_task: BTreeMap<&str, usize> = BTreeMap::new();
    for (demonstration, key_points) in prepared.demonstrations.iter().zip(&prepared.key_points) {
        let done = of_task.entry(demonstration.task(0)).or_default();
        if *done >= shown.unwrap_or_default() {
            continue;
        }
        *done += 1;
        let name = format!("episode_{:06}", demonstration.episode);
        let svg = plot(demonstration, key_points, settings.questions.stride);
        write_atomic(&folder.join(format!("{name}.svg")), svg.as_bytes())?;
        // The first frame, for comparison.
        let frames: Vec<usize> =
            std::iter::once(0).chain(key_points.iter().map(|it| it.frame)).collect();
        let images = dataset.frames(&prepared.columns.camera, demonstration.episode, &frames)?;
        let causes =
            std::iter::once("first frame").chain(key_points.iter().map(|it| match it.cause {
                Cause::Gripper => "gripper",
                Cause::Stop => "stop",
                Cause::End => "end",
            }));
        let cells = images.iter().zip(&frames).zip(causes).map(|((image, frame), cause)| Cell {
            image,
            label: format!("#{frame} {:.1}s", *frame as f64 / prepared.fps),
            note: cause,
            is_outlined: *frame > 0,
        });
        let title = format!("episode {}: {}", demonstration.episode, demonstration.title());
        let sheet = contact_sheet::sheet(&title, &cells.collect::<Vec<_>>());
        let mut png = Cursor::new(Vec::new());
        let path = folder.join(format!("{name}.png"));
        sheet.write_to(&mut png, ImageFormat::Png).map_err(|fault| {
            embodied_r_files::Error::io("write", path.as_path())(std::io::Error::other(fault))
        })?;
        write_atomic(&path, png.get_ref())?;
    }
    Ok(())
}
