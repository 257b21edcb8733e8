//! What ranks print, line by line behind their numbers.

use std::io::{self, BufRead, IsTerminal, Write};

/// Whether what is printed is for a person at a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Colour {
    Plain,
    Coloured,
}

impl Colour {
    /// Coloured at a terminal, unless `NO_COLOR` is set.
    pub(super) fn of(stream: &impl IsTerminal) -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        if wanted && stream.is_terminal() { Self::Coloured } else { Self::Plain }
    }

    /// `rank` in front of a line: six colours take turns.
    fn prefix(self, rank: &str) -> String {
        let colour = 31 + rank.bytes().fold(0, |sum, byte| (10 * sum + u32::from(byte)) % 6);
        match self {
            Self::Plain => format!("[{rank}] "),
            Self::Coloured => format!("\u{1b}[{colour}m[{rank}]\u{1b}[0m "),
        }
    }
}

/// Whose lines come through a pipe.
#[derive(Debug, Clone)]
pub(super) enum Source {
    /// One rank's.
    Rank(usize),
    /// Those of all ranks, as `mpirun --tag-output` marks them, and its own.
    Tagged,
}

/// Copies lines until the end, each at once and as a whole.
pub(super) fn copy(
    mut from: impl BufRead,
    mut to: impl Write,
    source: &Source,
    colour: Colour,
) -> io::Result<()> {
    let mut line = Vec::new();
    loop {
        line.clear();
        if from.read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        let rank = match source {
            Source::Rank(rank) => Some((rank.to_string(), line.as_slice())),
            Source::Tagged => untag(&line),
        };
        let shown = match rank {
            Some((rank, text)) => [colour.prefix(&rank).as_bytes(), text].concat(),
            None => line.clone(),
        };
        to.write_all(&shown)?;
        to.flush()?;
    }
}

/// The rank and the text of a line such as `[1,2]<stderr>:text`.
fn untag(line: &[u8]) -> Option<(String, &[u8])> {
    let end = line.iter().position(|&byte| byte == b':')?;
    let tag = std::str::from_utf8(&line[..end]).ok()?;
    let (job, rank) = tag.strip_prefix('[')?.split_once(',')?;
    let (rank, stream) = rank.split_once(']')?;
    let numbers = [job, rank].iter().all(|text| text.parse::<u32>().is_ok());
    let known = ["<stdout>", "<stderr>"].contains(&stream);
    (numbers && known).then(|| (rank.to_owned(), &line[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, source: &Source, colour: Colour) -> String {
        let mut shown = Vec::new();
        copy(text.as_bytes(), &mut shown, source, colour).unwrap();
        String::from_utf8(shown).unwrap()
    }

    #[test]
    fn a_rank_stands_before_each_of_its_lines() {
        assert_eq!(shown("a: b\nc", &Source::Rank(7), Colour::Plain), "[7] a: b\n[7] c");
    }

    #[test]
    fn marks_of_mpirun_become_ranks_and_its_own_words_stay() {
        let text = "[1,0]<stdout>:[1,2]<stderr>:x\n[1,11]<stderr>:b\nmpirun: no\n[a,1]<stdout>:c\n";
        let expected = "[0] [1,2]<stderr>:x\n[11] b\nmpirun: no\n[a,1]<stdout>:c\n";
        assert_eq!(shown(text, &Source::Tagged, Colour::Plain), expected);
    }

    #[test]
    fn neighbours_have_different_colours() {
        let first = shown("a\n", &Source::Rank(0), Colour::Coloured);
        let second = shown("a\n", &Source::Rank(1), Colour::Coloured);
        assert_eq!(first, "\u{1b}[31m[0]\u{1b}[0m a\n");
        assert_eq!(second, "\u{1b}[32m[1]\u{1b}[0m a\n");
    }
}
