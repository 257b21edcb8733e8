//! Decoding the selected frames of an excerpt, and verifying its frame count.

use crate::Video;
use crate::decoder::{Decoder, PixelFormat, TrackSelection};
use crate::error::Result;
use crate::index::Excerpt;
use crate::limits::Limits;

/// The decoder of an excerpt.
pub(crate) struct ExcerptDecoder<'a> {
    video: &'a Video,
    decoder: Decoder,
    /// Whether the excerpt's last frame is output only to verify the count.
    has_extra: bool,
}

impl<'a> ExcerptDecoder<'a> {
    /// Starts decoding an excerpt of `video` to frames of a size and pixel format.
    pub(crate) fn start(
        video: &'a Video,
        excerpt: Excerpt,
        (size, format): ((u32, u32), PixelFormat),
        limits: &Limits,
    ) -> Result<Self> {
        // The last frame and any surplus frames are output too, to detect missing and extra frames.
        let last = excerpt.frames - 1;
        let select = format!("{}+gte(n,{last})", any_of(&excerpt.selected));
        let has_extra = excerpt.selected.last() != Some(&last);
        let selection = TrackSelection { select, size, format, max_frames: None };
        let decoder = Decoder::start_excerpt(video, excerpt, &selection, limits)?;
        Ok(Self { video, decoder, has_extra })
    }

    /// The next selected frame's pixels.
    pub(crate) fn next_frame(&mut self) -> Result<Option<Vec<u8>>> {
        self.decoder.next_frame()
    }

    /// Whether the excerpt decoded without errors and with the expected number of frames.
    pub(crate) fn finish(mut self) -> Result<bool> {
        let has_last = !self.has_extra || self.decoder.next_frame()?.is_some();
        let has_more = self.decoder.next_frame()?.is_some();
        let exit = self.decoder.finish(&self.video.path)?;
        let is_intact = has_last && !has_more && exit.success && exit.errors.is_empty();
        if !is_intact {
            let path = self.video.path.display();
            tracing::debug!("an excerpt of `{path}` does not match its index: {}", exit.reason());
        }
        Ok(is_intact)
    }
}

/// FFmpeg expression that is true for the sorted `indices`, with one term per run.
pub(crate) fn any_of(indices: &[usize]) -> String {
    let term = |run: &[usize]| match run {
        [] => "0".to_owned(),
        [only] => format!("eq(n,{only})"),
        [first, .., last] => format!("between(n,{first},{last})"),
    };
    let mut terms: Vec<String> = indices.chunk_by(|a, b| a + 1 == *b).map(term).collect();
    // A balanced tree: FFmpeg nests the terms of a sum, and rejects deep nesting.
    while terms.len() > 1 {
        terms = terms.chunks(2).map(|pair| format!("({})", pair.join("+"))).collect();
    }
    terms.pop().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_of_frames_is_one_term() {
        assert_eq!(any_of(&[0, 4, 5, 6, 9]), "((eq(n,0)+between(n,4,6))+(eq(n,9)))");
    }
}
