//! The size of a patch.

/// The size of a patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patch {
    /// Side in pixels.
    pub side: usize,
    /// Frames.
    pub frames: usize,
    /// Patches per token, along each side.
    pub merge: usize,
}

impl Patch {
    /// The fields of a processor's file that say its size.
    pub(super) fn fields(&self) -> [(&'static str, usize); 3] {
        [
            ("patch_size", self.side),
            ("temporal_patch_size", self.frames),
            ("merge_size", self.merge),
        ]
    }
}
