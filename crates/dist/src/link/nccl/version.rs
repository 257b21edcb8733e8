//! Versions of NCCL.

use std::fmt;

/// A version of NCCL.
#[cfg_attr(not(feature = "nccl"), expect(unreachable_pub, reason = "exported with GPUs"))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct NcclVersion {
    /// Major.
    pub major: u32,
    /// Minor.
    pub minor: u32,
    /// Patch.
    pub patch: u32,
}

impl NcclVersion {
    /// From the number that `ncclGetVersion` returns, which has had more digits since 2.9 (`NCCL_VERSION` in `nccl.h`).
    pub(crate) fn of(code: i32) -> Self {
        let code = code.unsigned_abs();
        let major = if code < 10_000 { 1_000 } else { 10_000 };
        Self { major: code / major, minor: code % major / 100, patch: code % 100 }
    }
}

impl fmt::Display for NcclVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_before_and_since_2_9_are_read_and_ordered() {
        let codes = [2_804, 20_903, 21_403, 22_809];
        let versions = codes.map(NcclVersion::of);
        assert!(versions.is_sorted());
        assert_eq!(versions.map(|it| it.to_string()), ["2.8.4", "2.9.3", "2.14.3", "2.28.9"]);
    }
}
