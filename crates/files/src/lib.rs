//! Files and folders that are complete or absent.
//!
//! - [`write_atomic`] and others: atomic writes, to a temporary file that is then renamed.
//! - [`Staging`]: folders that are filled under a hidden name and then renamed.
//! - [`read_text`]: bounded reads of files that users write.
//! - [`append`](mod@append): files that are appended to.
//! - [`journal`]: JSON lines from which interrupted work resumes.
//! - [`lock`](mod@lock): locks on files.
//!
//! ```
//! use embodied_r_files::journal::{Journal, TornLine, lines};
//!
//! # let folder = tempfile::tempdir().unwrap();
//! # let path = folder.path().join("done.jsonl");
//! let (mut journal, _) = Journal::lock(&path, TornLine::Cut)?.expect("no other process has it open");
//! journal.append(&"first question")?;
//! drop(journal);
//! let (_, text) = Journal::lock(&path, TornLine::Cut)?.expect("no other process has it open");
//! let done: Vec<String> = lines(&text).filter_map(|line| line.parse().ok()).collect();
//! assert_eq!(done, ["first question"]);
//! # Ok::<(), embodied_r_files::Error>(())
//! ```

pub mod append;
mod error;
pub mod journal;
pub mod lock;
mod read;
mod staging;
mod write;

pub use append::AppendFile;
pub use error::{Error, Result};
pub use journal::Journal;
pub use read::{open_text, read_text};
pub use staging::Staging;
pub use write::{
    TempFile, create_parents, remove_abandoned, write_all_atomic, write_atomic, write_atomic_with,
    write_in_existing_folder, write_in_existing_folder_with, write_json,
    write_json_in_existing_folder, write_lines,
};
