//! A file's hash, which the hub sends as its ETag.

use std::io::{self, Read};

use sha1::Sha1;
use sha2::{Digest, Sha256};

/// The hash of a file, piece by piece.
pub(super) enum Checksum {
    /// Large files (Git LFS): SHA-256.
    Sha256(Sha256),
    /// Small files: SHA-1 of a Git blob, which starts with its length.
    GitBlob(Sha1),
    /// The ETag is no hash.
    Unknown,
}

impl Checksum {
    /// The kind of hash that `etag` is, of a file of `size` bytes.
    pub(super) fn of(etag: &str, size: u64) -> Self {
        let is_hex = etag.bytes().all(|byte| byte.is_ascii_hexdigit());
        match etag.len() {
            64 if is_hex => Self::Sha256(Sha256::new()),
            40 if is_hex => Self::GitBlob(Sha1::new_with_prefix(format!("blob {size}\0"))),
            _ => Self::Unknown,
        }
    }

    pub(super) fn update(&mut self, piece: &[u8]) {
        match self {
            Self::Sha256(hash) => hash.update(piece),
            Self::GitBlob(hash) => hash.update(piece),
            Self::Unknown => {}
        }
    }

    /// Adds all that `from` has.
    pub(super) fn update_from(&mut self, mut from: impl Read) -> io::Result<()> {
        if matches!(self, Self::Unknown) {
            return Ok(());
        }
        let mut piece = vec![0; 1 << 20];
        loop {
            match from.read(&mut piece)? {
                0 => return Ok(()),
                length => self.update(&piece[..length]),
            }
        }
    }

    /// The hash in hexadecimal, if there is one.
    pub(super) fn finish(self) -> Option<String> {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        match self {
            Self::Sha256(hash) => Some(hex(&hash.finalize())),
            Self::GitBlob(hash) => Some(hex(&hash.finalize())),
            Self::Unknown => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(etag: &str, text: &[u8]) -> Option<String> {
        let mut checksum = Checksum::of(etag, text.len() as u64);
        let (first, rest) = text.split_at(text.len() / 2);
        checksum.update(first);
        checksum.update_from(rest).unwrap();
        checksum.finish()
    }

    #[test]
    fn hashes_are_those_of_git_and_sha256sum() {
        // `git hash-object` and `sha256sum` of the text.
        let git = "ce013625030ba8dba906f756967f9e9ca394464a";
        let sha256 = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
        assert_eq!(hash(git, b"hello\n").unwrap(), git);
        assert_eq!(hash(sha256, b"hello\n").unwrap(), sha256);
        assert_eq!(hash("some-other-tag", b"hello\n"), None);
    }
}
