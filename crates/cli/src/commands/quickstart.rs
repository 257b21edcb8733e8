//! `embodied-r quickstart`.

use crate::args::quickstart::QuickstartArgs;
use crate::exit::Status;

/// Run the whole way on built-in rooms.
pub(crate) fn run(_args: QuickstartArgs) -> anyhow::Result<Status> {
    anyhow::bail!("`embodied-r quickstart` is not there yet")
}
