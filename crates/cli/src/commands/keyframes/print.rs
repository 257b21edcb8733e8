//! What `embodied-r keyframes` prints: tables for people, lines of JSON for programs.

use std::io;
use std::path::Path;

use embodied_r_perception::Error;
use embodied_r_perception::keyframes::compare::Comparison;
use embodied_r_perception::keyframes::{Doubt, Options, SampledFrame, Selection, Why};
use serde::Serialize;

use crate::output::outln;

/// A video's line.
#[derive(Serialize)]
struct VideoLine<'a> {
    video: String,
    #[serde(flatten)]
    selection: &'a Selection,
}

/// The line of a video that could not be read.
#[derive(Serialize)]
struct ErrorLine {
    video: String,
    error: String,
}

/// The line of a pair of pictures.
#[derive(Serialize)]
struct PairLine {
    /// Row by row, B to A.
    homography: Option<[f64; 9]>,
    overlap: Option<f64>,
    matches: usize,
    inliers: usize,
    /// Why there is no homography.
    uncertain: Option<Doubt>,
}

pub(super) fn selection_json(path: &Path, selection: &Selection) -> anyhow::Result<()> {
    line(&VideoLine { video: path.display().to_string(), selection })
}

pub(super) fn error_json(path: &Path, error: &Error) -> anyhow::Result<()> {
    line(&ErrorLine { video: path.display().to_string(), error: error.to_string() })
}

pub(super) fn pair_json(comparison: &Comparison) -> anyhow::Result<()> {
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
pub(super) fn selection(path: &Path, selection: &Selection, options: &Options) -> io::Result<()> {
    outln!(
        "{}: {} frames at {:.2} a second, {} sampled, {} key frames",
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

/// Why a frame is a key frame or is not.
fn reason(frame: &SampledFrame, options: &Options) -> String {
    let threshold = percent(options.threshold);
    match frame.why {
        Why::First => "kept: the first frame".to_owned(),
        Why::Last => "kept: the last frame".to_owned(),
        Why::LittleOverlap => format!("kept: covers less than {threshold} of the last key frame"),
        Why::FewMatches | Why::NoHomography => {
            let doubt = frame.uncertain.map_or_else(String::new, |doubt| format!(", {doubt}"));
            format!("kept: uncertain how it lies over the last key frame{doubt}")
        }
        Why::FillsUp => {
            format!("kept: fills up to {} key frames, spread evenly", options.min_frames)
        }
        Why::SeenBefore => format!("covers {threshold} or more of the last key frame"),
        Why::GaveWay => {
            format!("gave way to {} key frames spread evenly", options.min_frames)
        }
        Why::ThinnedOut => format!("thinned out to {} key frames", options.max_frames),
        _ => String::new(),
    }
}

/// What was found of a pair of pictures.
pub(super) fn pair(a: &Path, b: &Path, comparison: &Comparison) -> io::Result<()> {
    let (a, b) = (a.display(), b.display());
    let Comparison { matches, inliers, .. } = comparison;
    let (Some(homography), Some(overlap)) = (comparison.homography, comparison.overlap) else {
        let doubt = comparison.uncertain.map_or_else(String::new, |doubt| format!(": {doubt}"));
        return outln!("uncertain how `{b}` lies over `{a}`, {matches} features match{doubt}");
    };
    outln!("`{b}` covers {} of `{a}`", percent(overlap))?;
    outln!("{matches} features match, {inliers} of them agree on this homography (B to A):")?;
    for row in homography.0.chunks(3) {
        outln!("  {}", row.iter().map(|h| format!("{h:>14.6e}")).collect::<Vec<_>>().join(" "))?;
    }
    Ok(())
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}
