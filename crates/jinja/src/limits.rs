//! Limits of what a template may use: it comes with its model and is not trusted.
//!
//! Rendering takes [`FUEL`] steps and [`DEADLINE`], and makes strings and lists of [`BUDGET_BYTES`] in all, more for long
//! conversations. A list is measured with all of its items when it is made, since printing it repeats every shared one.

use std::cell::Cell;
use std::time::{Duration, Instant};

use super::fault::{Result, TemplateFault, fail};

/// Maximum length of a template's source. The longest published ones have 30 kB.
pub(super) const MAX_SOURCE_BYTES: usize = 256 << 10;

/// Maximum depth of nested statements and expressions in the source.
pub(super) const MAX_NESTING: usize = 200;

/// Maximum depth of statements, expressions and macro calls of a rendering.
const MAX_RECURSION: usize = 2000;

/// Stack for [`MAX_RECURSION`] levels.
pub(super) const STACK_BYTES: usize = 64 << 20;

/// Steps of a rendering, and of each message in addition. Published templates take 20 to 500 per message.
const FUEL: u64 = 200_000;
const FUEL_PER_MESSAGE: u64 = 20_000;

/// Bytes of all strings that a rendering makes, and for each byte of the conversation in addition.
const BUDGET_BYTES: usize = 16 << 20;
const BUDGET_PER_BYTE: usize = 16;

/// Time of a rendering, which usually takes less than a millisecond.
const DEADLINE: Duration = Duration::from_secs(20);

/// Steps between two looks at the clock.
const STEPS_PER_LOOK: u64 = 256;

/// Bytes of a value besides those of its text.
pub(super) const VALUE_BYTES: usize = 24;

/// Maximum width, precision or indentation in characters.
const MAX_WIDTH: usize = 1000;

/// What is left of a rendering's limits.
pub(super) struct Meter {
    fuel: Cell<u64>,
    until_look: Cell<u64>,
    bytes: Cell<usize>,
    deadline: Instant,
    recursion: Cell<usize>,
}

impl Meter {
    /// The limits for a conversation of `messages` messages and `bytes` bytes.
    pub(super) fn new(messages: usize, bytes: usize) -> Self {
        let budget = BUDGET_BYTES.saturating_add(bytes.saturating_mul(BUDGET_PER_BYTE));
        Self {
            fuel: Cell::new(FUEL + FUEL_PER_MESSAGE * messages as u64),
            until_look: Cell::new(STEPS_PER_LOOK),
            bytes: Cell::new(budget),
            deadline: Instant::now() + DEADLINE,
            recursion: Cell::new(0),
        }
    }

    /// Takes steps.
    pub(super) fn steps(&self, steps: usize) -> Result<()> {
        let steps = steps as u64;
        match self.fuel.get().checked_sub(steps) {
            Some(left) => self.fuel.set(left),
            None => return fail("the template ran out of fuel: it takes too many steps"),
        }
        match self.until_look.get().checked_sub(steps) {
            Some(left) => self.until_look.set(left),
            None => {
                self.until_look.set(STEPS_PER_LOOK);
                self.look()?;
            }
        }
        Ok(())
    }

    /// Checks the time.
    fn look(&self) -> Result<()> {
        match Instant::now() > self.deadline {
            true => fail(format!("the template takes longer than {} s", DEADLINE.as_secs())),
            false => Ok(()),
        }
    }

    /// Whether so many bytes can still be made.
    pub(super) fn allow(&self, bytes: Option<usize>) -> Result<usize> {
        match bytes.filter(|bytes| *bytes <= self.bytes.get()) {
            Some(bytes) => Ok(bytes),
            None => fail("the strings that the template makes exceed the memory limit"),
        }
    }

    /// Takes bytes.
    pub(super) fn take(&self, bytes: usize) -> Result<()> {
        self.allow(Some(bytes))?;
        self.bytes.set(self.bytes.get() - bytes);
        // Long texts take time.
        if bytes > 4096 { self.look() } else { Ok(()) }
    }

    /// Takes the steps of looking at a text, list or map of so many bytes.
    pub(super) fn scan(&self, bytes: usize) -> Result<()> {
        self.steps(1 + bytes / 1024)
    }

    /// A width, precision or indentation.
    pub(super) fn width(&self, width: usize) -> Result<usize> {
        match width <= MAX_WIDTH {
            true => Ok(width),
            false => fail(format!("the width {width} is above the limit, {MAX_WIDTH}")),
        }
    }

    /// Runs one level deeper.
    pub(super) fn deeper<T>(&self, run: impl FnOnce() -> Result<T>) -> Result<T> {
        let depth = self.recursion.get() + 1;
        if depth > MAX_RECURSION {
            return Err(TemplateFault::new("the template exceeds the recursion limit"));
        }
        self.recursion.set(depth);
        let done = run();
        self.recursion.set(depth - 1);
        done
    }
}
