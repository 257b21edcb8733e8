//! What the blind model is asked.

/// A multiple-choice question without its captions.
pub(super) struct BlindQuestion<'a> {
    /// Its index in the question set.
    pub(super) index: usize,
    pub(super) id: String,
    pub(super) category: &'a str,
    /// The prompt without captions.
    pub(super) text: &'a str,
    /// The correct option.
    pub(super) answer: char,
}
