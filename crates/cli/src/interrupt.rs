//! Ctrl-C, for commands that end in good order.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use anyhow::Context as _;
use signal_hook::consts::SIGUSR1;

/// The flag that Ctrl-C sets: a process has one, however many runs it makes one after the other.
static STOP: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// A flag that Ctrl-C sets, which says `telling` then; a second Ctrl-C ends the process at once.
///
/// # Errors
/// The operating system allows no such listener.
pub(crate) fn on_interrupt(telling: &'static str) -> anyhow::Result<Arc<AtomicBool>> {
    if let Some(stop) = STOP.get() {
        return Ok(Arc::clone(stop));
    }
    let stop = Arc::clone(STOP.get_or_init(Arc::default));
    // What a launcher passes on to its ranks.
    signal_hook::flag::register(SIGUSR1, Arc::clone(&stop)).context("cannot listen to signals")?;
    let flag = Arc::clone(&stop);
    ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        eprintln!("\n{telling}; Ctrl-C again ends at once");
    })
    .context("cannot listen to Ctrl-C")?;
    Ok(stop)
}
