//! Message framing: a 4-byte length, then JSON. Bounded in size and time.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The size limit of a hello, which contains the settings.
pub(crate) const HELLO_LIMIT: usize = 256 << 10;
/// The size limit of all other messages.
pub(crate) const LIMIT: usize = 4 << 20;

/// A stream whose reads fail after a deadline, however slowly bytes arrive.
pub(crate) struct DeadlineReader<'a> {
    pub(crate) stream: &'a TcpStream,
    pub(crate) until: Instant,
}

impl Read for DeadlineReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        (&mut self.stream).read(buffer)
    }
}

/// Writes a message with a single call.
pub(crate) fn write(mut to: impl Write, message: &impl Serialize) -> io::Result<()> {
    let body = serde_json::to_vec(message)?;
    let length = u32::try_from(body.len()).ok().filter(|&length| length as usize <= LIMIT);
    let length = length.ok_or_else(|| io::Error::other("the message is too long"))?;
    let mut frame = length.to_le_bytes().to_vec();
    frame.extend(body);
    to.write_all(&frame)
}

/// Reads a message of at most `limit` bytes.
pub(crate) fn read<T: DeserializeOwned>(mut from: impl Read, limit: usize) -> io::Result<T> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > limit {
        let why = format!("a message of {length} bytes exceeds the limit of {limit}");
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body)?;
    serde_json::from_slice(&body).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_round_trips() {
        let mut wire = Vec::new();
        write(&mut wire, &("a", 1)).unwrap();
        assert_eq!(read::<(String, u8)>(&wire[..], 100).unwrap(), ("a".to_owned(), 1));
    }

    #[test]
    fn an_oversized_message_is_refused_before_it_is_read() {
        let wire = u32::MAX.to_le_bytes();
        let error = read::<String>(&wire[..], 100).unwrap_err();
        assert_eq!(error.to_string(), "a message of 4294967295 bytes exceeds the limit of 100");
    }

    #[test]
    fn invalid_json_is_an_error() {
        let wire = [2, 0, 0, 0, 0xff, 0xff];
        assert_eq!(read::<String>(&wire[..], 100).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
