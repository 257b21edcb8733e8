//! Limits of what a chat template may use: a template comes with its model and is not trusted.
//!
//! Its source has [`MAX_SOURCE_BYTES`] and nests as deeply as [`super::guarded`] prints. Rendering takes [`FUEL`] steps and
//! [`DEADLINE`], and makes strings of [`BUDGET_BYTES`] in all, more for long conversations. A list is measured with all of
//! its items when it is made, since printing it repeats every shared one.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use minijinja::value::{Rest, Value, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, State, escape_formatter, filters};
use minijinja_contrib::pycompat::unknown_method_callback;

use super::functions::{environment, syntax};
use super::guarded::{CHECK, MULTIPLY, NAME, guarded};
use super::specifiers;

/// Maximum length of a template's source. The longest published ones have 30 kB.
const MAX_SOURCE_BYTES: usize = 256 << 10;

/// Steps of a rendering, and of each message in addition. Published templates take 20 to 500 per message.
const FUEL: u64 = 200_000;
const FUEL_PER_MESSAGE: u64 = 20_000;

/// Bytes of all strings that a rendering makes, and for each byte of the conversation in addition.
const BUDGET_BYTES: usize = 16 << 20;
const BUDGET_PER_BYTE: usize = 16;

/// Time of a rendering, which usually takes less than a millisecond.
const DEADLINE: Duration = Duration::from_secs(20);

/// Bytes of an item of a list besides those of its string.
const VALUE_BYTES: usize = 24;

/// Maximum depth of nested lists and maps.
const MAX_DEPTH: usize = 200;

/// Maximum width, precision or indentation in characters.
const MAX_WIDTH: usize = 1000;

/// Stack for parsing and compiling, which recurse once per operator of a chain as long as the source.
const COMPILER_STACK_BYTES: usize = 1 << 30;

/// minijinja's filters that are called after a check, under a name that no template can have.
const UNCHECKED: [(&str, &str); 4] =
    [("format", "__format"), ("indent", "__indent"), ("join", "__join"), ("replace", "__replace")];

/// What [`Budget::before`] calls the method `format`, whose formats are not those of the filter.
const STR_FORMAT: &str = "str.format";

/// Compiles a template under [`NAME`].
///
/// # Errors
/// The template is too long, nests too deeply, loads other templates, or has a syntax error.
pub(super) fn compile(source: String) -> Result<Environment<'static>, Error> {
    if source.len() > MAX_SOURCE_BYTES {
        let what = format!("it has {} bytes, more than {MAX_SOURCE_BYTES}", source.len());
        return Err(Error::new(ErrorKind::SyntaxError, what));
    }
    let compile = move || {
        let mut environment = environment()?;
        environment.add_template_owned(NAME, guarded(&source, syntax()?)?)?;
        for (name, unchecked) in UNCHECKED {
            match name {
                "format" => environment.add_filter(unchecked, filters::format),
                "indent" => environment.add_filter(unchecked, filters::indent),
                "join" => environment.add_filter(unchecked, filters::join),
                _ => environment.add_filter(unchecked, filters::replace),
            }
        }
        Ok(environment)
    };
    let lost = |what: String| Error::new(ErrorKind::InvalidOperation, what);
    let thread = std::thread::Builder::new().stack_size(COMPILER_STACK_BYTES).spawn(compile);
    let thread = thread.map_err(|error| lost(format!("cannot start a thread: {error}")))?;
    thread.join().unwrap_or_else(|_| Err(lost("the compiler of chat templates failed".to_owned())))
}

/// Renders the template of `environment` for a conversation of `messages` messages.
///
/// # Errors
/// The template fails or exceeds a limit.
pub(super) fn render(
    environment: &Environment<'static>,
    context: Value,
    messages: usize,
) -> Result<String, Error> {
    let input = Budget::new(usize::MAX).measure(&context)?;
    let bytes = BUDGET_BYTES.saturating_add(input.saturating_mul(BUDGET_PER_BYTE));
    let budget = Arc::new(Budget::new(bytes));
    // The filters of this rendering share its budget.
    let mut environment = environment.clone();
    environment.set_fuel(Some(FUEL + FUEL_PER_MESSAGE * messages as u64));
    limit(&mut environment, &budget);
    // minijinja 3.0.5 panics on a reversed empty list, for one.
    let render = || environment.get_template(NAME)?.render(context);
    catch_unwind(AssertUnwindSafe(render))
        .unwrap_or_else(|_| Err(exceeded("the template engine failed")))
}

/// What is left of a rendering's limits.
struct Budget {
    bytes: AtomicUsize,
    deadline: Instant,
}

impl Budget {
    fn new(bytes: usize) -> Self {
        Self { bytes: AtomicUsize::new(bytes), deadline: Instant::now() + DEADLINE }
    }

    fn left(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether so many bytes can still be made.
    fn allow(&self, bytes: Option<usize>) -> Result<usize, Error> {
        match bytes.filter(|bytes| *bytes <= self.left()) {
            Some(bytes) => Ok(bytes),
            None => Err(exceeded("the strings it makes exceed the memory limit")),
        }
    }

    /// Takes the bytes of a string, or allows a list or map as long as it is when printed.
    fn check(&self, value: Value) -> Result<Value, Error> {
        if Instant::now() > self.deadline {
            return Err(exceeded(&format!("it takes longer than {} s", DEADLINE.as_secs())));
        }
        match value.as_str() {
            Some(text) => {
                let bytes = self.allow(Some(text.len()))?;
                self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            }
            None => {
                self.measure(&value)?;
            }
        }
        Ok(value)
    }

    /// The bytes of a value with every item as often as it is contained; when printed, it is not much longer.
    fn measure(&self, value: &Value) -> Result<usize, Error> {
        let mut total = 0;
        self.add(value, 0, &mut total)?;
        Ok(total)
    }

    fn add(&self, value: &Value, depth: usize, total: &mut usize) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(exceeded(&format!("a list nests more than {MAX_DEPTH} levels deep")));
        }
        let own = VALUE_BYTES + value.as_str().map_or(0, str::len);
        *total = self.allow(total.checked_add(own))?;
        let is_map = value.kind() == ValueKind::Map;
        // Others, such as generators, can only be read once.
        let is_sized = is_map || (value.len().is_some() && value.as_str().is_none());
        if !is_sized || value.as_bytes().is_some() {
            return Ok(());
        }
        for item in value.try_iter()? {
            self.add(&item, depth + 1, total)?;
            if is_map {
                self.add(&value.get_item(&item)?, depth + 1, total)?;
            }
        }
        Ok(())
    }
}

fn exceeded(what: &str) -> Error {
    Error::new(ErrorKind::InvalidOperation, what.to_owned())
}

/// Adds the checks of [`super::guarded`], and replaces what makes long strings from short ones.
fn limit(environment: &mut Environment<'static>, budget: &Arc<Budget>) {
    let of = budget.clone();
    environment.add_filter(CHECK, move |value: Value| of.check(value));
    let of = budget.clone();
    environment.add_function(MULTIPLY, move |a: Value, b: Value| of.multiply(&a, &b));
    let of = budget.clone();
    environment.set_formatter(move |out, state, value| {
        of.check(value.clone())?;
        escape_formatter(out, state, value)
    });
    for (name, unchecked) in UNCHECKED {
        let of = budget.clone();
        let filter = move |state: &mut State, arguments: Rest<ValueOrKwargs>| {
            let arguments = of.before(name, &arguments.into_values())?;
            state.apply_filter(unchecked, &arguments)
        };
        environment.add_filter(name, filter);
    }
    let of = budget.clone();
    environment.set_unknown_method_callback(move |state, value, method, arguments| {
        // `", ".join(list)`: the list is what the filter has first.
        let is_join = method == "join";
        let mut checked = vec![value.clone()];
        checked.extend_from_slice(arguments);
        if is_join && checked.len() == 2 {
            checked.swap(0, 1);
        }
        let name = if method == "format" { STR_FORMAT } else { method };
        let mut checked = of.before(name, &checked)?;
        if is_join && checked.len() == 2 {
            checked.swap(0, 1);
        }
        unknown_method_callback(state, &checked[0], method, &checked[1..])
    });
}

impl Budget {
    /// The arguments of the filter or method `name`, whose result is within the limits.
    fn before(&self, name: &str, arguments: &[Value]) -> Result<Vec<Value>, Error> {
        let mut arguments = arguments.to_vec();
        let text = |index: usize| arguments.get(index).map(ToString::to_string).unwrap_or_default();
        match name {
            "replace" => {
                let (text, from, to) = (text(0), text(1), text(2));
                let added = text.matches(from.as_str()).count().checked_mul(to.len());
                self.allow(added.and_then(|added| added.checked_add(text.len())))?;
            }
            "join" => {
                if let Some(list) = arguments.first_mut() {
                    // A generator can only be read once.
                    let items: Vec<Value> = list.try_iter()?.collect();
                    *list = Value::from(items);
                }
                let separator = arguments.get(1).and_then(|of| of.as_str()).map_or(0, str::len);
                let items = arguments.first().and_then(Value::len).unwrap_or_default();
                let list = arguments.first().map_or(Ok(0), |list| self.measure(list))?;
                self.allow(items.checked_mul(separator).and_then(|all| all.checked_add(list)))?;
            }
            "indent" => {
                let lines = text(0).lines().count();
                let width = arguments[1..].iter().find_map(|value| {
                    value.as_usize().or_else(|| value.get_attr("width").ok()?.as_usize())
                });
                let width = self.width(width.unwrap_or(4))?;
                self.allow(lines.checked_mul(width))?;
            }
            "format" => {
                let text = text(0);
                let specifiers = specifiers::printf(&text);
                if specifiers.iter().any(|of| of.contains('*')) {
                    return Err(exceeded("widths from arguments are not supported"));
                }
                self.widths(&specifiers)?;
            }
            STR_FORMAT => self.widths(&specifiers::str_format(&text(0)))?,
            _ => {}
        }
        Ok(arguments)
    }

    /// Checks the widths and precisions in format specifiers.
    fn widths(&self, specifiers: &[&str]) -> Result<(), Error> {
        let runs = specifiers.iter().flat_map(|of| of.split(|c: char| !c.is_ascii_digit()));
        for run in runs.filter(|run| !run.is_empty()) {
            self.width(run.parse().unwrap_or(usize::MAX))?;
        }
        Ok(())
    }

    fn width(&self, width: usize) -> Result<usize, Error> {
        match width <= MAX_WIDTH {
            true => Ok(width),
            false => Err(exceeded(&format!("the width {width} is above the limit, {MAX_WIDTH}"))),
        }
    }

    /// Python's `*`.
    fn multiply(&self, a: &Value, b: &Value) -> Result<Value, Error> {
        let is_repeated =
            |value: &Value| value.as_str().is_some() || value.kind() == ValueKind::Seq;
        let (repeated, count) = if is_repeated(a) { (a, b) } else { (b, a) };
        if is_repeated(repeated) {
            let count = count.as_usize().ok_or_else(|| product(a, b))?;
            self.allow(self.measure(repeated)?.checked_mul(count))?;
            if let Some(text) = repeated.as_str() {
                return self.check(Value::from(text.repeat(count)));
            }
            let items: Vec<Value> = repeated.try_iter()?.collect();
            let all = std::iter::repeat_n(items, count).flatten();
            return self.check(Value::from(all.collect::<Vec<Value>>()));
        }
        if let (Ok(a), Ok(b)) = (i64::try_from(a.clone()), i64::try_from(b.clone())) {
            let whole = i128::from(a) * i128::from(b);
            return Ok(i64::try_from(whole).map_or_else(|_| Value::from(whole), Value::from));
        }
        match (f64::try_from(a.clone()), f64::try_from(b.clone())) {
            (Ok(a), Ok(b)) => Ok(Value::from(a * b)),
            _ => Err(product(a, b)),
        }
    }
}

fn product(a: &Value, b: &Value) -> Error {
    exceeded(&format!("cannot multiply {} and {}", a.kind(), b.kind()))
}
