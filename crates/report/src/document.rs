//! The HTML document around the sections of a page.

use std::path::Path;

use crate::html::escape;

const STYLE: &str = include_str!("style.css");

/// A rendered page.
#[derive(Debug)]
pub struct Page {
    /// The whole document.
    pub html: String,
    /// Lines of `events.jsonl` that could not be parsed.
    pub skipped_lines: usize,
}

/// The HTML document: title, kind of page, a one-line summary, and the sections.
pub(crate) fn document(title: &str, kind: &str, note: &str, body: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{0} · embodied-r</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n\
         <p class=\"eyebrow\">embodied-r · {kind}</p>\n<h1>{0}</h1>\n\
         <p class=\"note\">{note}</p>\n{body}\
         <footer>Written by embodied-r {version}.</footer>\n</main>\n</body>\n</html>\n",
        escape(title),
        version = env!("CARGO_PKG_VERSION")
    )
}

/// The name of a run's folder.
pub(crate) fn folder_name(run: &Path) -> String {
    let absolute = std::path::absolute(run).unwrap_or_else(|_| run.to_path_buf());
    absolute
        .file_name()
        .map_or_else(|| "run".to_owned(), |name| name.to_string_lossy().into_owned())
}
