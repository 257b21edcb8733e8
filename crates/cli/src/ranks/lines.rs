//! Copies the ranks' output line by line, prefixed with the rank.

use std::collections::BTreeMap;
use std::io::{self, BufRead, IsTerminal, Read as _, Write};

use crate::terminal::escaped;

/// Longer lines are shown in pieces of this size.
const MAX_PIECE_BYTES: u64 = 16 << 20;

/// How the prefix is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PrefixStyle {
    Plain,
    Colored,
    /// No prefix, for output that programs read.
    Bare,
}

impl PrefixStyle {
    /// Colored at a terminal, unless `NO_COLOR` is set.
    pub(super) fn of(stream: &impl IsTerminal) -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        if wanted && stream.is_terminal() { Self::Colored } else { Self::Plain }
    }

    /// The prefix of `rank`, in one of six colors.
    fn prefix(self, rank: &str) -> String {
        let color = 31 + rank.bytes().fold(0, |sum, byte| (10 * sum + u32::from(byte)) % 6);
        match self {
            Self::Bare => String::new(),
            Self::Plain => format!("[{rank}] "),
            Self::Colored => format!("\u{1b}[{color}m[{rank}]\u{1b}[0m "),
        }
    }
}

/// The source of a pipe's lines.
#[derive(Debug, Clone)]
pub(super) enum Source {
    /// One rank.
    Rank(usize),
    /// All ranks, tagged by `mpirun --tag-output`, and `mpirun` itself.
    Tagged,
}

/// Copies lines until end of file, each in one write.
pub(super) fn copy(
    mut from: impl BufRead,
    mut to: impl Write,
    source: &Source,
    style: PrefixStyle,
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
                show(&mut to, rank.as_deref(), &std::mem::take(whole), style)?;
            }
        }
    }
    let left = incomplete.into_iter().filter(|(_, text)| !text.is_empty());
    for (rank, text) in left {
        show(&mut to, rank.as_deref(), &text, style)?;
    }
    Ok(())
}

fn show(
    to: &mut impl Write,
    rank: Option<&str>,
    text: &[u8],
    style: PrefixStyle,
) -> io::Result<()> {
    let prefix = rank.map(|rank| style.prefix(rank)).unwrap_or_default();
    let line = match style {
        PrefixStyle::Bare => text.to_owned(),
        // A rank's own words are escaped, but not those of the libraries that it uses.
        _ => format!("{prefix}{}", escaped(&String::from_utf8_lossy(text))).into_bytes(),
    };
    to.write_all(&line)?;
    to.flush()
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

    fn shown(text: &str, source: &Source, style: PrefixStyle) -> String {
        let mut shown = Vec::new();
        copy(text.as_bytes(), &mut shown, source, style).unwrap();
        String::from_utf8(shown).unwrap()
    }

    #[test]
    fn every_line_is_prefixed_with_its_rank() {
        assert_eq!(shown("a: b\nc", &Source::Rank(7), PrefixStyle::Plain), "[7] a: b\n[7] c");
        assert_eq!(shown("{}\n", &Source::Rank(0), PrefixStyle::Bare), "{}\n");
    }

    #[test]
    fn control_characters_are_escaped_except_in_output_for_programs() {
        let text = "\u{1b}[2J\u{7}\n";
        assert_eq!(shown(text, &Source::Rank(7), PrefixStyle::Plain), "[7] \\u001b[2J\\u0007\n");
        assert_eq!(shown(text, &Source::Rank(7), PrefixStyle::Bare), text);
    }

    #[test]
    fn tags_of_mpirun_become_prefixes_and_its_own_lines_stay() {
        let text = "[1,0]<stdout>:x\n[1,11]<stderr>:b\nmpirun: no\n[a,1]<stdout>:c\n";
        let expected = "[0] x\n[11] b\nmpirun: no\n[a,1]<stdout>:c\n";
        assert_eq!(shown(text, &Source::Tagged, PrefixStyle::Plain), expected);
    }

    #[test]
    fn a_line_in_pieces_is_shown_once_it_is_complete() {
        let text = "[1,0]<stderr>:error: [1,1]<stderr>:a\n[1,0]<stderr>:no\n[1,1]<stderr>:b";
        let expected = "[1] a\n[0] error: no\n[1] b";
        assert_eq!(shown(text, &Source::Tagged, PrefixStyle::Plain), expected);
    }

    #[test]
    fn adjacent_ranks_have_different_colors() {
        let first = shown("a\n", &Source::Rank(0), PrefixStyle::Colored);
        let second = shown("a\n", &Source::Rank(1), PrefixStyle::Colored);
        assert_eq!(first, "\u{1b}[31m[0]\u{1b}[0m a\n");
        assert_eq!(second, "\u{1b}[32m[1]\u{1b}[0m a\n");
    }
}
