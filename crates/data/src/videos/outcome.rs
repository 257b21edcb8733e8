//! What placing a video did.

/// Whether a video had to be placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PlaceOutcome {
    /// Newly placed.
    New,
    /// Already in place.
    AlreadyPresent,
}
