//! Graceful shutdown on Ctrl-C.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use anyhow::Context as _;
use signal_hook::consts::SIGUSR1;

use crate::exit;

/// The flag that Ctrl-C sets. One per process, even if it makes several runs.
static STOP: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Whether Ctrl-C was pressed after [`on_interrupt`].
pub(crate) fn is_requested() -> bool {
    STOP.get().is_some_and(|stop| stop.load(Ordering::Relaxed))
}

/// The error of a command that Ctrl-C ended, and that resumes.
pub(crate) fn interrupted() -> anyhow::Error {
    exit::hint("interrupted", "run the same command again to resume")
}

/// A flag that the first Ctrl-C sets, printing `message`; a second Ctrl-C ends the process at once.
///
/// # Errors
/// The operating system does not allow a signal handler.
pub(crate) fn on_interrupt(message: &'static str) -> anyhow::Result<Arc<AtomicBool>> {
    if let Some(stop) = STOP.get() {
        return Ok(Arc::clone(stop));
    }
    let stop = Arc::clone(STOP.get_or_init(Arc::default));
    // The launcher forwards Ctrl-C to its ranks as SIGUSR1.
    signal_hook::flag::register(SIGUSR1, Arc::clone(&stop)).context("cannot handle signals")?;
    let flag = Arc::clone(&stop);
    ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        eprintln!("\n{message}; press Ctrl-C again to exit immediately");
    })
    .context("cannot handle Ctrl-C")?;
    Ok(stop)
}
