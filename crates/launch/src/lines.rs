//! Copies the ranks' output line by line.

use std::collections::BTreeMap;
use std::io::{self, BufRead, Read as _};

/// Longer lines are passed on in pieces of this size.
const MAX_PIECE_BYTES: u64 = 16 << 20;

/// Takes the lines that ranks print.
pub trait LineSink: Send {
    /// Takes a line with its end, or a piece of a very long one, of `rank`, or of the launcher itself.
    ///
    /// # Errors
    /// It cannot be written.
    fn line(&mut self, rank: Option<&str>, text: &[u8]) -> io::Result<()>;
}

/// The source of a pipe's lines.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// One rank.
    Rank(usize),
    /// All ranks, tagged by `mpirun --tag-output`, and `mpirun` itself.
    Tagged,
}

/// Copies lines until end of file, each in one write.
pub(crate) fn copy(
    mut from: impl BufRead,
    to: &mut dyn LineSink,
    source: &Source,
) -> io::Result<()> {
    let mut line = Vec::new();
    // Incomplete line of each rank.
    let mut incomplete: BTreeMap<Option<String>, Vec<u8>> = BTreeMap::new();
    loop {
        line.clear();
        if from.by_ref().take(MAX_PIECE_BYTES).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        let pieces = match source {
            Source::Rank(rank) => vec![(Some(rank.to_string()), line.as_slice())],
            Source::Tagged => untag(&line),
        };
        for (rank, piece) in pieces {
            let whole = incomplete.entry(rank.clone()).or_default();
            whole.extend_from_slice(piece);
            if whole.ends_with(b"\n") || whole.len() as u64 >= MAX_PIECE_BYTES {
                to.line(rank.as_deref(), &std::mem::take(whole))?;
            }
        }
    }
    let left = incomplete.into_iter().filter(|(_, text)| !text.is_empty());
    for (rank, text) in left {
        to.line(rank.as_deref(), &text)?;
    }
    Ok(())
}

/// The pieces of a line, by rank. `mpirun` writes `[1,2]<stderr>:` before each piece that rank 2 wrote, even in the
/// middle of a line; text before the first tag is its own.
fn untag(line: &[u8]) -> Vec<(Option<String>, &[u8])> {
    let (mut pieces, mut rank, mut from, mut at) = (Vec::new(), None, 0, 0);
    while at < line.len() {
        match tag(&line[at..]) {
            Some((next, length)) => {
                pieces.push((rank.replace(next), &line[from..at]));
                at += length;
                from = at;
            }
            None => at += 1,
        }
    }
    pieces.push((rank, &line[from..]));
    pieces.retain(|(_, piece)| !piece.is_empty());
    pieces
}

/// The rank of a tag at the start of `text`, and the tag's length.
fn tag(text: &[u8]) -> Option<(String, usize)> {
    let end = text.iter().take(48).position(|&byte| byte == b':')?;
    let tag = std::str::from_utf8(&text[..end]).ok()?;
    let (job, rank) = tag.strip_prefix('[')?.split_once(',')?;
    let (rank, stream) = rank.split_once(']')?;
    let numbers = [job, rank].iter().all(|text| text.parse::<u32>().is_ok());
    let known = ["<stdout>", "<stderr>"].contains(&stream);
    (numbers && known).then(|| (rank.to_owned(), end + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes each line after its rank in brackets.
    impl LineSink for Vec<u8> {
        fn line(&mut self, rank: Option<&str>, text: &[u8]) -> io::Result<()> {
            if let Some(rank) = rank {
                self.extend(format!("[{rank}] ").bytes());
            }
            self.extend(text);
            Ok(())
        }
    }

    fn shown(text: &str, source: &Source) -> String {
        let mut shown = Vec::new();
        copy(text.as_bytes(), &mut shown, source).unwrap();
        String::from_utf8(shown).unwrap()
    }

    #[test]
    fn every_line_has_its_rank() {
        assert_eq!(shown("a: b\nc", &Source::Rank(7)), "[7] a: b\n[7] c");
    }

    #[test]
    fn tags_of_mpirun_become_prefixes_and_its_own_lines_stay() {
        let text = "[1,0]<stdout>:x\n[1,11]<stderr>:b\nmpirun: no\n[a,1]<stdout>:c\n";
        let expected = "[0] x\n[11] b\nmpirun: no\n[a,1]<stdout>:c\n";
        assert_eq!(shown(text, &Source::Tagged), expected);
    }

    #[test]
    fn a_line_in_pieces_is_shown_once_it_is_complete() {
        let text = "[1,0]<stderr>:error: [1,1]<stderr>:a\n[1,0]<stderr>:no\n[1,1]<stderr>:b";
        let expected = "[1] a\n[0] error: no\n[1] b";
        assert_eq!(shown(text, &Source::Tagged), expected);
    }
}
