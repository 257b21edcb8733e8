//! Output of `embodied-r keyframes`: tables, or JSON lines.

use std::io;
use std::path::Path;

use embodied_r_keyframes::compare::FrameComparison;
use embodied_r_keyframes::{
    Decision, Error, HomographyFailure, KeyFrameOptions, SampledFrame, Selection,
};
use serde::Serialize;

use crate::output::outln;

/// A video's line.
#[derive(Serialize)]
struct VideoLine<'a> {
    video: String,
    #[serde(flatten)]
    selection: &'a Selection,
}

/// The line of an unreadable video.
#[derive(Serialize)]
struct ErrorLine {
    video: String,
    error: String,
}

/// The line of a pair of images.
#[derive(Serialize)]
struct PairLine {
    /// Row-major, B to A.
    homography: Option<[f64; 9]>,
    overlap: Option<f64>,
    matches: usize,
    inliers: usize,
    /// Why there is no homography.
    uncertain: Option<HomographyFailure>,
}

pub(super) fn selection_json(path: &Path, selection: &Selection) -> anyhow::Result<()> {
    line(&VideoLine { video: path.display().to_string(), selection })
}

pub(super) fn error_json(path: &Path, error: &Error) -> anyhow::Result<()> {
    line(&ErrorLine { video: path.display().to_string(), error: error.to_string() })
}

pub(super) fn pair_json(comparison: &FrameComparison) -> anyhow::Result<()> {
    line(&PairLine {
        homography: comparison.homography.map(|homography| homography.0),
        overlap: comparison.overlap,
        matches: comparison.matches,
        inliers: comparison.inliers,
        uncertain: comparison.uncertain,
    })
}

fn line(object: &impl Serialize) -> anyhow::Result<()> {
    Ok(outln!("{}", serde_json::to_string(object)?)?)
}

pub(super) fn error(error: &Error) {
    eprintln!("error: {error}");
}

/// A table of the sampled frames of a video.
pub(super) fn selection(
    path: &Path,
    selection: &Selection,
    options: &KeyFrameOptions,
) -> io::Result<()> {
    outln!(
        "{}: {} frames at {:.2} fps, {} sampled, {} key frames",
        path.display(),
        selection.frames,
        selection.fps,
        selection.sampled.len(),
        selection.keyframes.len()
    )?;
    outln!("{:>9} {:>8} {:>8} {:>8} {:>8}", "frame", "time", "overlap", "matches", "inliers")?;
    for frame in &selection.sampled {
        let overlap = frame.overlap.map_or("-".to_owned(), percent);
        outln!(
            "{} {:>7} {:>6.1} s {overlap:>8} {:>8} {:>8}  {}",
            if frame.kept { '*' } else { ' ' },
            frame.index,
            frame.time_s,
            frame.matches,
            frame.inliers,
            reason(frame, options)
        )?;
    }
    let keyframes: Vec<String> = selection.keyframes.iter().map(usize::to_string).collect();
    outln!("key frames: {}\n", keyframes.join(" "))
}

/// Why a frame is or is not a key frame.
fn reason(frame: &SampledFrame, options: &KeyFrameOptions) -> String {
    let threshold = percent(options.threshold);
    match frame.decision {
        Decision::First => "kept: the first frame".to_owned(),
        Decision::Last => "kept: the last frame".to_owned(),
        Decision::LowOverlap => {
            format!("kept: overlaps the last key frame by less than {threshold}")
        }
        Decision::FewMatches | Decision::NoHomography => {
            let doubt = frame.uncertain.map_or_else(String::new, |doubt| format!(", {doubt}"));
            format!("kept: no reliable homography to the last key frame{doubt}")
        }
        Decision::FilledUp => {
            format!(
                "kept: evenly spaced, to reach the minimum of {} key frames",
                options.min_frames
            )
        }
        Decision::Redundant => format!("overlaps the last key frame by {threshold} or more"),
        Decision::Replaced => {
            format!(
                "replaced by evenly spaced key frames, to reach the minimum of {}",
                options.min_frames
            )
        }
        Decision::Subsampled => format!("dropped to limit key frames to {}", options.max_frames),
        _ => String::new(),
    }
}

/// The comparison of a pair of images.
pub(super) fn pair(a: &Path, b: &Path, comparison: &FrameComparison) -> io::Result<()> {
    let (a, b) = (a.display(), b.display());
    let FrameComparison { matches, inliers, .. } = comparison;
    let (Some(homography), Some(overlap)) = (comparison.homography, comparison.overlap) else {
        let doubt = comparison.uncertain.map_or_else(String::new, |doubt| format!(": {doubt}"));
        return outln!("no reliable homography from `{b}` to `{a}`, {matches} matches{doubt}");
    };
    outln!("`{b}` overlaps {} of `{a}`", percent(overlap))?;
    outln!("{matches} matches, {inliers} inliers of this homography (B to A):")?;
    for row in homography.0.chunks(3) {
        outln!("  {}", row.iter().map(|h| format!("{h:>14.6e}")).collect::<Vec<_>>().join(" "))?;
    }
    Ok(())
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}
