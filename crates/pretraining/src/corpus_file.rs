//! `embodied-r-pretrain corpus`.

use std::io::{self, BufWriter, Write};

use anyhow::Context as _;
use embodied_r_files::write_atomic_with;
use serde_json::json;

use crate::args::CorpusArgs;
use crate::corpus::{Document, chat_document};

/// Write a pretraining corpus.
pub(crate) fn run(args: CorpusArgs) -> anyhow::Result<()> {
    let Some(path) = &args.output else {
        let mut out = BufWriter::new(io::stdout().lock());
        return match write(&args, &mut out) {
            // The reader closed the pipe, as `head` does.
            Err(fault) if fault.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            outcome => outcome.context("cannot write to standard output"),
        };
    };
    write_atomic_with(path, |out| {
        write(&args, out).map_err(embodied_r_files::Error::io("write", path.as_path()))
    })?;
    Ok(())
}

fn write(args: &CorpusArgs, out: &mut dyn Write) -> io::Result<()> {
    for index in 0..args.documents {
        let Document { system, context, statements, .. } = chat_document(args.seed, index);
        let mut line = json!({ "prompt": context, "completion": statements });
        if let Some(system) = system {
            line["system"] = json!(system);
        }
        serde_json::to_writer(&mut *out, &line)?;
        out.write_all(b"\n")?;
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_the_document_of_its_index() {
        let args = CorpusArgs { documents: 8, seed: 1, output: None };
        let mut text = Vec::new();
        write(&args, &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert_eq!(text.lines().count(), 8);
        assert!(text.contains("\"system\""), "{text}");
        for (index, line) in (0..).zip(text.lines()) {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            let expected = chat_document(1, index);
            assert_eq!(line["prompt"], expected.context);
            assert_eq!(line["completion"], expected.statements);
            assert_eq!(line["system"].as_str(), expected.system);
        }
    }
}
