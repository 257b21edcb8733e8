//! Frames of videos.

use std::collections::BTreeMap;
use std::path::PathBuf;

use embodied_r_video::{self as video, Limits, Timestamps, Video};
use image::RgbImage;

use super::parallel::try_for_each;
use super::{Sink, Wanted};
use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::rows::DataFile;
use crate::template::FileIndex;

/// How far the frame rate of a video may be from the data set's, as a share.
const MAX_FPS_ERROR: f64 = 0.01;

/// A file with videos of episodes, and the frames that are wanted of it.
struct File<'a> {
    path: PathBuf,
    camera: &'a str,
    wanted: Vec<Wanted>,
}

/// Calls `each` with the frames `wanted`.
pub(super) fn for_each<E: From<Error> + Send>(
    dataset: &Dataset,
    camera: &str,
    wanted: &[Wanted],
    tolerance_s: f64,
    each: Sink<'_, E>,
) -> Result<(), E> {
    let mut files: BTreeMap<Option<FileIndex>, Vec<Wanted>> = BTreeMap::new();
    for &(id, position) in wanted {
        let span = dataset.entries()[id.episode].videos.get(camera);
        files.entry(span.map(|span| span.file)).or_default().push((id, position));
    }
    let files = files.into_values().map(|wanted| {
        let path = dataset.video_path(camera, wanted[0].0.episode)?;
        Ok(File { path, camera, wanted })
    });
    let files: Vec<File<'_>> = files.collect::<Result<_>>()?;
    let times = timestamps(dataset, wanted)?;
    try_for_each(&files, |file| file.decode(dataset, &times, tolerance_s, each))
}

/// The times of the frames of each wanted episode.
fn timestamps(dataset: &Dataset, wanted: &[Wanted]) -> Result<BTreeMap<usize, Vec<f64>>> {
    let mut files: BTreeMap<FileIndex, Vec<usize>> = BTreeMap::new();
    let mut episodes: Vec<usize> = wanted.iter().map(|(id, _)| id.episode).collect();
    episodes.dedup();
    for episode in episodes {
        files.entry(dataset.entries()[episode].data).or_default().push(episode);
    }
    let mut times = BTreeMap::new();
    for (index, episodes) in files {
        let file = DataFile::open(dataset, index)?;
        let rows = file.read(&[], dataset.fps())?;
        for episode in episodes {
            file.rows_of(episode)?;
            times.insert(episode, rows.timestamps(episode).to_vec());
        }
    }
    Ok(times)
}

/// An error of this crate, or one of the function that receives the frames.
enum Stop<E> {
    Decoding(Error),
    Sink(E),
}

impl<E> From<video::Error> for Stop<E> {
    fn from(error: video::Error) -> Self {
        Self::Decoding(named(error))
    }
}

impl File<'_> {
    fn decode<E: From<Error>>(
        &self,
        dataset: &Dataset,
        times: &BTreeMap<usize, Vec<f64>>,
        tolerance_s: f64,
        each: Sink<'_, E>,
    ) -> Result<(), E> {
        let limits = Limits::default();
        let video = video::probe_within(&self.path, &limits).map_err(named)?;
        let mut indices = self.indices(dataset, times, &video, tolerance_s)?;
        indices.sort_unstable();
        let mut distinct: Vec<usize> = indices.iter().map(|(index, _)| *index).collect();
        distinct.dedup();
        let mut groups = indices.chunk_by(|a, b| a.0 == b.0);
        let decoded = video::for_each_frame(&video, &distinct, &limits, |frame: RgbImage| {
            let group = groups.next().unwrap_or_default();
            let Some(((_, position), others)) = group.split_last() else { return Ok(()) };
            for (_, other) in others {
                each(*other, frame.clone()).map_err(Stop::Sink)?;
            }
            each(*position, frame).map_err(Stop::Sink)
        });
        decoded.map_err(|stop| match stop {
            Stop::Decoding(error) => error.into(),
            Stop::Sink(error) => error,
        })
    }

    /// The wanted frames' indices in the file with their positions.
    fn indices(
        &self,
        dataset: &Dataset,
        times: &BTreeMap<usize, Vec<f64>>,
        video: &Video,
        tolerance_s: f64,
    ) -> Result<Vec<(usize, usize)>> {
        let stated = Timestamps::stated(video, &Limits::default()).map_err(named)?;
        let Some((stamps, frames)) = stated else {
            let reason = "has frames without timestamps".to_owned();
            return Err(Error::field(&self.path, self.camera, reason));
        };
        let fps = dataset.fps();
        // Of a single frame there is no rate.
        let video_fps = if frames > 1 { stamps.average_fps(frames) } else { fps };
        if (video_fps / fps - 1.0).abs() > MAX_FPS_ERROR {
            let reason = format!("has {video_fps:.3} fps, but `fps` of `meta/info.json` is {fps}");
            return Err(Error::field(&self.path, self.camera, reason));
        }
        let end_s = stamps.time_s(frames.saturating_sub(1));
        let mut indices = Vec::with_capacity(self.wanted.len());
        for of_episode in self.wanted.chunk_by(|(a, _), (b, _)| a.episode == b.episode) {
            let episode = of_episode[0].0.episode;
            let from_s =
                dataset.entries()[episode].videos.get(self.camera).map_or(0.0, |span| span.from_s);
            let times = times.get(&episode).map(Vec::as_slice).unwrap_or_default();
            let wrong = |reason| Err(Error::episode(&self.path, episode, self.camera, reason));
            let last_s = from_s + times.last().copied().unwrap_or(0.0);
            if last_s > end_s + tolerance_s.max(0.5 / fps) {
                return wrong(format!(
                    "has {} rows up to {last_s:.4} s, but the last frame of the video is at {end_s:.4} s",
                    times.len()
                ));
            }
            for (id, position) in of_episode {
                let time_s = from_s + times.get(id.frame).copied().unwrap_or(f64::INFINITY);
                let index = stamps.nearest(time_s, frames);
                let found_s = stamps.time_s(index);
                if (found_s - time_s).abs() > tolerance_s {
                    return wrong(format!(
                        "has frame {} at {time_s:.4} s, but the nearest frame of the video is at \
                         {found_s:.4} s, farther than the tolerance of {tolerance_s} s",
                        id.frame
                    ));
                }
                indices.push((index, *position));
            }
        }
        Ok(indices)
    }
}

/// The error, with the codec if FFmpeg has no decoder of it.
fn named(error: video::Error) -> Error {
    let reason = match &error {
        video::Error::Decode { path, reason } | video::Error::Damaged { path, reason, .. } => {
            Some((path, reason))
        }
        _ => None,
    };
    match reason.and_then(|(path, reason)| Some((path, missing_decoder(reason)?))) {
        Some((path, codec)) => {
            let package = match codec.as_str() {
                "av1" => "libdav1d",
                "hevc" | "h264" => "its H.264 and H.265 decoders (packages of restricted codecs)",
                _ => "a decoder of it",
            };
            Error::Decoder { path: path.clone(), codec, package }
        }
        None => Error::Video(error),
    }
}

/// The codec that FFmpeg says it cannot decode.
fn missing_decoder(reason: &str) -> Option<String> {
    // "Decoder (codec av1) not found for input stream #0:0"
    if let Some((_, rest)) = reason.split_once("Decoder (codec ") {
        return rest.split_once(')').map(|(codec, _)| codec.to_owned());
    }
    // What FFmpeg's own AV1 decoder, which needs a GPU, says without one.
    let needs_gpu = reason.contains("support hardware accelerated AV1 decoding");
    needs_gpu.then(|| "av1".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_decoder_is_named_with_what_to_install() {
        for (reason, codec, package) in [
            ("Decoder (codec av1) not found for input stream #0:0", "`av1`", "libdav1d"),
            (
                "Your platform doesn't support hardware accelerated AV1 decoding",
                "`av1`",
                "libdav1d",
            ),
            ("Decoder (codec hevc) not found for input stream #0:0", "`hevc`", "H.265"),
        ] {
            let path = PathBuf::from("file-000.mp4");
            let error = named(video::Error::Decode { path, reason: reason.to_owned() }).to_string();
            let parts = [codec, package, "`file-000.mp4`"];
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        }
    }

    #[test]
    fn other_errors_of_ffmpeg_are_kept() {
        let reason = "Invalid data found".to_owned();
        let error = named(video::Error::Decode { path: "a.mp4".into(), reason });
        assert!(matches!(error, Error::Video(_)), "{error}");
    }
}
