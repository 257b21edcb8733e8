//! The wanted frames of an excerpt, and whether it decoded as it should.

use super::Video;
use super::decoder::{Decoder, Pixels, Wanted};
use super::index::Excerpt;
use super::limits::TimeLimit;
use crate::error::Result;

/// An excerpt that is being decoded.
pub(super) struct Reading<'a> {
    video: &'a Video,
    decoder: Decoder,
    /// Whether the excerpt's last frame is handed over for the count alone.
    has_extra: bool,
}

impl<'a> Reading<'a> {
    /// Starts decoding an excerpt of `video` to frames of a size and form.
    pub(super) fn start(
        video: &'a Video,
        excerpt: Excerpt,
        (size, pixels): ((u32, u32), Pixels),
        limit: TimeLimit,
    ) -> Result<Self> {
        // The last frame, and any that should not be there, are handed over, so that a frame too few
        // or too many shows.
        let last = excerpt.frames - 1;
        let select = format!("{}+gte(n,{last})", any_of(&excerpt.wanted));
        let has_extra = excerpt.wanted.last() != Some(&last);
        let wanted = Wanted { select, size, pixels, at_most: None };
        let decoder = Decoder::start_excerpt(video, excerpt, &wanted, limit)?;
        Ok(Self { video, decoder, has_extra })
    }

    /// The next wanted frame's pixels.
    pub(super) fn next_frame(&mut self) -> Result<Option<Vec<u8>>> {
        self.decoder.next_frame()
    }

    /// Whether, after the last wanted frame, the excerpt ends as it should and nothing was odd.
    pub(super) fn came_whole(mut self) -> Result<bool> {
        let has_last = !self.has_extra || self.decoder.next_frame()?.is_some();
        let has_more = self.decoder.next_frame()?.is_some();
        let ending = self.decoder.finish(&self.video.path)?;
        let is_whole = has_last && !has_more && ending.success && ending.complaints.is_empty();
        if !is_whole {
            let path = self.video.path.display();
            tracing::debug!(
                "an excerpt of `{path}` is not what its index says: {}",
                ending.reason()
            );
        }
        Ok(is_whole)
    }
}

/// FFmpeg expression that is true at the sorted `indices`, with one term for each run of them.
pub(super) fn any_of(indices: &[usize]) -> String {
    let term = |run: &[usize]| match run {
        [] => "0".to_owned(),
        [only] => format!("eq(n,{only})"),
        [first, .., last] => format!("between(n,{first},{last})"),
    };
    let mut terms: Vec<String> = indices.chunk_by(|a, b| a + 1 == *b).map(term).collect();
    // Added in pairs, since FFmpeg refuses sums of many terms: it nests them one in another.
    while terms.len() > 1 {
        terms = terms.chunks(2).map(|pair| format!("({})", pair.join("+"))).collect();
    }
    terms.pop().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_frames_are_one_term() {
        assert_eq!(any_of(&[0, 4, 5, 6, 9]), "((eq(n,0)+between(n,4,6))+(eq(n,9)))");
    }
}
